// Keeps the page as it is on the server. Without it the page is what it was when it was loaded.
"use strict";
const now = document.getElementById("now");
const live = document.getElementById("live");
const name = document.querySelector("header").textContent;
const again_ms = 7000;
// When something was told last that is not known any more; the browser tries again every few seconds.
let lost = null;
const says = (words) => { live.textContent = "All times are UTC. " + words; };
const since = (words) => {
  lost = lost ?? new Date().toISOString().slice(11, 16) + " UTC";
  says(words + "; this is what was known at " + lost + ".");
};
const listen = () => {
  const events = new EventSource("events");
  events.onmessage = (event) => {
    now.innerHTML = event.data;
    document.title = name + " · " + now.querySelector(".word").textContent;
    lost = null;
    says("This page keeps itself up to date.");
  };
  events.addEventListener("stale", () => since("The status cannot be looked at"));
  events.onerror = () => {
    since("The connection is lost");
    // A proxy's answer while the console is away ends it for good.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, again_ms);
  };
};
listen();
