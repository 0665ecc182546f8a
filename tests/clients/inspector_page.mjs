// The page of MCP Inspector, used as a person does: `node inspector_page.mjs BROWSER URL SCREENSHOT [WAIT_MS]` connects to
// the server `tasks`, runs a slow command through the form, looks at the answer, and prints what stood there as one JSON object.
import { createRequire } from "node:module";
import { join } from "node:path";

// Modules are not resolved from this file's folder: they are installed outside of the repository.
const require = createRequire(join(process.env.PLAYWRIGHT_DIR, "package.json"));
const { chromium } = require("playwright-core");

const [executablePath, url, screenshot, wait_ms] = process.argv.slice(2);
const QUIET = ["background-networking", "component-update", "sync", "quic", "gpu"].map((name) => `--disable-${name}`);

const browser = await chromium.launch({ executablePath, args: QUIET });
const page = await browser.newPage({ viewport: { width: 1500, height: 1200 } });
page.setDefaultTimeout(20_000);
const seen = { errors: [] };
page.on("pageerror", (error) => seen.errors.push(String(error)));

try {
  await page.goto(url);
  await page.getByRole("switch", { name: 'Connect or disconnect "tasks"' }).click({ force: true });
  await page.getByText("Tools", { exact: true }).first().click();
  const tool = page.getByRole("button", { name: /run_command/ });
  await tool.waitFor();
  seen.heading = await page.getByRole("heading", { name: /^Tools/ }).innerText();
  await tool.click();
  await page.getByRole("textbox", { name: /^command/ }).click({ force: true });
  await page.keyboard.insertText('"sleep 2; echo seen in the page; exit 3"');
  if (wait_ms) await page.getByRole("textbox", { name: "wait_ms" }).fill(wait_ms);
  await page.getByRole("button", { name: "Execute Tool" }).click();
  await page.getByText("Structured Output").waitFor();
  seen.results = await page.getByRole("main").innerText();
  seen.page = await page.locator("body").innerText();
  seen.connection = await page.getByRole("banner").innerText();
} catch (error) {
  seen.failed = String(error);
  seen.page = await page.locator("body").ariaSnapshot();
}
await page.screenshot({ path: screenshot });
await browser.close();
console.log(JSON.stringify(seen));
