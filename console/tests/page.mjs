// The status page in a real browser, in every state: on a phone and on a desk, light and dark, with JavaScript and without.
// It must say what /status.json says, fit its screen, be readable, run nothing that operators wrote, and change by itself.
//
// WEIR_PAGES         JSON: {"states": [{name, url, status}], "changing": url}
// WEIR_NODE_MODULES  where playwright-core is
// WEIR_CHROMIUM      the browser
// WEIR_TEST_PICTURES      a folder for screenshots; without it there are none

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const { states, changing } = JSON.parse(process.env.WEIR_PAGES);
const PICTURES = process.env.WEIR_TEST_PICTURES;
const { chromium } = createRequire(join(resolve(process.env.WEIR_NODE_MODULES), "of-weir.js"))("playwright-core");

const SCREENS = {
  phone: { width: 360, height: 740 },
  desk: { width: 1280, height: 900 },
};

// Reached only when something is broken.
const PATIENCE_MS = 60_000;

// HTML has no other white space than single spaces, and none of the other control characters.
const plain = (text) => text.replace(/\s+/g, " ").trim();

// The least contrast of any text with what is behind it, as WCAG 2 defines it.
function contrast() {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const colour = (text) => text.match(/[\d.]+/g).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const is = colour(getComputedStyle(element).backgroundColor);
      if (is.length === 3 || is[3] > 0) return is;
    }
    return [255, 255, 255];
  };
  let least = { ratio: 21 };
  for (const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walk.nextNode(); ) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const [a, b] = [light(colour(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least.ratio) least = { ratio, text: walk.currentNode.data };
  }
  return least;
}

const browser = await chromium.launch({ executablePath: process.env.WEIR_CHROMIUM, args: ["--no-sandbox"] });
if (PICTURES) mkdirSync(PICTURES, { recursive: true });

async function open(options, url) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(message.text()); });
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(url);
  return { page, faults, close: () => context.close() };
}

for (const { name, url, status } of states) {
  const { page: shown, faults, close: closeShown } = await open({}, url);
  await shown.getByText("This page keeps itself up to date").waitFor();
  assert.equal(plain(await shown.textContent("h1")), plain(status.sentence), name);
  assert.equal(await shown.locator(`.light.${status.status}`).count(), 1, name);
  for (const [screen, viewport] of Object.entries(SCREENS)) {
    for (const colorScheme of ["light", "dark"]) {
      const where = `${name}, ${screen}, ${colorScheme}`;
      await shown.setViewportSize(viewport);
      await shown.emulateMedia({ colorScheme });
      const wide = await shown.evaluate(() => document.documentElement.scrollWidth);
      assert(wide <= viewport.width, `${where}: ${wide} px wide`);
      const least = await shown.evaluate(contrast);
      assert(least.ratio >= 4.5, `${where}: ${JSON.stringify(least)}`);
      const picture = `${name.replaceAll(" ", "-")}-${screen}-${colorScheme}.png`;
      if (PICTURES) await shown.screenshot({ path: join(PICTURES, picture), fullPage: true });
    }
  }
  assert.equal(await shown.evaluate(() => window.hurt), undefined, name);
  assert.deepEqual(faults, [], name);
  await closeShown();
  const { page, close } = await open({ javaScriptEnabled: false }, url);
  assert.equal(plain(await page.textContent("h1")), plain(status.sentence), `${name}, without JavaScript`);
  await close();
}

// One quarter of the time nobody can look at it: a page that is loaded then is an answer in plain words, which stays: it
// is loaded again.
const { page, faults } = await open({}, changing);
while (!(await page.locator("h1").count())) {
  faults.length = 0;
  await page.goto(changing);
}
for (const [words, title] of [
  ["Paused for maintenance", "Maintenance"],
  ["still being computed", "Maintenance"],
  ["Everything is collected", "All is well"],
]) {
  await page.locator("h1", { hasText: words }).waitFor();
  await page.waitForFunction((end) => document.title.endsWith(" · " + end), title);
}
// A look that fails is said, and what was known stays; so does it when the next one does not.
const live = page.locator("#live");
for (const words of ["The status cannot be looked at", "This page keeps itself up to date", "The status cannot be looked at"]) {
  await live.filter({ hasText: words }).waitFor();
  assert.equal(await page.locator("h1").count(), 1);
}
assert.deepEqual(faults, []);
// A proxy that answers while the console is away ends the connection for good: the page makes a new one, and says all the
// time since when it knows nothing.
{
  const { page, close } = await open({}, states[0].url);
  let asked = 0;
  await page.route("**/events", (route) => { asked += 1; return route.fulfill({ status: 503 }); });
  await page.reload();
  const live = page.locator("#live");
  await live.filter({ hasText: "The connection is lost" }).waitFor();
  const said = await live.textContent();
  await page.evaluate(() => { Date.prototype.toISOString = () => "2000-01-01T00:00:00.000Z"; });
  while (asked < 3) await page.waitForRequest("**/events");
  assert.equal(await live.textContent(), said);
  await page.unroute("**/events");
  await live.filter({ hasText: "This page keeps itself up to date" }).waitFor();
  await close();
}
await browser.close();
console.log(`${states.length} states looked at`);
