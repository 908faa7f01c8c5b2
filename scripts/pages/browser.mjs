// A browser whose pages are watched.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const AXE = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
const FLAGS = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

export const start = () => chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: process.getuid() === 0 ? [...FLAGS, '--no-sandbox'] : FLAGS,
});

/// What a page should not do is an error with this in front.
export class Failure extends Error {}

export function expect(is, said) {
  if (!is) throw new Failure(said);
}

/// Opens an address at that size (`desktop` or `phone`) and in that scheme (`light` or `dark`), lets `look` use the page, takes
/// a screenshot under that name wherever `look` calls `shot`, and closes it. The page may ask only its own origin; requests
/// that are to be refused from then on, which Chromium reports as errors, `look` names by `refuses`, the start of their paths.
export async function visit(browser, { address, size, scheme, folder, name }, look) {
  const context = await browser.newContext({
    viewport: SIZES[size], colorScheme: scheme, reducedMotion: 'reduce', hasTouch: size === 'phone', isMobile: size === 'phone',
  });
  const page = await context.newPage();
  const [origin, problems, refused] = [new URL(address).origin, [], []];
  const isExpected = message => message.text().startsWith('Failed to load resource') &&
    refused.some(path => new URL(message.location().url).pathname.startsWith(path));
  page.on('console', message => {
    const isProblem = ['error', 'warning'].includes(message.type()) && !isExpected(message);
    if (isProblem) problems.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on('pageerror', error => problems.push(`error: ${error.stack || error}`));
  const network = await context.newCDPSession(page);
  await network.send('Network.enable');
  network.on('Network.requestWillBeSent', ({ request: { url } }) => {
    const { protocol, origin: of } = new URL(url);
    const isOwn = ['data:', 'blob:'].includes(protocol) || (protocol === 'file:' ? url === address : of === origin);
    if (!isOwn) problems.push(`request to ${url.slice(0, 200)}`);
  });
  const prefix = `${folder}/${name}-${size}-${scheme}`;
  const shot = async (moment, fullPage = true) => {
    await page.screenshot({ path: `${prefix}-${moment}.png`, fullPage });
    await inspect(page, `${name}, ${size}, ${scheme}, ${moment}`, problems);
  };
  try {
    await page.goto(address);
    await look(page, shot, path => refused.push(path));
  } catch (error) {
    await page.screenshot({ path: `${prefix}-failed.png` });
    const place = (error.stack || '').split('\n').find(line => line.includes('check.mjs'));
    throw new Failure(`${name}, ${size}, ${scheme}: ${error.message}\n  ${place}`);
  }
  expect(problems.length === 0, `${name}, ${size}, ${scheme}:\n  ${problems.join('\n  ')}`);
  await context.close();
}

/// Notes what axe finds serious, and what is wider than the window.
async function inspect(page, place, problems) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { preload: false }));
  for (const { id, impact, nodes } of violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))) {
    problems.push(`axe, ${place}: ${impact} ${id} at ${nodes.slice(0, 3).map(node => node.target.join(' ')).join(', ')}: ` +
      nodes[0].failureSummary.replace(/\s+/g, ' '));
  }
  const [wide, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  if (wide > window_) problems.push(`${place}: ${wide} pixels wide in a window of ${window_}`);
}
