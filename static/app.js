// What htmx does not do: errors beside their inputs, one spoken line, the address, and coming back when the service was
// gone; sliders, steps, pasted rows and the map, which all end in the text fields. The prediction itself is htmx's: see
// the form's hx-* attributes.

import { Refusal, isNumber, keyOf, numberOf, plain, rowIn } from "./text.js";

const QUIET_MS = 700; // after the last key, before anything is spoken or the address changes
const LATE_MS = 1000; // an answer that takes longer leaves an old one on the screen: say so
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;
const ASK_MS = 20_000; // an idle page asks this often whether the model is still the same
const SLOP_PX = 8; // a finger that rests moves no farther

const form = document.getElementById("measurements");
// In the order of the features, which is that of rows; on the screen, the most important come first.
const inputs = [...form.querySelectorAll(".entry input")].sort((a, b) => a.id.slice(1) - b.id.slice(1));
const selects = [...document.querySelectorAll(".axes select")];
const handle = document.getElementById("map-handle");
const prediction = document.getElementById("prediction");
const connection = document.getElementById("connection");
const announcement = document.getElementById("announcement");
const code = document.getElementById("code");
const refusal = document.getElementById("refusal"); // of what was pasted

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
  if (Number.isNaN(number)) return;
  const slider = sliderOf(input);
  slider.value = number;
  slider.setAttribute("aria-valuetext", `${input.value} ${input.nextElementSibling?.textContent ?? ""}`.trim());
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
  (event) => {
    const { target } = event;
    if (target.type === "range" && gesture?.isOpen) {
      // Browsers set a slider as soon as it is touched.
      event.stopImmediatePropagation();
      target.value = gesture.slid[inputs.findIndex((input) => sliderOf(input) === target)];
    } else if (target.type === "range") {
      const input = document.getElementById(target.id.replace("-slider", ""));
      input.value = textOf(Number(target.value), Number(input.dataset.step));
      target.setAttribute("aria-valuetext", input.value);
    } else if (inputs.includes(target)) follow(target);
  },
  { capture: true }, // before htmx reads the fields
);
const UP_OR_DOWN = { ArrowUp: 1, ArrowDown: -1 };
for (const input of inputs) {
  const stepOnKey = (directions) => (event) => {
    const direction = directions[event.key];
    const number = numberOf(input.value);
    if (!direction || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const unit = input.dataset.step * (event.shiftKey ? 10 : event.altKey ? 0.1 : 1);
    const decimals = (plain(input.value).split(/[.,]/)[1] ?? "").length;
    const from = Number.isNaN(number) ? numberOf(input.dataset.start) : number;
    put(input, textOf(from + direction * unit, Math.min(unit, 10 ** -decimals)));
    changed();
  };
  input.addEventListener("keydown", stepOnKey(UP_OR_DOWN));
  sliderOf(input).addEventListener("keydown", stepOnKey({ ...UP_OR_DOWN, ArrowRight: 1, ArrowLeft: -1 }));
  input.addEventListener("paste", paste);
}
for (const select of selects) {
  select.addEventListener("input", () => {
    // A feature cannot be on both axes: the other one takes what was here.
    const other = selects.find((one) => one !== select);
    const map = prediction.querySelector(".map")?.dataset;
    if (map && other.value === select.value) other.value = select.name === "map-x" ? map.x : map.y;
    changed();
  });
}

// A pasted row fills all fields, or none: what may be read in two ways is refused.
function paste(event) {
  const features = inputs.map((input) => {
    const { min, max } = sliderOf(input);
    return { key: input.name, title: input.labels[0].textContent, low: Number(min), high: Number(max) };
  });
  const labels = Array.from(document.querySelectorAll(".reserve dt"), ({ textContent }) => textContent);
  hideRefusal();
  try {
    const values = rowIn(event.clipboardData.getData("text"), features, labels);
    if (!values) return;
    step();
    for (const [index, input] of inputs.entries()) put(input, values[index]);
    changed();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showRefusal(event.target, error);
  }
  event.preventDefault();
}

function showRefusal(input, { message, values }) {
  const text = refusal.dataset[message].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  input.closest(".field").append(refusal);
  refusal.textContent = text;
  refusal.hidden = false;
  say(text);
}

function hideRefusal() {
  refusal.hidden = true;
}
for (const name of ["input", "focusout"]) form.addEventListener(name, hideRefusal);

document.addEventListener("click", (event) => {
  const example = event.target.closest("[data-example]");
  const change = event.target.closest("[data-set]");
  const copy = event.target.closest("[data-copy]");
  if (event.target.closest(".languages")) settleNow(); // its links are to have what was just typed
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
  if (!beginGesture(event) || gesture.isOpen) return;
  handle.setPointerCapture(event.pointerId);
  drag(event);
});
handle?.addEventListener("pointermove", (event) => {
  if (isDragged(event)) drag(event);
});
handle?.addEventListener("click", (event) => {
  if (!isTouched || !event.detail) return; // a key on the button, or a mouse that has already done it
  step();
  drag(event);
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

// Gestures on the map and on sliders: one step each. What a finger wants is open until it has moved: upwards it scrolls
// the page, which must change nothing; sideways it drags. A tap on the map is known by its click, which one that ends a scroll does not have; on a slider it
// would be found by chance while scrolling, so it does nothing.

let gesture = null;
let isTouched = false;

function beginGesture(event) {
  if (event.button || !event.isPrimary) return false;
  isTouched = event.pointerType === "touch";
  endGesture();
  settleNow();
  const texts = inputs.map((input) => input.value);
  const slid = inputs.map((input) => sliderOf(input).value);
  const { pointerId, clientX: x, clientY: y } = event;
  gesture = { pointerId, x, y, texts, slid, isOpen: isTouched };
  return true;
}

function isDragged({ pointerId, clientX, clientY }) {
  if (!gesture || gesture.pointerId !== pointerId) return false;
  const [across, up] = [Math.abs(clientX - gesture.x), Math.abs(clientY - gesture.y)];
  if (across > SLOP_PX && across >= up) gesture.isOpen = false;
  return !gesture.isOpen;
}

function endGesture() {
  if (!gesture) return;
  const { texts } = gesture;
  gesture = null;
  // The address is still that of before.
  if (inputs.some((input, index) => input.value !== texts[index])) history.pushState(null, "", location.href);
  settleNow();
}

// The browser has taken the gesture for something else.
function cancelGesture() {
  const { texts, slid } = gesture;
  const isChanged = inputs.some((input, index) => input.value !== texts[index]);
  for (const [index, input] of inputs.entries()) {
    put(input, texts[index]);
    sliderOf(input).value = slid[index];
  }
  gesture = null;
  if (isChanged) changed();
}

form.addEventListener("pointerdown", (event) => event.target.type === "range" && beginGesture(event));
form.addEventListener("pointermove", isDragged);
for (const [name, end] of [["pointerup", endGesture], ["pointercancel", cancelGesture]]) {
  window.addEventListener(name, ({ pointerId }) => gesture && gesture.pointerId === pointerId && end());
}

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
  if (gesture) return; // its end is one step
  window.removeEventListener("beforeunload", leave);
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

// A reload asks for the address that was there before: what was typed since is kept for it.
const storage = (() => {
  try {
    return sessionStorage;
  } catch {
    return null; // the browser allows this page none
  }
})();

function leave() {
  const { href } = location;
  settle();
  storage?.setItem("typed", JSON.stringify([href, location.search]));
}

function resume() {
  const [href, search] = JSON.parse(storage?.getItem("typed") ?? "[]");
  storage?.removeItem("typed");
  if (href !== location.href || performance.getEntriesByType("navigation")[0].type !== "reload") return;
  fill(new URLSearchParams(search));
  settle();
}
resume();

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

function lose({ detail }) {
  markStale(connection.dataset.gone);
  say(connection.dataset.spoken);
  if (retryTimer) return;
  const askedMs = 1000 * detail.xhr?.getResponseHeader("Retry-After") || 0; // a longer timeout than 2 ** 31 - 1 is none
  retryTimer = setTimeout(refresh, Math.min(Math.max(retryMs, askedMs), 2 ** 31 - 1));
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
  // a listener that stays would keep the page out of some browsers' back-forward cache.
  window.addEventListener("beforeunload", leave);
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
  // The same answer to the same sample: what is selected or focused in it stays.
  if (event.detail.shouldSwap && answered === query(event.detail.requestConfig.formData) && isShown(event.detail.serverResponse)) {
    event.detail.shouldSwap = false;
    receive(event);
  }
});
prediction.addEventListener("htmx:afterSwap", receive);

function isShown(fragment) {
  const { firstElementChild } = new DOMParser().parseFromString(fragment, "text/html").body;
  return firstElementChild.isEqualNode(prediction.firstElementChild);
}

function receive(event) {
  answered = query(event.detail.requestConfig.formData);
  clearTimeout(retryTimer);
  retryTimer = 0;
  retryMs = FIRST_RETRY_MS;
  prediction.toggleAttribute("data-stale", false);
  connection.textContent = "";
  meetModel(event.detail.xhr);
  showMessages();
  speak();
}

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
// Browsers give the clipboard to pages that came over TLS, or from this very machine.
for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;

// A file, streamed over /stream.
//
// Batches of rows are sent while the file is read, a few at a time. Each stays in a queue until all of its rows have an
// answer or a reason why not; when the connection drops, what has neither is sent again. The service judges every value.
// The table is the one that POST /score gives: for columns, quotes and marks see ml/score.py.

const SLICE_BYTES = 65_536;
const BATCH_VALUES = 2048;
const MOST_BATCHES = 8; // unanswered
const MOST_BUFFERED_BYTES = 2 ** 20;
const MOST_ROW_CHARACTERS = 2 ** 18;
const MOST_CELL_CHARACTERS = 2 ** 17;
const MOST_ERRORS = 100; // in one reply
const MOST_LISTED = 100;
const MOST_COUNTED = 20;
const MOST_POINTS = 1000;
const BLOB_CHARACTERS = 2 ** 20;
const REASONS = { missing: "absent", not_a_number: "notANumber", not_finite: "notFinite", out_of_bounds: "outOfBounds" };

const fileForm = document.getElementById("file");
const fileInput = document.getElementById("file-input");
const landed = document.getElementById("landed");
const part = (name) => document.getElementById(`file-${name}`);
const language = document.documentElement.lang;
const shown = (number) => number.toLocaleString(language, { maximumFractionDigits: 0 });
const words = (name, values = {}) => fileForm.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
const titleOf = (feature) => feature.titles?.[language] ?? feature.title;

class FileProblem extends Error {}

function refuse(name, values) {
  throw new FileProblem(words(name, values));
}

// Text. A byte that is not UTF-8 passes through as half a surrogate pair: a cell that nobody needs is no reason to stop.

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const WIDE = /[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|[\x80-\xff]/g;
const bytesOf = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0)); // of half a pair, the lower byte
const blobOf = (text) => new Blob(text.split(/([\udc80-\udcff]+)/u).map((run, odd) => (odd % 2 ? bytesOf(run) : run)));

function decode(bytes, otherwise) {
  try {
    return utf8.decode(bytes);
  } catch {
    return otherwise(Array.from(bytes, (byte) => String.fromCharCode(byte)));
  }
}

const halves = (characters) => characters.map((byte) => String.fromCharCode(0xdc00 + byte.charCodeAt(0))).join("");
const pieces = (characters) => characters.join("").replace(WIDE, (run) => decode(bytesOf(run), halves));

async function* textsOf(file) {
  for (let start = 0; start < file.size; ) {
    const bytes = new Uint8Array(await file.slice(start, start + SLICE_BYTES).arrayBuffer());
    let { length } = bytes;
    if (!length) throw new Error("shorter than it was");
    // The last character may be cut in two: it comes with the next slice.
    if (start + length < file.size) length -= [1, 2, 3].find((back) => bytes[length - back] >= 0xc0) ?? 0;
    const text = decode(bytes.subarray(0, length), pieces);
    yield { text: start ? text : text.replace("\ufeff", ""), end: (start += length) };
  }
}

// CSV. A quote opens a cell only at its start, and is doubled inside.

class Rows {
  line = 1;
  #text = "";
  #start = 0;

  add(text) {
    this.#text = this.#text.slice(this.#start) + text;
    this.#start = 0;
  }

  split(separators) {
    this.separators = separators;
    this.cell = new RegExp(`"((?:[^"]|"")*)"(?!")([^${separators}\\r\\n]*)|(?!")[^${separators}\\r\\n]*`, "y");
  }

  // The header, or nothing while it is not complete. What separates its cells is known when all of it is there.
  header(isLast) {
    this.split(",;\t");
    const first = this.next(isLast);
    if (!first && !isLast) return null;
    if (first?.line !== 1 || !first.text.trim()) refuse("blank");
    if (/^(\udcff\udcfe|\udcfe\udcff)/.test(first.text)) refuse("utf16");
    if (first.text.includes("\0")) refuse("binary");
    const bare = first.text.replace(/(^|[,;\t])"(?:[^"]|"")*"/g, "$1");
    const times = (separator) => bare.split(separator).length;
    this.split([";", "\t"].reduce((best, other) => (times(other) > times(best) ? other : best), ","));
    [this.#start, this.line] = [0, 1];
    return this.next(isLast);
  }

  // The next row that is not blank, or nothing while it is not complete.
  next(isLast) {
    const text = this.#text;
    while (this.#start < text.length) {
      const { line } = this;
      const cells = [];
      let end = this.#start - 1;
      do {
        this.cell.lastIndex = end + 1;
        const found = this.cell.exec(text);
        end = this.cell.lastIndex;
        if (!found && isLast) refuse("open", { line });
        if (!found || (!isLast && (end === text.length || (text[end] === "\r" && end + 1 === text.length)))) {
          if (text.length - this.#start > MOST_ROW_CHARACTERS) refuse("long", { line });
          return null;
        }
        cells.push(found[1] === undefined ? found[0] : found[1].replaceAll('""', '"') + found[2]);
        if (cells.at(-1).length > MOST_CELL_CHARACTERS) refuse("long", { line });
      } while (end < text.length && this.separators.includes(text[end]));
      const row = text.slice(this.#start, end);
      this.#start = end + (text.startsWith("\r\n", end) ? 2 : 1);
      this.line += row.includes('"') ? row.split(/\r\n|\r|\n/).length : 1;
      if (row) return { cells, line, text: row };
    }
    return null;
  }
}

// How the rows of one file are read, and written with their answers.
class Table {
  constructor(header, separator, { features, labels }) {
    this.separator = separator;
    this.width = header.length;
    const keys = header.map(keyOf);
    const named = (test) => {
      const found = features.filter((feature) => test(keys.filter((key) => key === keyOf(feature.key)).length));
      return found.map(titleOf).join(", ");
    };
    const [missing, twice] = [named((times) => times === 0), named((times) => times > 1)];
    if (missing) refuse("missing", { wanted: missing, found: header.join(", ").slice(0, 500) });
    if (twice) refuse("twice", { wanted: twice });
    this.positions = features.map((feature) => keys.indexOf(keyOf(feature.key)));
    const names = [...header];
    for (const wanted of ["predicted_label", ...labels.map((label) => `probability_${label}`), "prediction_error"]) {
      let name = wanted;
      for (let number = 2; names.includes(name); number++) name = `${wanted}_${number}`;
      names.push(name);
    }
    this.names = names;
    this.blanks = Array(labels.length + 1).fill("");
  }

  write(cells) {
    const quoted = (cell) => (cell.includes(this.separator) || /["\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
    return `${cells.map((cell) => quoted(guard(cell))).join(this.separator)}\n`;
  }

  writeRow({ cells, answer, problem }) {
    if (answer) return this.write([...cells, ...answer, ""]);
    const own = [...cells.slice(0, this.width), ...Array(Math.max(0, this.width - cells.length)).fill("")];
    return this.write([...own, ...this.blanks, problem, ...cells.slice(this.width)]);
  }
}

const RISKY = /[=+\-@＝＋－＠\t\r\n]/;
const FORMULA = /^[\s\0\x1c-\x1f\x85\u200b]*[=+\-@＝＋－＠]/;
const isHarmless = (text) => text.length < 2 || (isNumber(text) && text.trim().length <= 64);

function guard(cell) {
  if (!RISKY.test(cell) || isHarmless(cell)) return cell;
  const mark = (text) => (FORMULA.test(text) && !isHarmless(text) ? `'${text}` : text);
  const safe = cell.split(/([,;\t\r\n]+)/).map(mark).join("");
  return /^[\t\r\n]/.test(safe) ? `'${safe}` : safe;
}

// A probability with the digits that Python writes.
function digitsOf(share) {
  if (Number.isInteger(share)) return `${share}.0`;
  return share < 1e-4 ? share.toExponential().replace(/-(\d)$/, "-0$1") : String(share);
}

// One file on its way through the service.
class Run {
  state = "begin";
  problem = "";
  result = null;
  rows = 0;
  bad = 0;
  wrong = []; // the first rows that are bad
  share = 0; // of the file
  counts = [];
  points = []; // every so many rows with an answer
  #stride = 1;
  versions = new Set();
  #queue = [];
  #sent = 0;
  #parts = [];
  #text = "";
  #retryMs = FIRST_RETRY_MS;
  #wake = () => {};

  constructor(file) {
    this.file = file;
    this.began = performance.now();
  }

  get isOver() {
    return this.ended !== undefined;
  }

  async go() {
    try {
      if (!this.file.size) refuse("empty");
      this.#connect();
      await this.#until(() => this.model);
      await this.#read();
      await this.#until(() => !this.#queue.length);
      this.share = 1;
      this.#end("done");
    } catch (error) {
      if (!(error instanceof FileProblem)) fileInput.value = ""; // else the same file could not be chosen again
      this.#fail(error instanceof FileProblem ? error.message : words("unreadable"));
    }
  }

  cancel() {
    if (!this.isOver) this.#end("canceled");
  }

  #fail(problem) {
    if (this.isOver) return;
    this.problem = problem;
    // As POST /score does: nobody takes this table for a whole one.
    if (this.table) this.#text += this.table.writeRow({ cells: [], problem });
    this.#end("failed");
  }

  #end(state) {
    this.state = state;
    this.ended = performance.now();
    this.#socket?.close();
    this.#queue = [];
    if (this.table) this.result = new Blob([...this.#parts, blobOf(this.#text)], { type: "text/csv" });
    this.#wake();
    if (this === current) tell("spoken");
  }

  async #until(isTrue) {
    while (!isTrue() && !this.isOver) await new Promise((resolve) => (this.#wake = resolve));
    if (this.isOver) throw new FileProblem();
  }

  async #read() {
    const batch = { rows: [], odd: 0 };
    try {
      await this.#readInto(batch);
      await this.#push(batch, this.file.size);
    } catch (error) {
      // What came before the end of all sense is predicted.
      if (this.table) await this.#push(batch, this.file.size);
      await this.#until(() => !this.#queue.length);
      throw error;
    }
  }

  async #readInto(batch) {
    const rows = new Rows();
    for await (const { text, end } of textsOf(this.file)) {
      const isLast = end === this.file.size;
      rows.add(text);
      if (!this.table) {
        const header = rows.header(isLast);
        if (!header) continue;
        this.table = new Table(header.cells, rows.separators, this.model);
        this.#text = this.table.write(this.table.names);
      }
      for (let row; (row = rows.next(isLast)); ) {
        batch.rows.push(row);
        batch.odd += this.#prepare(row);
        // Of more odd rows than that, one reply could not name all errors.
        if (batch.rows.length < this.#batchRows && batch.odd * this.model.features.length < MOST_ERRORS) continue;
        await this.#push(batch, end);
      }
    }
  }

  // Plain numbers travel as such; anything else goes as it is written, for the service to say what is wrong with it.
  #prepare(row) {
    const { cells } = row;
    const { positions, width } = this.table;
    if (cells.length !== width) {
      row.problem = `${cells.length} columns, the header has ${width}`;
      row.reason = words("columns", { found: cells.length, wanted: width });
      return 0;
    }
    let odd = 0;
    row.values = this.model.features.map(({ minimum, maximum }, index) => {
      const cell = cells[positions[index]];
      const number = cell.length <= 64 && /^[ -~\u2212]*$/.test(cell) ? numberOf(cell) : NaN;
      if (number >= (minimum ?? -3e38) && number <= (maximum ?? 3e38)) return number;
      odd = 1;
      return cell.slice(0, this.#cellCharacters).replace(/[\ud800-\udfff]/gu, "\ufffd");
    });
    return odd;
  }

  async #push(full, end) {
    const batch = { id: ++this.#sent, rows: full.rows, end };
    Object.assign(full, { rows: [], odd: 0 });
    this.#queue.push(batch);
    if (this.#isOpen) this.#send(batch);
    await this.#until(() => this.#queue.length < MOST_BATCHES && this.#socket.bufferedAmount < MOST_BUFFERED_BYTES);
  }

  // The stream

  #socket = null;
  #isOpen = false; // the model has been told, and is the one we know

  #connect = () => {
    if (this.isOver) return;
    const address = new URL("stream", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (!this.isOver) this.#hear(JSON.parse(data));
    };
    socket.onclose = () => {
      this.#isOpen = false;
      if (this.isOver) return;
      this.state = "lost";
      showLater();
      setTimeout(this.#connect, this.#retryMs);
      this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
    };
  };

  #hear(frame) {
    if (frame.type === "model") this.#meet(frame);
    else {
      const batch = this.#queue.find(({ id }) => id === frame.id);
      if (!batch) this.#fail(words("refused", { reason: frame.error?.detail }));
      else if (frame.type === "predictions") this.#take(batch, frame);
      else this.#mend(batch, frame.error);
    }
    this.#wake();
    showLater();
  }

  #meet({ model, limits }) {
    const facesOf = ({ features, labels }) => JSON.stringify([features.map(({ key }) => key), labels]);
    this.model ??= model;
    if (facesOf(model) !== facesOf(this.model)) {
      this.#fail(words("replaced"));
      return;
    }
    const { length } = model.features;
    const most = Math.min(limits.max_samples, BATCH_VALUES / length, limits.max_frame_bytes / (32 * length));
    this.#batchRows = Math.max(1, Math.floor(most));
    this.#cellCharacters = Math.max(80, Math.floor(limits.max_frame_bytes / 12 / (MOST_ERRORS + length)));
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.state = "begin";
    for (const batch of [...this.#queue]) this.#send(batch);
  }
  #batchRows = 1;
  #cellCharacters = 0;

  #send(batch) {
    batch.asked = batch.rows.filter((row) => !row.answer && !row.problem);
    if (batch.asked.length) {
      this.#socket.send(JSON.stringify({ id: batch.id, samples: batch.asked.map(({ values }) => values) }));
    } else this.#finish();
  }

  #take({ asked }, { labels, probabilities, version }) {
    this.#retryMs = FIRST_RETRY_MS;
    this.state = "begin";
    this.versions.add(version);
    const columns = this.model.labels.map((label) => probabilities[label]);
    for (const [index, row] of asked.entries()) row.answer = [labels[index], ...columns.map((column) => digitsOf(column[index]))];
    this.#finish();
  }

  // A refusal names bad rows: the others are asked for again. Without names it is about all of them.
  #mend(batch, { status, detail, errors = [] }) {
    if (status === 429 || status === 503) {
      this.state = "busy";
      const socket = this.#socket;
      setTimeout(() => this.#isOpen && socket === this.#socket && this.#send(batch), LATE_MS);
      return;
    }
    const named = Map.groupBy(errors.filter((error) => error.sample in batch.asked), (error) => error.sample);
    // The last row may have more errors than there was space for.
    if (errors.length >= MOST_ERRORS && named.size > 1) named.delete(errors.at(-1).sample);
    if (!named.size) this.#fail(words("refused", { reason: detail }));
    for (const [index, found] of named) {
      const row = batch.asked[index];
      row.problem = found.slice(0, 3).map(({ message }) => message).join("; ");
      row.reason = found.slice(0, 3).map((error) => this.#reasonOf(error)).join("; ");
    }
    if (!this.isOver) this.#send(batch);
  }

  #reasonOf({ code, feature, value, message }) {
    const title = titleOf(this.model.features.find(({ key }) => key === feature) ?? { title: feature });
    return code in REASONS ? words(REASONS[code], { title, value }) : message;
  }

  // Batches leave the queue in the order of the file.
  #finish() {
    while (this.#queue.length && this.#queue[0].rows.every(({ answer, problem }) => answer || problem)) {
      const { rows, end } = this.#queue.shift();
      this.share = end / this.file.size;
      for (const row of rows) this.#write(row);
    }
  }

  #write(row) {
    this.#text += this.table.writeRow(row);
    if (this.#text.length > BLOB_CHARACTERS) {
      this.#parts.push(blobOf(this.#text));
      this.#text = "";
    }
    this.rows++;
    if (row.answer) {
      const label = this.model.labels.indexOf(row.answer[0]);
      this.counts[label] = (this.counts[label] ?? 0) + 1;
      if (this.rows % this.#stride === 0) this.points.push({ label, values: row.values });
      if (this.points.length <= MOST_POINTS) return;
      this.points = this.points.filter((_, index) => index % 2);
      this.#stride *= 2;
    } else if (++this.bad <= MOST_LISTED) this.wrong.push(words("line", { line: shown(row.line), reason: row.reason }));
  }
}

// What is seen of it, once a frame at most.

let current = null;
let isShowing = false;
let landing = ""; // what is drawn on the map

function showLater() {
  if (!isShowing) requestAnimationFrame(show);
  isShowing = true;
}

function statusOf(run) {
  const versions = run.versions.size > 1 ? words("versions", { versions: [...run.versions].join(", ") }) : "";
  return `${run.problem || words(run.state, { name: run.file.name })} ${versions}`.trim();
}

function tell(name) {
  say(words(name, { name: current.file.name, status: statusOf(current), rows: shown(current.rows), bad: shown(current.bad) }));
  showLater();
}


function show() {
  isShowing = false;
  const run = current;
  if (!run) return;
  const seconds = ((run.ended ?? performance.now()) - run.began) / 1000;
  part("status").textContent = statusOf(run);
  part("progress").value = run.share;
  part("rows").textContent = shown(run.rows);
  part("rate").textContent = shown(run.rows / Math.max(seconds, 0.01));
  part("bad").textContent = shown(run.bad);
  showWrong(run);
  if (run.model) showCounts(run);
  if (landed) land(run, prediction.querySelector(".map")?.dataset);
  if (run.isOver) showEnd(run);
}

function showWrong({ wrong, bad }) {
  const list = part("list");
  const lines = bad > wrong.length ? [...wrong, words("more", { number: shown(bad - wrong.length) })] : wrong;
  while (list.children.length < lines.length) list.append(document.createElement("li"));
  for (const [index, line] of lines.entries()) list.children[index].textContent = line;
}

function showCounts({ model: { labels }, counts, rows, bad }) {
  const order = [...labels.keys()];
  if (order.length > MOST_COUNTED) order.sort((a, b) => (counts[b] ?? 0) - (counts[a] ?? 0));
  const marks = fileForm.dataset.marks.split("|");
  const lines = order.slice(0, MOST_COUNTED).map((label) => [labels[label], counts[label] ?? 0, marks[label % marks.length]]);
  const left = lines.reduce((sum, [, count]) => sum - count, rows - bad);
  if (order.length > MOST_COUNTED) lines.push([words("others"), left, ""]);
  const body = part("counts");
  while (body.rows.length < lines.length) body.append(part("count").content.cloneNode(true));
  for (const [index, [label, count, mark]] of lines.entries()) {
    body.rows[index].querySelector("path").setAttribute("d", mark);
    body.rows[index].querySelector("span").textContent = label;
    body.rows[index].querySelector("td").textContent = shown(count);
  }
}

function showEnd(run) {
  const download = part("download");
  const hadFocus = document.activeElement === part("cancel");
  if (run.result && !run.address) {
    run.address = URL.createObjectURL(run.result);
    download.href = run.address;
    download.download = `${run.file.name.replace(/\.(csv|tsv|tab|txt)$/i, "")}-predictions.csv`;
  }
  download.hidden = !run.result;
  part("clear").hidden = false;
  part("cancel").hidden = true;
  if (hadFocus) (run.result ? download : fileInput).focus();
}

// Points land on the map that is there, and are drawn anew when its scales change.
function land({ model, points }, map) {
  const seen = [map && [map.x, map.xLow, map.xHigh, map.y, map.yLow, map.yHigh], points.length, points[0]?.values].join();
  if (seen === landing) return;
  landing = seen;
  const context = landed.getContext("2d");
  context.reset();
  if (!map || !model) return;
  const [left, top, width, height] = map.plot.split(" ").map(Number);
  const columnOf = (key) => model.features.findIndex((feature) => feature.key === key);
  const share = (value, low, high) => Math.min(Math.max((value - low) / (high - low), 0), 1);
  const [x, y] = [columnOf(map.x), columnOf(map.y)];
  const marks = fileForm.dataset.marks.split("|").map((path) => new Path2D(path));
  const scale = landed.width / 400;
  context.fillStyle = context.strokeStyle = getComputedStyle(landed).color;
  context.globalAlpha = 0.6;
  for (const { label, values } of points) {
    const across = left + width * share(values[x], map.xLow, map.xHigh);
    const down = top + height * (1 - share(values[y], map.yLow, map.yHigh));
    context.setTransform(scale, 0, 0, scale, scale * across, scale * down);
    context.fill(marks[label % marks.length]);
    context.stroke(marks[label % marks.length]);
  }
}

function forget() {
  const former = current;
  current = null;
  former?.cancel();
  if (former?.address) URL.revokeObjectURL(former.address);
  part("list").replaceChildren();
  part("counts").replaceChildren();
  landed?.getContext("2d").reset();
  landing = "";
}

function begin(file) {
  forget();
  current = new Run(file);
  part("result").hidden = part("cancel").hidden = false;
  part("clear").hidden = part("download").hidden = true;
  tell("begin");
  show();
  current.go();
}

fileForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const [file] = fileInput.files;
  if (file && (current?.file !== file || current.isOver)) begin(file);
});
fileInput.addEventListener("change", () => fileForm.requestSubmit());
fileForm.addEventListener("reset", () => {
  forget();
  part("result").hidden = true;
  fileInput.focus();
});
part("cancel").addEventListener("click", () => current.cancel());
part("drop").hidden = false;

// A file that misses the section must not replace the page.
const dropZone = fileForm.closest("section");
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    const isOver = dropZone.contains(event.target);
    dropZone.toggleAttribute("data-over", isOver && name === "dragover");
    if (name === "dragleave") return;
    event.preventDefault();
    event.dataTransfer.dropEffect = isOver ? "copy" : "none";
    if (name !== "drop" || !isOver || !event.dataTransfer.files.length) return;
    fileInput.files = event.dataTransfer.files;
    fileForm.requestSubmit();
  });
}

if (landed) {
  prediction.addEventListener("htmx:afterSwap", showLater);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    landing = "";
    showLater();
  });
}
