// The pages, one after another; called by scripts/check-pages.

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, start, visit } from './browser.mjs';

const [smalti, smaltiRun, run, root, work, folder] = process.argv.slice(2);
const VIEWS = ['desktop', 'phone'].flatMap(size => ['light', 'dark'].map(scheme => ({ size, scheme, folder })));
const MODEL = path.join(root, 'models/ready/groceries-int8.onnx');
const LIMIT = 60_000;

const say = text => console.log(`-- ${text}`);
const running = [];

/// Starts a program that says where it listens, and gives that address.
function serve(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  running.push(child);
  return new Promise((done, fail) => {
    let said = '';
    const listen = chunk => {
      said += chunk;
      const found = said.match(/http:\/\/127\.0\.0\.1:\d+\//);
      if (found) done(found[0]);
    };
    child.stdout.on('data', listen);
    child.stderr.on('data', listen);
    child.on('exit', code => fail(new Error(`${program} ${args.join(' ')} ended with ${code}: ${said}`)));
  });
}

/// What a program prints with --json.
function ask(program, ...args) {
  const { status, stdout, stderr } = spawnSync(program, [...args, '--json'], { encoding: 'utf8' });
  expect(status === 0, `${program} ${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout);
}

/// Photos of a class.
const photos = name => fs.readdirSync(path.join(work, 'photos/train', name)).sort().map(file => path.join(work, 'photos/train', name, file));

/// Drops a file on the page, as from another window.
async function drop(page, file) {
  const bytes = fs.readFileSync(file).toString('base64');
  const transfer = await page.evaluateHandle(async ([bytes, name]) => {
    const transfer = new DataTransfer();
    const data = Uint8Array.from(atob(bytes), letter => letter.charCodeAt(0));
    transfer.items.add(new File([data], name, { type: 'image/jpeg' }));
    return transfer;
  }, [bytes, path.basename(file)]);
  for (const event of ['dragover', 'drop']) await page.dispatchEvent('body', event, { dataTransfer: transfer });
}

/// Waits until an element's text holds that.
const shows = (page, selector, text) =>
  page.waitForFunction(([selector, text]) => document.querySelector(selector).textContent.includes(text), [selector, text], { timeout: LIMIT });
const enabled = (page, id) => page.waitForFunction(id => !document.getElementById(id).disabled, id, { timeout: LIMIT });

async function report(browser) {
  const address = pathToFileURL(path.join(run, 'report.html')).href;
  for (const view of VIEWS) {
    await visit(browser, { ...view, address, name: 'report' }, async (page, shot) => {
      await page.waitForSelector('h1');
      await shot('top', false);
      await shot('whole');
    });
  }
  say('report: read on a desktop and a phone, light and dark');
}

async function tryModel(browser) {
  const [bank, detector] = [path.join(work, 'classes.bank'), path.join(work, 'good.anomaly')];
  const [lemons, bananas] = [photos('lemon'), photos('banana')];
  ask(smaltiRun, 'anomaly', 'fit', MODEL, detector, path.join(work, 'photos/train/lemon'), '--false-alarms', '20%');
  const address = await serve(smaltiRun, ['serve', MODEL, '--listen', '127.0.0.1:0', '--bank', bank, '--anomaly', detector]);
  const wanted = ask(smaltiRun, 'run', MODEL, lemons[0]).results[0].predictions[0].label;
  const learned = () => ask(smaltiRun, 'learn', 'list', MODEL, bank).classes;
  for (const view of VIEWS) {
    await visit(browser, { ...view, address, name: 'serve' }, async (page, shot, refuses) => {
      await page.waitForFunction(() => !document.getElementById('teach').hidden);
      await shot('empty');
      await drop(page, lemons[0]);
      await shows(page, '#label', wanted);
      await shows(page, '#unusual', 'above 1');
      await shot('dropped');
      await page.setInputFiles('#file', bananas[0]);
      await shows(page, '#unusual', 'Unusual');
      await page.click('#where');
      await page.waitForSelector('#warmth:not([hidden])', { timeout: LIMIT });
      await shot('unusual');
      await page.click('#why');
      await page.waitForSelector('#scale:not([hidden])', { timeout: LIMIT });
      await shot('explained');

      // Wrong? Teach it: twice by name, once by the button of the class; take one back.
      const name = `snack & <b>${view.size} ${view.scheme}</b>`;
      await drop(page, bananas[0]);
      for (const [i, photo] of bananas.slice(0, 2).entries()) {
        await drop(page, photo);
        await shows(page, '#unusual', 'above 1');
        await enabled(page, 'learn');
        await page.fill('#class', name);
        await page.press('#class', 'Enter');
        await shows(page, '#taught', `Learned: ${name}`);
        await shows(page, '#classes li:last-child', `${i + 1} image`);
      }
      await shows(page, '#label', name);
      await drop(page, bananas[2]);
      await enabled(page, 'learn');
      await page.click('#classes li:last-child button');
      await shows(page, '#classes li:last-child', '3 images');
      expect(learned().find(one => one.name === name).images === 3, 'the file holds three images');
      await shot('taught');
      await page.click('#undo');
      await shows(page, '#taught', 'Taken back');
      expect(learned().find(one => one.name === name).images === 2, 'the file holds two images');
      for (let left = 1; left >= 0; left--) {
        await enabled(page, 'undo');
        const said = page.waitForResponse(answer => answer.request().method() === 'DELETE');
        await page.click('#undo');
        await said;
      }
      await page.waitForFunction(() => document.getElementById('undo').disabled);
      expect(learned().length === 0, 'the file holds no class');

      // What is no image.
      refuses('/classify');
      refuses('/anomaly');
      await drop(page, path.join(root, 'README.md'));
      await page.waitForSelector('#error:not([hidden])', { timeout: LIMIT });
      await shot('refused');

      // The camera, a picture of which is taught.
      await page.click('#camera');
      await page.waitForFunction(() => document.getElementById('scores').children.length > 0, null, { timeout: LIMIT });
      expect(await page.evaluate(() => document.getElementById('video').videoWidth > 0), 'the camera is shown');
      await shot('camera');
      await enabled(page, 'learn');
      await page.fill('#class', 'camera');
      await page.click('#learn');
      await shows(page, '#classes', 'camera');
      await page.click('#undo');
      await shows(page, '#taught', 'Taken back');
      await page.click('#camera');
      await page.waitForFunction(() => document.getElementById('video').hidden);
      expect(await page.evaluate(() => !document.getElementById('image').hidden), 'the last frame stays');
    });
  }
  say('serve: dropped, chosen and filmed images, heat maps, lessons and what takes them back');
}

async function guarded(browser) {
  const address = await serve(smaltiRun, ['serve', MODEL, '--listen', '127.0.0.1:0', '--token', 'sesame']);
  await visit(browser, { size: 'phone', scheme: 'light', folder, address, name: 'token' }, async (page, shot, refuses) => {
    await page.waitForSelector('#ask:not([hidden])');
    await shot('asked');
    refuses('/classify');
    await drop(page, photos('banana')[0]);
    await shows(page, '#error', 'token');
    await page.fill('#token', 'sesame');
    await page.press('#token', 'Enter');
    await page.waitForFunction(() => document.getElementById('scores').children.length > 0, null, { timeout: LIMIT });
    expect(await page.evaluate(() => document.getElementById('ask').hidden && document.getElementById('teach').hidden),
      'neither a token nor lessons are asked for');
  });
  say('serve: a token is asked for, and opens the model');
}

async function label(browser) {
  const pile = path.join(work, 'pile');
  for (const view of VIEWS) {
    fs.rmSync(pile, { recursive: true, force: true });
    fs.mkdirSync(pile);
    for (const name of ['banana', 'lemon']) {
      for (const photo of photos(name).slice(0, 2)) fs.copyFileSync(photo, path.join(pile, `${name}-${path.basename(photo)}`));
    }
    fs.writeFileSync(path.join(pile, 'z.jpg'), 'no image');
    const table = path.join(work, `${view.size}-${view.scheme}.csv`);
    const rows = () => fs.readFileSync(table, 'utf8').trim().split('\n').slice(1);
    const address = await serve(smalti, ['label', pile, '--labels', table, '--classes', 'lemon,banana']);
    await visit(browser, { ...view, address, name: 'label' }, async (page, shot, refuses) => {
      refuses('/image/4-'); // which is no image
      const counted = text => shows(page, '#count', text);
      await page.waitForFunction(() => document.getElementById('image').naturalWidth > 0, null, { timeout: LIMIT });
      await counted('0 of 5');
      await shot('first');
      await page.keyboard.press('2');
      await counted('1 of 5');
      await page.keyboard.press('1');
      await counted('2 of 5');
      expect(rows()[0].endsWith(',banana') && rows()[1].endsWith(',lemon'), `labels by key are saved: ${rows()}`);
      await page.keyboard.press('Backspace');
      await counted('1 of 5');
      expect(rows()[1].endsWith(','), `a label that was taken back is gone: ${rows()}`);
      await page.click('#classes li:nth-child(2) button');
      await counted('2 of 5');
      await page.keyboard.press('+');
      await page.keyboard.type('ripe lemon');
      await page.keyboard.press('Enter');
      await counted('3 of 5');
      await page.keyboard.press(' ');
      await shows(page, '#name', 'z.jpg');
      await page.waitForSelector('#unreadable:not([hidden])');
      await shot('unreadable');
      await page.keyboard.press('1');
      await counted('4 of 5');
      await page.keyboard.press('3');
      await page.waitForSelector('#done:not([hidden])');
      await shot('done');
      expect(rows().every(row => !row.endsWith(',')) && rows().some(row => row.endsWith(',ripe lemon')), `all is saved: ${rows()}`);
    });
  }
  say('label: by key, by button and by a new name; undo, skip, an image that cannot be read; all of it saved');
}

const browser = await start();
try {
  for (const check of [report, tryModel, guarded, label]) await check(browser);
  say(`the pages hold; screenshots in ${folder}`);
} catch (error) {
  console.error(`-- FAILED: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
  running.forEach(child => { child.removeAllListeners('exit'); child.kill(); });
}
