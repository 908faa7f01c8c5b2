"use strict";
// The page of `smalti label`. The program holds the state; the page shows it and sends one change at a time.

const at = (id) => document.getElementById(id);
let state = null;
let busy = false;

function say(text, bad) {
  at("message").textContent = text;
  at("message").classList.toggle("bad", Boolean(bad));
}

async function ask(path, body) {
  const sent = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, sent);
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

// Sends a change unless one is under way, so that a key held down labels no image that was not seen.
async function change(path, body, said) {
  if (busy) return;
  busy = true;
  try {
    state = await ask(path, body);
    show();
    say(said || "");
  } catch (error) {
    const gone = error instanceof TypeError;
    say(gone ? "The program does not answer: start smalti label again, then load this page again." : error.message, true);
  } finally {
    busy = false;
  }
}

function label(name) {
  const image = state && state.image;
  if (image) change("/label", { image: image.id, class: name }, `${image.name}: ${name}`);
}

function skip() {
  if (state && state.image) change("/skip", { image: state.image.id }, `${state.image.name} is left for later`);
}

function accept() {
  if (state && state.image && state.image.proposal) label(state.image.proposal.class);
}

function classButton(one) {
  const image = state.image;
  const proposal = image.proposal && image.proposal.class === one.name ? image.proposal : null;
  const button = document.createElement("button");
  const part = (tag, kind, text) => {
    const element = document.createElement(tag);
    element.className = kind;
    element.textContent = text;
    button.append(element);
  };
  button.type = "button";
  button.setAttribute("aria-pressed", String(image.label === one.name));
  if (proposal && !image.label) button.className = "proposed";
  if (one.key) {
    button.setAttribute("aria-keyshortcuts", one.key);
    part("kbd", "", one.key);
  }
  part("span", "name", one.name);
  part("span", "faint", proposal ? `${Math.round(100 * proposal.probability)} %` : String(one.count));
  button.addEventListener("click", () => label(one.name));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function show() {
  const image = state.image;
  at("count").textContent = `${state.labelled} of ${state.total} labelled`;
  at("progress").max = Math.max(1, state.total);
  at("progress").value = state.labelled;
  at("skipped").textContent = state.skipped ? `${state.skipped} skipped` : "";
  for (const id of ["figure", "side"]) at(id).hidden = !image;
  at("done").hidden = Boolean(image);
  if (!image) return;
  if (at("image").getAttribute("src") !== image.address) {
    at("image").hidden = false;
    at("unreadable").hidden = true;
    at("image").src = image.address;
  }
  at("image").alt = image.name;
  at("name").textContent = image.name;
  at("place").textContent = `image ${image.place} of ${state.total}` + (image.label ? `, labelled ${image.label}` : "");
  const focused = [...at("classes").querySelectorAll("button")].indexOf(document.activeElement);
  at("classes").replaceChildren(...state.classes.map(classButton));
  if (focused >= 0) at("classes").querySelectorAll("button")[focused].focus();
  at("known").replaceChildren(...state.classes.map((one) => new Option(one.name, one.name)));
  at("class").value = "";
  at("undo").disabled = !state.can_undo;
  at("back").disabled = image.place === 1;
  at("forward").disabled = image.place === state.total;
  at("accept").hidden = !image.proposal;
  for (const address of state.ahead) new Image().src = address;
}

const commands = {
  " ": skip,
  ArrowLeft: () => change("/back", {}),
  ArrowRight: () => change("/forward", {}),
  Backspace: () => change("/undo", {}, "taken back"),
  Enter: accept,
  "+": () => at("class").focus(),
};

document.addEventListener("keydown", (event) => {
  if (!state || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target === at("class")) {
    if (event.key === "Escape") at("class").blur();
    return;
  }
  // A button that has the focus is pressed by these.
  if (event.target instanceof HTMLButtonElement && ["Enter", " "].includes(event.key)) return;
  const one = state.classes.find((known) => known.key && known.key === event.key.toLowerCase());
  const command = one ? () => label(one.name) : commands[event.key];
  if (!command) return;
  event.preventDefault();
  if (!event.repeat) command();
});

at("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("class").value.trim();
  if (!name) return at("class").focus();
  at("class").blur();
  label(name);
});
at("image").addEventListener("error", () => {
  at("image").hidden = true;
  at("unreadable").hidden = false;
});
at("skip").addEventListener("click", skip);
at("accept").addEventListener("click", accept);
at("undo").addEventListener("click", commands.Backspace);
at("back").addEventListener("click", commands.ArrowLeft);
at("again").addEventListener("click", commands.ArrowLeft);
at("forward").addEventListener("click", commands.ArrowRight);

change("/state");
