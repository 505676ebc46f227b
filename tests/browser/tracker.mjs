// Trackers in a real browser, on a page of another origin than the collector: the npm package
// `@plausible-analytics/tracker`, and Weir's own script, with beacons and without. With each: a page view, single-page
// navigation forth and back, and a click that leaves the site. Every POST must be answered 202, and the
// browser must have nothing to complain of.
//
// WEIR_COLLECTOR     http://HOST:PORT of the collector
// WEIR_SITE          a site that takes pages of the host 127.0.0.1
// WEIR_NODE_MODULES  where playwright-core and the tracker are
// WEIR_CHROMIUM the browser; without it /usr/bin/chromium
//
// Prints one line of JSON: {"page_views", "outbound_clicks", "pages": {path: views}, "targets": {url: clicks}}.
//
// Nothing is intercepted: playwright answers preflights itself where it intercepts, and a wrong header would be missed.
// The site that is left for is a server of ours, which the browser's resolver rules lead to.

import assert from "node:assert/strict";
import { createReadStream, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const COLLECTOR = need("WEIR_COLLECTOR");
const SITE = need("WEIR_SITE");
const MODULES = resolve(need("WEIR_NODE_MODULES"));
const CHROMIUM = process.env.WEIR_CHROMIUM || "/usr/bin/chromium";

// What a person's browser says; a headless one says so itself, and is counted as a bot.
const USER_AGENT =
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

// Reached only when something is broken.
const PATIENCE_MS = 60_000;

const OURS = `<script defer data-site="${SITE}" src="${COLLECTOR}/weir.js"></script>`;
const TRACKERS = {
  npm: `<script type="module">
    import { init } from "/tracker.js";
    init({domain: "${SITE}", endpoint: "${COLLECTOR}/api/event", captureOnLocalhost: true, outboundLinks: true});
  </script>`,
  script: OURS,
  // Where a browser or a blocker takes beacons away, the script falls back to fetch.
  beaconless: `<script>navigator.sendBeacon = undefined</script>${OURS}`,
};

const { chromium } = createRequire(join(MODULES, "of-weir.js"))("playwright-core");
const trackerFile = join(MODULES, "@plausible-analytics/tracker/plausible.js");

function need(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set (see the top of tracker.mjs)`);
  return value;
}

async function serve(answer) {
  const server = createServer(answer);
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { port: server.address().port, close: () => { server.close(); server.closeAllConnections(); } };
}

// Asks until it is so; fails, saying what for, when it is not in time.
async function until(what, holds) {
  for (const end = Date.now() + PATIENCE_MS; !holds(); ) {
    assert(Date.now() < end, `waited ${PATIENCE_MS / 1000} s for ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

// The site that is counted: any path under a tracker's name is a page with it.
const pages = await serve((request, response) => {
  if (request.url === "/tracker.js") {
    response.writeHead(200, { "content-type": "text/javascript" });
    createReadStream(trackerFile).pipe(response);
    return;
  }
  const tracker = TRACKERS[request.url.split("/")[1]];
  response.writeHead(tracker ? 200 : 404, { "content-type": "text/html" });
  response.end(`<!doctype html><link rel="icon" href="data:,"><title>${request.url}</title>${tracker ?? ""}
    <a id="out" href="http://elsewhere.example/from/${request.url.split("/")[1]}">out</a>`);
});

// The site that is left for. It answers when the click's POST has been: the answer would else go to a page that is gone.
let mayLeave = () => true;
const elsewhere = await serve(async (request, response) => {
  await until("the click to be acknowledged", () => mayLeave()).catch((error) => faults.push(String(error)));
  response.writeHead(200, { "content-type": "text/html" });
  response.end('<!doctype html><link rel="icon" href="data:,"><title>elsewhere</title>');
});

const faults = [];
const sent = []; // {body, status} of each POST to the collector; status is null until there is an answer
const did = { page_views: 0, outbound_clicks: 0, pages: {}, targets: {} };

function watch(context) {
  const [of, answered] = [new Map(), new Set()];
  const ours = (request) => request.url().startsWith(COLLECTOR) && request.method() !== "GET";
  context.on("request", (request) => {
    if (!ours(request)) return;
    of.set(request, { body: JSON.parse(request.postData() ?? "null"), status: null });
    sent.push(of.get(request));
  });
  context.on("response", async (response) => {
    const request = response.request();
    if (!ours(request)) return;
    answered.add(request);
    const origin = (await response.allHeaders())["access-control-allow-origin"];
    // The answer to a beacon is nobody's to read, so the browser asks for no such header and shows none.
    if (request.resourceType() !== "ping" && origin !== "*" && origin !== `http://127.0.0.1:${pages.port}`) {
      faults.push(`${request.url()} allows the origin ${origin}`);
    }
    of.get(request).status = response.status();
  });
  context.on("requestfailed", (request) => {
    const why = request.failure()?.errorText;
    // Nobody reads the rest of an answer once its page is left.
    if (why !== "net::ERR_ABORTED" || !answered.has(request)) faults.push(`${request.url()}: ${why}`);
  });
  context.on("weberror", (error) => faults.push(String(error.error())));
  context.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
}

const isView = (body) => body.n === "pageview" || ("url" in body && !body.kind);
const isClick = (body) => body.n === "Outbound Link: Click" || body.kind === "outbound";
const acknowledged = (which) => sent.filter((post) => which(post.body) && post.status === 202).length;

async function view(page, path, act) {
  did.page_views += 1;
  did.pages[path] = (did.pages[path] ?? 0) + 1;
  await act();
  await until(`the page view of ${path}`, () => acknowledged(isView) === did.page_views);
  const at = sent.filter((post) => isView(post.body)).at(-1).body;
  assert.equal(new URL(at.u ?? at.url).pathname, path);
  assert.equal(new URL(page.url()).pathname, path);
}

async function visit(context, tracker) {
  const page = await context.newPage();
  const [start, second] = [`/${tracker}/start`, `/${tracker}/second`];
  await view(page, start, () => page.goto(`http://127.0.0.1:${pages.port}${start}`));
  await view(page, second, () => page.evaluate((path) => history.pushState({}, "", path), second));
  await view(page, start, () => page.evaluate(() => history.back()));

  // A page's own code may send JSON as JSON, which a browser asks for leave to do first.
  const event = { site: SITE, url: page.url(), kind: "custom", name: "Asked first" };
  const status = await page.evaluate(async ([url, body]) => {
    const headers = { "content-type": "application/json" };
    return (await fetch(url, { method: "POST", headers, body: JSON.stringify(body) })).status;
  }, [`${COLLECTOR}/v1/events`, event]);
  assert.equal(status, 202);

  const target = `http://elsewhere.example/from/${tracker}`;
  did.outbound_clicks += 1;
  did.targets[target] = 1;
  mayLeave = () => acknowledged(isClick) === did.outbound_clicks;
  await page.click("#out");
  await page.waitForURL(target);
  await until("the click to be acknowledged", mayLeave);
  // What a tracker says of its own accord, as of time spent, is answered too.
  await until("every answer", () => sent.every((post) => post.status !== null));
  await page.close();
}

const profile = mkdtempSync(join(tmpdir(), "weir-chromium-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: CHROMIUM,
  userAgent: USER_AGENT,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    `--host-resolver-rules=MAP elsewhere.example:80 127.0.0.1:${elsewhere.port},MAP * ~NOTFOUND,EXCLUDE 127.0.0.1`,
  ],
});
try {
  watch(context);
  for (const tracker of Object.keys(TRACKERS)) await visit(context, tracker);
  assert.deepEqual(sent.filter((post) => post.status !== 202), []);
  assert.deepEqual(faults, []);
  console.log(JSON.stringify(did));
} catch (error) {
  console.error(`seen until then: ${JSON.stringify({ faults, sent }, null, 2)}`);
  throw error;
} finally {
  await context.close();
  pages.close();
  elsewhere.close();
  rmSync(profile, { recursive: true, force: true });
}
