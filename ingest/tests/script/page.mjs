// Runs weir.js on a page that is not there, and prints what it sent, one JSON a line.
import { readFileSync } from "node:fs";
import vm from "node:vm";

const sent = [];
const listeners = {};
const on = (type, handler) => { (listeners[type] ||= []).push(handler); };
const fire = (type, event = {}) => (listeners[type] || []).forEach((handler) => handler({ type, ...event }));
const location = { href: "https://blog.example/a?x=1#top", hostname: "blog.example" };
const history = {
  pushState(state, title, url) { location.href = new URL(url, location.href).href; },
  replaceState(state, title, url) { location.href = new URL(url, location.href).href; },
};
const script = { src: "https://collector.example/weir.js", getAttribute: (name) => (name == "data-site" ? "blog" : null) };
const document = {
  currentScript: script, referrer: "https://news.example/", title: "A", visibilityState: "visible", addEventListener: on,
};
const beacon = process.argv[3] != "refused";
const navigator = { language: "de", sendBeacon(to, body) { if (beacon) sent.push({ by: "beacon", to, ...JSON.parse(body) }); return beacon; } };
const fetch = (to, options) => { sent.push({ by: "fetch", credentials: options.credentials, to, ...JSON.parse(options.body) }); return Promise.resolve(); };
const window = { location, navigator, screen: { width: 800, height: 600 }, addEventListener: on };
vm.runInNewContext(readFileSync(process.argv[2], "utf8"), { window, document, history, URL, fetch, JSON });

const link = (href) => {
  const url = new URL(href);
  const a = { href, protocol: url.protocol, hostname: url.hostname, pathname: url.pathname };
  return { closest: () => a };
};
history.pushState(null, "", "/b");
history.replaceState(null, "", "/b#part");
location.href = "https://blog.example/a";
fire("popstate");
fire("click", { target: link("https://blog.example/c") });
fire("click", { target: link("https://other.example/x") });
fire("auxclick", { target: link("https://other.example/y"), button: 1 });
fire("auxclick", { target: link("https://other.example/z"), button: 2 });
fire("click", { target: link("https://blog.example/files/x.pdf") });
fire("click", { target: link("mailto:a@b.example") });
window.weir("Signup", { plan: "pro" });
sent.forEach((event) => console.log(JSON.stringify(event)));
