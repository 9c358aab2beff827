// What htmx does not do: errors beside their inputs, one spoken line, the address, and coming back when the service was
// gone; sliders, steps, pasted rows and the map, which all end in the text fields. The prediction itself is htmx's: see
// the form's hx-* attributes.

const QUIET_MS = 700; // after the last key, before anything is spoken or the address changes
const LATE_MS = 1000; // an answer that takes longer leaves an old one on the screen: say so
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;
const ASK_MS = 20_000; // an idle page asks this often whether the model is still the same

const form = document.getElementById("measurements");
const inputs = [...form.querySelectorAll(".entry input")];
const selects = [...document.querySelectorAll(".axes select")];
const handle = document.getElementById("map-handle");
const prediction = document.getElementById("prediction");
const connection = document.getElementById("connection");
const announcement = document.getElementById("announcement");
const code = document.getElementById("code");

const query = (entries) => new URLSearchParams(entries).toString();
const typed = () => query(new FormData(form));
const sliderOf = (input) => document.getElementById(`${input.id}-slider`);
const inputOf = (key) => inputs.find((input) => input.name === key);

// The input that the prediction on the screen belongs to; at first, what the server filled in.
let answered = (() => {
  const defaults = new FormData(form);
  for (const input of inputs) defaults.set(input.name, input.defaultValue);
  for (const select of selects) defaults.set(select.name, select.querySelector("[selected]").value);
  return query(defaults);
})();
let isQuiet = true;
let quietTimer = 0;
let lateTimer = 0;
let retryTimer = 0;
let retryMs = FIRST_RETRY_MS;

// Numbers, as the validator reads and a person writes them.

const NUMBER = /^[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?$/i;
const plain = (text) => text.trim().replace("\u2212", "-");
const isNumber = (text) => NUMBER.test(plain(text));
const numberOf = (text) => (isNumber(text) ? Number(plain(text).replace(",", ".")) : NaN);

function textOf(number, step) {
  const decimals = Math.min(Math.max(0, -Math.floor(Math.log10(step))), 20);
  const text = number.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace(".", form.dataset.mark);
}

// Fields. Whatever changes them ends in `changed`, once.

function put(input, text) {
  input.value = text;
  follow(input);
}

function follow(input) {
  const number = numberOf(input.value);
  if (!Number.isNaN(number)) sliderOf(input).value = number;
}

function changed() {
  form.dispatchEvent(new Event("input"));
}

// What is done in one stroke is undone by the browser's Back.
function step() {
  settleNow();
  history.pushState(null, "", location.href);
}

function fill(parameters) {
  for (const input of inputs) put(input, parameters.get(input.name) ?? input.dataset.start);
  for (const select of selects) select.value = parameters.get(select.name) ?? select.dataset.start;
}

form.addEventListener(
  "input",
  ({ target }) => {
    if (target.type === "range") {
      const input = document.getElementById(target.id.replace("-slider", ""));
      input.value = textOf(Number(target.value), Number(input.dataset.step));
    } else if (inputs.includes(target)) follow(target);
  },
  { capture: true }, // before htmx reads the fields
);
for (const input of inputs) {
  input.addEventListener("keydown", (event) => {
    const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const number = numberOf(input.value);
    if (!direction || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const unit = input.dataset.step * (event.shiftKey ? 10 : event.altKey ? 0.1 : 1);
    const decimals = (plain(input.value).split(/[.,]/)[1] ?? "").length;
    const from = Number.isNaN(number) ? numberOf(input.dataset.start) : number;
    put(input, textOf(from + direction * unit, Math.min(unit, 10 ** -decimals)));
    changed();
  });
  input.addEventListener("paste", (event) => {
    const values = rowIn(event.clipboardData.getData("text"));
    if (!values) return;
    event.preventDefault();
    step();
    for (const [index, field] of inputs.entries()) put(field, values[index]);
    changed();
  });
}
for (const select of selects) select.addEventListener("input", changed);

// The values of a whole row in pasted text, or nothing: a single number is pasted as ever.
function rowIn(text) {
  for (const line of text.split(/[\r\n]+/)) {
    for (const separator of ["\t", ";", /,\s+|\s+/, ","]) {
      const values = line.trim().split(separator).map((value) => value.trim());
      const isOne = separator === "," && isNumber(line);
      if (!isOne && values.length >= inputs.length && values.slice(0, inputs.length).every(isNumber)) {
        return inputs.length > 1 && values;
      }
    }
  }
  return null;
}

document.addEventListener("click", (event) => {
  const example = event.target.closest("[data-example]");
  const change = event.target.closest("[data-set]");
  const copy = event.target.closest("[data-copy]");
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (example || change) {
    event.preventDefault();
    step();
    if (change) put(inputOf(change.dataset.set), change.dataset.value);
    else {
      const sample = new URLSearchParams(example.search);
      for (const input of inputs) put(input, sample.get(input.name) ?? input.dataset.start);
    }
    changed();
  } else if (copy) navigator.clipboard.writeText(copy.parentElement.querySelector("code").textContent).then(() => say(copy.dataset.copy));
});
window.addEventListener("popstate", () => {
  fill(new URLSearchParams(location.search));
  refresh();
});

// The map: its scales come with every fragment, the handle above it stays.

function moveTo(map, across, up) {
  for (const [axis, share] of [["x", across], ["y", up]]) {
    const [low, high, unit] = ["Low", "High", "Step"].map((name) => Number(map[axis + name]));
    put(inputOf(map[axis]), textOf(low + Math.min(Math.max(share, 0), 1) * (high - low), unit));
  }
  changed();
}

function drag(event) {
  const map = prediction.querySelector(".map");
  if (!map) return;
  const box = handle.getBoundingClientRect();
  const [left, top, width, height] = map.dataset.plot.split(" ");
  const x = ((event.clientX - box.left) / box.width) * map.viewBox.baseVal.width;
  const y = ((event.clientY - box.top) / box.height) * map.viewBox.baseVal.height;
  moveTo(map.dataset, (x - left) / width, 1 - (y - top) / height);
}

handle?.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  step();
  handle.setPointerCapture(event.pointerId);
  drag(event);
});
handle?.addEventListener("pointermove", (event) => {
  if (handle.hasPointerCapture(event.pointerId)) drag(event);
});
handle?.addEventListener("keydown", (event) => {
  const [axis, direction] = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowDown: ["y", -1], ArrowUp: ["y", 1] }[event.key] ?? [];
  const map = prediction.querySelector(".map");
  if (!axis || !map) return;
  event.preventDefault();
  const unit = map.dataset[`${axis}Step`] * (event.shiftKey ? 10 : 1);
  const input = inputOf(map.dataset[axis]);
  put(input, textOf(numberOf(input.value) + direction * unit, Math.min(unit, Number(map.dataset[`${axis}Step`]))));
  changed();
});

// What is said beside the fields and aloud.

function showMessages() {
  const messages = new Map();
  for (const item of prediction.querySelectorAll("[data-feature]")) messages.set(item.dataset.feature, item.dataset);
  for (const input of inputs) {
    const message = messages.get(input.name);
    const hint = document.getElementById(`${input.id}-hint`);
    hint.textContent = message?.hint ?? "";
    hint.dataset.kind = message?.kind ?? "";
    if (message?.kind === "error") {
      input.setAttribute("aria-invalid", "true");
      input.closest("details")?.setAttribute("open", "");
    } else input.removeAttribute("aria-invalid");
  }
}

function say(text) {
  if (announcement.textContent !== text) announcement.textContent = text;
}

function addressOf(entries) {
  // The map's usual axes need not be told.
  const isUsual = selects.every((select) => select.value === select.dataset.start);
  const told = [...entries].filter(([name]) => !isUsual || !selects.some((select) => select.name === name));
  return `./?${query(told)}`;
}

// Typing has paused: the address follows at once, the spoken line as soon as the answer is there.
function settle() {
  clearTimeout(quietTimer);
  window.removeEventListener("beforeunload", settle);
  isQuiet = true;
  history.replaceState(history.state, "", addressOf(new FormData(form)));
  for (const link of document.querySelectorAll(".languages a")) {
    const entries = new FormData(form);
    entries.set("lang", link.lang);
    link.href = addressOf(entries);
  }
  if (code?.open) code.dispatchEvent(new Event("refresh"));
  speak();
}

function speak() {
  if (isQuiet && answered === typed()) say(prediction.firstElementChild.dataset.spoken);
}

function settleNow() {
  if (!isQuiet) settle();
}

// The service: late, gone, back, or with another model.

function refresh() {
  clearTimeout(retryTimer);
  retryTimer = 0;
  form.dispatchEvent(new Event("refresh"));
}

function markStale(text) {
  prediction.toggleAttribute("data-stale", true);
  connection.textContent = text;
}

function lose() {
  markStale(connection.dataset.gone);
  say(connection.dataset.spoken);
  if (retryTimer) return;
  retryTimer = setTimeout(refresh, retryMs);
  retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
}

function retryNow() {
  if (retryTimer) refresh();
}

// The same features: new answers are enough. Other ones need another form.
function meetModel(xhr) {
  document.getElementById("version").textContent = xhr.getResponseHeader("X-Model-Version");
  document.getElementById("reload").hidden = xhr.getResponseHeader("X-Model-Features") === form.dataset.features;
}

form.addEventListener("input", () => {
  isQuiet = false;
  clearTimeout(quietTimer);
  quietTimer = setTimeout(settle, QUIET_MS);
  // Whoever leaves before the pause comes back to what was typed. Later events are too late to change the address, and
  // a listener that stays would keep the page out of some browsers' back-forward cache. A reload has the old address.
  window.addEventListener("beforeunload", settle);
  if (!retryTimer) say(""); // the same words again are spoken only when they are new
});
form.addEventListener("change", settleNow);
form.addEventListener("submit", settle);

form.addEventListener("htmx:beforeSend", () => {
  lateTimer = setTimeout(markStale, LATE_MS, connection.dataset.late);
});
form.addEventListener("htmx:afterRequest", () => clearTimeout(lateTimer));
for (const failure of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) form.addEventListener(failure, lose);

prediction.addEventListener("htmx:beforeSwap", (event) => {
  // A proxy's login or error page comes with status 200 too.
  const isOurs = event.detail.serverResponse.includes("data-state=");
  event.detail.shouldSwap &&= isOurs;
  event.detail.isError ||= !isOurs;
});
prediction.addEventListener("htmx:afterSwap", (event) => {
  answered = query(event.detail.requestConfig.formData);
  clearTimeout(retryTimer);
  retryTimer = 0;
  retryMs = FIRST_RETRY_MS;
  prediction.toggleAttribute("data-stale", false);
  connection.textContent = "";
  meetModel(event.detail.xhr);
  showMessages();
  speak();
});

setInterval(() => {
  if (!document.hidden && isQuiet && !retryTimer) refresh();
}, ASK_MS);
window.addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => (document.hidden ? settleNow() : refresh()));
// Going back, a reload or autofill may bring inputs that the prediction on the screen does not belong to, or a page
// whose request was cut off.
window.addEventListener("pageshow", (event) => {
  for (const input of inputs) follow(input);
  if (event.persisted || answered !== typed()) refresh();
});
for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
