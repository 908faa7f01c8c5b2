// The page that `smalti-run page` writes; called by scripts/check-page.

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, start, visit } from './browser.mjs';

const [smaltiRun, models, list, work, folder] = process.argv.slice(2);
const photos = fs.readFileSync(list, 'utf8').trim().split('\n');
const LIMIT = 60_000;
/* What the page should take of the program's processor time. It is said, not asked for: it depends on the processor. */
const SLOWER = 5;
/* How often all photos are answered for that. */
const ROUNDS = 4;
/* The most bytes of the page of an int8 model of the smallest size. */
const BYTES = 3_000_000;
const say = text => console.log(`-- ${text}`);

/// What a command prints with --json.
function run(...args) {
  const { status, stdout, stderr } = spawnSync(smaltiRun, [...args, '--json'], { encoding: 'utf8' });
  expect(status === 0, `smalti-run ${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout);
}

/// Milliseconds of processor time that `work` takes for a photo, by a clock of them.
async function each(clock, work) {
  const before = await clock();
  for (let round = 0; round < ROUNDS; round++) await work();
  return (await clock() - before) / ROUNDS / photos.length;
}

/// What a process took so far: its whole ticks, of which there are a hundred a second.
const ticks = id => {
  const fields = fs.readFileSync(`/proc/${id}/stat`, 'utf8').replace(/.*\) /s, '').split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
};

/// The program's time for a photo, decoded and classified.
async function native(model) {
  const args = ['serve', model, '--listen', '127.0.0.1:0', '--sessions', '1'];
  const server = spawn(smaltiRun, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const said = await new Promise(done => server.stdout.on('data', done));
    const [address] = String(said).match(/http:\S+/);
    const files = photos.map(photo => fs.readFileSync(photo));
    return await each(() => ticks(server.pid), async () => {
      for (const body of files) await (await fetch(`${address}classify`, { method: 'POST', body })).json();
    });
  } finally {
    server.kill();
  }
}

/// Asks the page about photos as its own script does.
const ask = (page, path, number) => page.evaluate(async ([path, number]) => {
  const answers = [];
  for (const photo of window.photos.slice(0, number)) answers.push((await window.ask(path, photo)).results?.[0]);
  return answers;
}, [path, number]);

async function answers(browser, name) {
  const [model, html] = [path.join(models, `${name}.onnx`), path.join(work, `${name}.html`)];
  const { bytes } = run('page', model, '-o', html);
  const wanted = run('run', model, ...photos).results.map(({ predictions }) => predictions[0]);
  const there = await native(model);
  const devtools = await browser.newBrowserCDPSession();
  const clock = async () => {
    const { processInfo } = await devtools.send('SystemInfo.getProcessInfo');
    return 1000 * processInfo.filter(({ type }) => type === 'renderer').reduce((sum, { cpuTime }) => sum + cpuTime, 0);
  };
  const address = pathToFileURL(html).href;
  await visit(browser, { size: 'desktop', scheme: 'light', folder, address, name }, async page => {
    await page.evaluate(files => {
      const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
      window.photos = files.map(file => new Blob([bytes(file)]));
    }, photos.map(photo => fs.readFileSync(photo).toString('base64')));
    const found = await ask(page, '/classify?top_k=1', photos.length);
    // Browsers compile what is hot while it runs: maps are hundreds of answers.
    await ask(page, '/explain', 4);
    const here = await each(clock, () => ask(page, '/classify?top_k=1', photos.length));
    const best = found.map(({ predictions }) => predictions[0]);
    const others = photos.filter((_, i) => best[i].label !== wanted[i].label);
    const off = Math.max(...best.map(({ probability }, i) => Math.abs(probability - wanted[i].probability)));
    say(`${name}: ${(bytes / 1e6).toFixed(2)} MB; ${photos.length - others.length} of ${photos.length} classes as the ` +
      `program, probabilities within ${off.toFixed(4)}; ${here.toFixed(1)} ms of processor time a photo, the program ` +
      there.toFixed(1));
    expect(others.length === 0, `other classes than the program's: ${others.join(', ')}`);
    if (here > SLOWER * there) say(`that is more than ${SLOWER} times the program's`);
  });
  return { html, bytes, wanted };
}

async function look(browser, { html, wanted }) {
  const address = pathToFileURL(html).href;
  const wait = (page, condition) => page.waitForFunction(condition, null, { timeout: LIMIT });
  const answered = page => wait(page, () => document.getElementById('scores').children.length > 0);
  for (const view of ['desktop', 'phone'].flatMap(size => ['light', 'dark'].map(scheme => ({ size, scheme })))) {
    await visit(browser, { ...view, folder, address, name: 'page' }, async (page, shot) => {
      await wait(page, () => document.getElementById('about').textContent.includes('needs no network'));
      await shot('empty');
      await page.setInputFiles('#file', photos[0]);
      await answered(page);
      const said = await page.textContent('#label');
      expect(said.startsWith(wanted[0].label), `${said} instead of ${wanted[0].label}`);
      await shot('answered');
      await page.click('#why');
      await page.waitForSelector('#scale:not([hidden])', { timeout: LIMIT });
      await shot('explained');

      // What is no image; and then one again.
      const text = path.join(work, 'notes.jpg');
      fs.writeFileSync(text, 'no image');
      await page.setInputFiles('#file', text);
      await page.waitForSelector('#error:not([hidden])', { timeout: LIMIT });
      expect((await page.textContent('#error')).startsWith('No image format'), 'it is said what is wrong');
      await shot('refused');
      await page.setInputFiles('#file', photos[1]);
      await answered(page);
      expect(await page.isHidden('#error'), 'the error is gone');

      await page.evaluate(() => document.getElementById('scores').replaceChildren());
      await page.click('#camera');
      await wait(page, () => document.getElementById('video').videoWidth > 0);
      await answered(page);
      await shot('camera');
      await page.click('#camera');
      await wait(page, () => document.getElementById('video').hidden);
    });
  }
  say('on a desktop and a phone, light and dark: chosen and filmed images, a heat map, what is no image');
}

const browser = await start();
try {
  const page = await answers(browser, 'groceries-int8');
  expect(page.bytes <= BYTES, `${page.bytes} bytes`);
  await answers(browser, 'groceries');
  await look(browser, page);
  say(`the page holds; screenshots in ${folder}`);
} catch (error) {
  console.error(`-- FAILED: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
