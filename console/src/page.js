// Keeps the page as it is on the server. Without it the page is what it was when it was loaded.
"use strict";
const now = document.getElementById("now");
const live = document.getElementById("live");
const events = new EventSource("events");
const name = document.querySelector("header").textContent;
const time = () => new Date().toISOString().slice(11, 16) + " UTC";
const fresh = () => { live.textContent = "All times are UTC. This page keeps itself up to date."; };
events.onopen = fresh;
events.onmessage = (event) => {
  now.innerHTML = event.data;
  document.title = name + " · " + now.querySelector(".word").textContent;
  fresh();
};
events.addEventListener("stale", () => {
  live.textContent = "All times are UTC. The status cannot be looked at; this is what was known at " + time() + ".";
});
events.onerror = () => { live.textContent = "All times are UTC. The connection is lost; this is what was known at " + time() + "."; };
