// Weir's tracker: <script defer src="https://COLLECTOR/weir.js" data-site="SITE"></script>
// Counts page views (single-page navigation too), outbound clicks and downloads. No cookies, nothing stored.
// weir("Signup", {plan: "pro"}) counts an event of your own.
!function (w, d) {
  var s = d.currentScript, site = s.getAttribute("data-site") || "", to = s.getAttribute("data-api") || new URL("/v1/events", s.src).href, n = w.navigator, l = w.location, last, from = d.referrer;
  function send(e) {
    e.site = site; e.url = l.href; e.title = d.title; e.language = n.language; e.screen = w.screen.width + "x" + w.screen.height;
    e = JSON.stringify(e);
    n.sendBeacon && n.sendBeacon(to, e) || fetch(to, {method: "POST", body: e, keepalive: true, credentials: "omit"}).catch(function () {});
  }
  function view() {
    var at = l.href.split("#")[0];
    if (at == last) return;
    send({referrer: from});
    last = from = at;
  }
  function click(e) {
    var a = e.target.closest && e.target.closest("a[href]"), out;
    if (!a || !/^https?:$/.test(a.protocol) || e.type == "auxclick" && e.button != 1) return;
    out = a.hostname != l.hostname;
    if (/\.(pdf|zip|gz|tgz|7z|rar|dmg|exe|msi|apk|deb|mp[34]|docx?|xlsx?|pptx?|csv|epub)$/i.test(a.pathname)) send({kind: "download", target: a.href});
    else if (out) send({kind: "outbound", target: a.href});
  }
  ["pushState", "replaceState"].forEach(function (f) {
    var was = history[f];
    history[f] = function () { was.apply(this, arguments); view(); };
  });
  w.addEventListener("popstate", view);
  d.addEventListener("click", click, true);
  d.addEventListener("auxclick", click, true);
  w.weir = function (name, props) { send({kind: "custom", name: name, props: props}); };
  if (d.visibilityState == "prerender") d.addEventListener("visibilitychange", view, {once: true}); else view();
}(window, document);
