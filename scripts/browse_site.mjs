// Open every page of the built docs site in a real browser, from its files: axe finds no violation at desktop width in light
// and phone width in dark (with --all, in all four); no page is wider than its window; nothing is requested but files; and
// the search finds a page without a server.
//
//   node scripts/browse_site.mjs out/site [--all] [folder for screenshots]
//
// Needs the npm packages axe-core and puppeteer-core beside it or in $NODE_PATH, and Chromium ($CHROMIUM, or its usual place).
import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.NODE_PATH ? path.join(process.env.NODE_PATH, "x.js") : import.meta.url);
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");

const folders = process.argv.slice(2).filter((word) => word !== "--all");
const [site, pictures] = folders.map((folder) => path.resolve(folder));
if (pictures) fs.mkdirSync(pictures, { recursive: true });
const VIEWS = [
  { name: "desktop-light", width: 1280, height: 900, scheme: "default" },
  { name: "phone-dark", width: 390, height: 844, scheme: "slate" },
  { name: "desktop-dark", width: 1280, height: 900, scheme: "slate" },
  { name: "phone-light", width: 390, height: 844, scheme: "default" },
].slice(0, process.argv.includes("--all") ? 4 : 2);
const PATIENCE = 300_000; // milliseconds: only keeps a broken page from hanging, on a busy machine as well
const faults = [];

const pages = fs.readdirSync(site, { recursive: true }).filter((file) => file.endsWith(".html")).sort();
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--allow-file-access-from-files", "--disable-dev-shm-usage"],
  timeout: PATIENCE,
  protocolTimeout: PATIENCE,
});
const tab = await browser.newPage();
tab.setDefaultTimeout(PATIENCE);
tab.on("request", (request) => {
  if (!/^(file|data|blob|about):/.test(request.url())) faults.push(`${tab.url()}: requests ${request.url()}`);
});
tab.on("pageerror", (error) => faults.push(`${tab.url()}: ${error.message}`));

for (const file of pages) {
  await tab.goto(pathToFileURL(path.join(site, file)).href, { waitUntil: "load" });
  await tab.evaluate(axe);
  await tab.addStyleTag({ content: "*{transition:none!important;animation:none!important}" }); // colours at once
  for (const view of VIEWS) {
    await tab.setViewport({ width: view.width, height: view.height });
    await tab.evaluate((scheme) => document.body.setAttribute("data-md-color-scheme", scheme), view.scheme);
    if (pictures) await tab.screenshot({ path: path.join(pictures, `${file.replaceAll("/", "-")}-${view.name}.png`) });
    const found = await tab.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, nodes } of found.violations)
      faults.push(`${file}, ${view.name}: ${id}, ${nodes.length} times: ${nodes[0].target} ${nodes[0].html.slice(0, 160)}`);
    const over = await tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (over > 0) faults.push(`${file}, ${view.name}: ${over} pixels wider than the window`);
  }
}

await tab.setViewport({ width: 1280, height: 900 });
await tab.goto(pathToFileURL(path.join(site, "index.html")).href, { waitUntil: "load" });
await tab.focus(".md-search__input");
await tab.keyboard.type("spending limit");
try {
  await tab.waitForSelector(".md-search-result__link");
} catch {
  faults.push("the search finds nothing for “spending limit”");
}
await browser.close();

console.log(faults.join("\n") || `${pages.length} pages in ${VIEWS.length} views: no violation, no request, and the search works`);
process.exit(faults.length ? 1 : 0);
