/* Who answers: the model in this file, on a thread of its own. It is asked as `smalti-run serve` is. */
const PROMISE = 'Images stay in this page: it needs no network.';
const PATHS = ['/classify', '/explain'];
addEventListener('error', ({ message }) => complain(message));
const questions = [];   /* those that wait for an answer, in the order that they were asked in */

const thread = new Worker(URL.createObjectURL(new Blob(['(' + work + ')()'], { type: 'text/javascript' })));
thread.addEventListener('message', ({ data: { answer, problem } }) => {
  const { done, fail } = questions.shift();
  if (problem === undefined) done(answer); else fail(new Error(problem));
});
thread.addEventListener('error', event => {
  event.preventDefault();
  questions.splice(0).forEach(({ fail }) => fail(new Error('This browser cannot run the model (' + event.message + ').')));
});

function send(question) {
  return new Promise((done, fail) => {
    questions.push({ done, fail });
    thread.postMessage(question);
  });
}

const opened = send({ entry: 'open', packed: ['module', 'model'].map(id => find(id).textContent) });

async function ask(path, body) {
  const { model } = await opened;
  const { pathname, searchParams } = new URL(path, 'page:/');
  if (pathname === '/health') return { model, paths: PATHS };
  const asked = name => searchParams.get(name);
  if (pathname === '/explain') return send({ entry: 'explain', image: body, argument: model.labels.indexOf(asked('class')) });
  return { results: [await send({ entry: 'classify', image: body, argument: Number(asked('top_k')) })] };
}

/* What the thread does. Written here, so that the page is one file; nothing outside of the function is there. */
function work() {
  let module, model, wasm;

  const unpack = async text => {
    const packed = Uint8Array.from(atob(text.trim()), letter => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  function call(entry, bytes, argument) {
    const place = wasm.room(bytes.length) >>> 0;
    if (!place) throw new Error('There is not enough memory for it.');
    new Uint8Array(wasm.memory.buffer, place, bytes.length).set(bytes);
    const good = wasm[entry](argument);
    const answer = new Uint8Array(wasm.memory.buffer, wasm.answer() >>> 0, wasm.answer_len()).slice();
    if (!good) throw new Error(new TextDecoder().decode(answer).replace(/^image: (image: )?/, ''));
    return answer;
  }

  const parsed = answer => JSON.parse(new TextDecoder().decode(answer));

  /* A module that has stopped is started anew. */
  function start() {
    wasm = new WebAssembly.Instance(module).exports;
    return parsed(call('open', model));
  }

  async function answer({ entry, packed, image, argument }) {
    if (entry === 'open') {
      try {
        const [code, file] = await Promise.all(packed.map(unpack));
        [module, model] = [await WebAssembly.compile(code), file];
      } catch (problem) {
        const needs = 'This browser is too old: the page needs WebAssembly with SIMD and DecompressionStream';
        throw new Error(needs + ' (' + problem.message + ').');
      }
      return { model: start() };
    }
    const bytes = new Uint8Array(await image.arrayBuffer()), from = performance.now();
    if (!wasm) start();
    const found = call(entry, bytes, argument);
    if (entry === 'explain') return new Blob([found], { type: 'image/png' });
    return { predictions: parsed(found), ms: performance.now() - from };
  }

  /* One question after another. */
  let last = Promise.resolve();
  addEventListener('message', ({ data }) => {
    last = last.then(() => answer(data)).then(
      answer => postMessage({ answer }),
      problem => {
        const stopped = problem instanceof WebAssembly.RuntimeError;
        if (stopped) wasm = null;
        postMessage({ problem: stopped ? 'The model stopped on this image.' : problem.message });
      });
  });
}
