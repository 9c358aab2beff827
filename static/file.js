// A file on its way through the service: its bytes go over the websocket /score, and the table with predictions comes
// back as bytes, to be kept. Nothing here knows how a table is written.
//
// Each slice is answered by bytes and then by a frame that says they are whole, with what is to be shown of them. When
// the connection is lost, what was not followed by such a frame is forgotten, and the file goes on behind the last one.

import { fieldsOf } from "./fields.js";

const SLICE_BYTES = 65_536;
const MOST_UNANSWERED = 4; // slices
const PART_BYTES = 2 ** 20;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;
const MOST_COUNTED = 20;
// Rows in the table, and kept without an answer and of each label; fewer of each of many. As in web/scoring/websocket.py.
const MOST_LISTED = 50;
const MOST_KEPT = 1000;
const REACH_PX = { mouse: 7, touch: 16 }; // of a mark on the map
// As in web/page/axes.py.
const SPREAD = 0.7;
const [ACROSS_STEP, UP_STEP] = [0.7548776662, 0.569840291];
const WRONG = "M-3-3L3 3M-3 3L3-3"; // marks a row without an answer
const REASONS = { missing: "absent", not_a_number: "notANumber", not_finite: "notFinite", out_of_bounds: "outOfBounds" };

const form = document.getElementById("file");
const measurements = document.getElementById("measurements");
const handle = document.getElementById("map-handle");
const input = document.getElementById("file-input");
const prediction = document.getElementById("prediction");
const announcement = document.getElementById("announcement");
const canvas = document.getElementById("file-points");
const part = (name) => document.getElementById(`file-${name}`);
const language = document.documentElement.lang;
const shown = (number) => number.toLocaleString(language, { maximumFractionDigits: 0 });
const words = (name, values = {}) => form.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
const titleOf = (feature) => feature.titles?.[language] ?? feature.title;

// Rows are as the service lists them; one that was corrected has its new cells and answer.
const sureness = ({ probability, outside }) => probability ?? -outside;
const byLeastSure = (a, b) => sureness(a) - sureness(b);

// What the service says of a value, in the language of the page.
function translated(code, { title, value, text }) {
  if (!(code in REASONS) || (value === null && code !== "missing")) return text;
  const [, one, other] = text.match(/can be read as (\S+) or as (\S+)$/) ?? [];
  if (one) return words("open", { title, value, one, other });
  if (/has another decimal mark than the rest of the row$/.test(text)) return words("mixed", { title, value });
  const [, thousands, decimal] = text.match(/here '(.)' divides thousands and '(.)' is the decimal mark$/) ?? [];
  return words(REASONS[code], { title, value }) + (thousands ? `; ${words("divided", { thousands, decimal })}` : "");
}

class Run {
  state = "begin";
  reason = ""; // why the service refused it
  result = null;
  rows = 0;
  bad = 0;
  noted = 0; // with an answer that is a guess
  wrong = []; // the first rows without an answer
  listed = new Map(); // the least sure rows of each label, or of a quantity
  changes = 0; // of all these rows
  counts = new Map(); // of each label
  values = null; // of a quantity: the least, the greatest and the sum
  versions = new Set();
  #options;
  #read = 0; // bytes of the file
  #hasAnswers = false;
  #resume = "";
  #parts = [];
  #kept = []; // smaller ones, for the next part
  #incoming = []; // blobs of rows that may not be whole
  #sliceBytes = 0; // until the model is announced
  #unanswered = 0;
  #retryMs = FIRST_RETRY_MS;
  #socket = null;
  #onAnswer = () => {};

  constructor(file) {
    this.file = file;
    // How it is read: what the form has besides the file.
    this.#options = [...new FormData(form)].filter(([, value]) => value && typeof value === "string");
    this.began = performance.now();
    this.#connect();
  }

  get isOver() {
    return this.ended !== undefined;
  }

  // How much of the file is read; nothing while it is read only once all of it is there, as an Excel file is.
  get share() {
    if (this.state === "done") return 1;
    return this.#hasAnswers && !this.#read && this.state === "begin" ? null : this.#read / this.file.size || 0;
  }

  end(state, reason = "") {
    if (this.isOver) return;
    this.state = state;
    this.reason = reason;
    this.ended = performance.now();
    this.#socket.close();
    if (this.#read || this.rows) this.result = new Blob([...this.#parts, ...this.#kept], { type: "text/csv" });
    this.#parts = this.#kept = this.#incoming = [];
    if (this === current) tell("spoken");
  }

  #connect() {
    if (this.isOver) return;
    const address = new URL("score", document.baseURI);
    for (const [name, value] of this.#options) address.searchParams.set(name, value);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (this.isOver) return;
      if (typeof data === "string") this.#hear(JSON.parse(data));
      else this.#incoming.push(data); // a blob: no part of the page's memory
    };
    socket.onclose = () => {
      if (this.isOver) return;
      if (this.state !== "busy") this.state = "lost";
      this.#incoming = [];
      this.#sliceBytes = 0;
      showLater();
      setTimeout(() => this.#connect(), this.#retryMs);
      this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
    };
  }

  // It is announced before anything else, and again when it was replaced.
  #onModel({ model, limits }) {
    const keys = new Set(Array.from(document.querySelectorAll("#measurements .field"), ({ dataset }) => dataset.key));
    const isOurs = keys.size === model.features.length && model.features.every(({ key }) => keys.has(key));
    if (!this.model && !isOurs) {
      document.getElementById("reload").hidden = false;
      this.end("replaced");
      return;
    }
    const isFirst = !this.#sliceBytes;
    this.model ??= model;
    this.#sliceBytes = Math.min(SLICE_BYTES, limits.max_frame_bytes);
    if (isFirst) this.#send(this.#socket);
  }

  async #send(socket) {
    this.#unanswered = 0;
    if (this.#resume) socket.send(this.#resume);
    for (let at = this.#read; ; at += this.#sliceBytes) {
      // Sent as a blob: as a buffer each slice would stay in the page's memory until that is cleared.
      const slice = this.file.slice(at, at + this.#sliceBytes);
      const first = await slice.slice(0, 1).arrayBuffer().catch(() => null);
      if (socket.readyState !== WebSocket.OPEN) return;
      if (!first || first.byteLength < Math.min(slice.size, 1)) {
        input.value = ""; // else the same file could not be chosen again
        this.end("unreadable");
        return;
      }
      socket.send(slice);
      if (!slice.size) return; // which is the end
      this.#unanswered++;
      while (this.#unanswered >= MOST_UNANSWERED) await new Promise((resolve) => (this.#onAnswer = resolve));
    }
  }

  #hear(frame) {
    if (frame.type === "model") this.#onModel(frame);
    else if (frame.type === "rows") this.#take(frame);
    else if (frame.error.retry_after_s) {
      this.state = "busy";
      this.#retryMs = Math.min(1000 * frame.error.retry_after_s, 2 ** 31 - 1); // a longer timeout is none
    } else {
      this.#keep(); // a last row that says why
      this.end("refused", frame.error.detail);
    }
    showLater();
  }

  #take({ read, resume, rows, bad, noted, errors, counts, values, listed, version, done }) {
    this.#keep();
    this.#read = read;
    this.#hasAnswers = true;
    this.#resume = resume;
    this.#retryMs = FIRST_RETRY_MS;
    this.state = "begin";
    this.rows += rows;
    this.bad += bad;
    this.noted += noted;
    if (rows > bad) this.versions.add(version);
    const wrong = errors.slice(0, MOST_LISTED - this.wrong.length);
    this.wrong.push(...wrong);
    this.changes += wrong.length;
    this.#list(listed);
    for (const [label, count] of Object.entries(counts)) this.counts.set(label, (this.counts.get(label) ?? 0) + count);
    if (values) {
      const { least, greatest, sum } = this.values ?? { least: Infinity, greatest: -Infinity, sum: 0 };
      this.values = {
        least: Math.min(least, values.least),
        greatest: Math.max(greatest, values.greatest),
        sum: sum + values.sum,
      };
    }
    this.#unanswered--;
    this.#onAnswer();
    if (done) this.end("done");
  }

  #keep() {
    this.#kept.push(...this.#incoming);
    this.#incoming = [];
    if (this.#kept.reduce((sum, { size }) => sum + size, 0) < PART_BYTES) return;
    this.#parts.push(new Blob(this.#kept));
    this.#kept = [];
  }

  #list(rows) {
    const most = Math.max(1, Math.min(MOST_LISTED, Math.floor(MOST_KEPT / Math.max(1, this.model.labels.length))));
    for (const [label, added] of Map.groupBy(rows, ({ label }) => label)) {
      const before = this.listed.get(label) ?? [];
      const kept = [...before, ...added].sort(byLeastSure).slice(0, most);
      if (kept.some((row, index) => row !== before[index])) this.changes++;
      this.listed.set(label, kept);
    }
  }
}

// What is seen of it, once a frame at most.

let current = null;
let isShowing = false;
let landing = ""; // what is drawn on the map
let marks = []; // where: x, y, and the row
let fields = [];
let picked = null; // the row that was put into the form, and what stood there then

function showLater() {
  if (!isShowing) requestAnimationFrame(show);
  isShowing = true;
}

function statusOf({ state, file, rows, bad, versions }) {
  const numbers = { name: file.name, rows: shown(rows), bad: shown(bad), good: shown(rows - bad) };
  const several = versions.size > 1 ? words("versions", { versions: [...versions].join(", ") }) : "";
  const name = state === "done" && bad ? "partly" : state === "canceled" && !rows ? "nothing" : state;
  return `${words(name, numbers)} ${several}`.trim();
}

function tell(name) {
  const status = `${statusOf(current)} ${current.reason}`.trim();
  announcement.textContent = words(name, { name: current.file.name, status, rows: shown(current.rows), bad: shown(current.bad) });
  showLater();
}

function show() {
  isShowing = false;
  const run = current;
  if (!run) return;
  const seconds = ((run.ended ?? performance.now()) - run.began) / 1000;
  part("status").textContent = statusOf(run);
  part("reason").textContent = run.reason;
  part("result").dataset.state = run.state;
  // A file that was refused at once has no figures.
  part("progress").hidden = part("found").hidden = run.isOver && !run.rows;
  if (run.share === null) part("progress").removeAttribute("value");
  else part("progress").value = run.share;
  part("rows").textContent = shown(run.rows);
  part("rate").textContent = shown(run.rows / Math.max(seconds, 0.01));
  part("bad").textContent = shown(run.bad);
  part("noted").textContent = shown(run.noted);
  if (run.model) showRows(run);
  showPicked(run);
  if (run.model?.labels?.length) showCounts(run);
  else if (run.values) showValues(run);
  if (canvas) drawRows(run, prediction.querySelector(".map")?.dataset);
  if (run.isOver) showEnd(run);
}

// The rows that the table has. A row that has the focus stays where it is.
function showRows(run) {
  const [head, body] = [part("head"), part("body")];
  if (!run.isOver && body.contains(document.activeElement)) return;
  while (head.cells.length < 2 + fields.length) {
    const cell = head.cells[0].cloneNode();
    cell.textContent = titleOf(run.model.features[head.cells.length - 2]);
    head.append(cell);
  }
  const { rows, all, order } = viewOf(run);
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  for (const [index, row] of rows.entries()) {
    if (!body.rows[index]) body.append(part("row").content.cloneNode(true));
    if (body.rows[index].row !== row) showRow(run, body.rows[index], row);
  }
  part("listed").textContent = words(order, { listed: shown(rows.length), rows: shown(all) });
}

// The rows in it, how many there are of them in the file, and the name of the sentence that says so.
function viewOf({ wrong, listed, counts, rows, bad, model }) {
  const { value } = part("filter");
  if (value === "wrong") return { rows: wrong, all: bad, order: "ofWrong" };
  const label = model.labels[value];
  if (label !== undefined) return { rows: listed.get(label) ?? [], all: counts.get(label) ?? 0, order: "ofLabel" };
  const leastSure = [...listed.values()].flat().sort(byLeastSure);
  return { rows: [...wrong, ...leastSure].slice(0, MOST_LISTED), all: rows, order: "ofAll" };
}

function showRow({ model }, line, row) {
  line.row = row;
  const [name, answer, ...cells] = line.cells;
  const button = name.firstElementChild;
  button.textContent = shown(row.line);
  button.disabled = !row.cells.length; // it is not known which cells they are
  button.ariaLabel = words("pick", { line: shown(row.line) });
  line.ariaCurrent = row === picked?.row ? "true" : null;
  answer.querySelector("path").setAttribute("d", markOf(model, row));
  answer.querySelector("span").textContent = answerOf(model, row);
  answer.toggleAttribute("data-wrong", Boolean(row.errors));
  for (const cell of cells) cell.remove();
  for (const [index, text] of row.cells.entries()) {
    const cell = line.insertCell();
    cell.textContent = text;
    cell.toggleAttribute("data-wrong", Boolean(row.errors?.some(({ feature }) => feature === model.features[index].key)));
  }
}

function answerOf(model, row) {
  const { label, probability, value, outside, errors, message, corrected } = row;
  const reasonOf = ({ code, feature, value, message: text }) => {
    const known = model.features.find(({ key }) => key === feature); // another model may answer by now
    return known ? translated(code, { title: titleOf(known), value, text }) : text;
  };
  const parts = [];
  if (errors) parts.push(errors.map(reasonOf).join("; ") || message);
  else if (label === undefined) parts.push(`${number(value)} ${model.target.unit}`.trim());
  else parts.push(`${label} ${percent(probability)}`);
  if (outside) parts.push(words("guess", { number: outside }));
  if (corrected && !errors) parts.push(words("corrected"));
  return parts.join(" · ");
}

const number = (value) => value.toLocaleString(language, { maximumSignificantDigits: 4 });
// Only 1 itself is 100 %.
const percent = (share) =>
  (share < 1 ? Math.min(share, 0.999) : 1).toLocaleString(language, { style: "percent", maximumFractionDigits: 1 });

function markOf({ labels }, { label, errors }) {
  if (errors) return WRONG;
  return markAt(form.dataset.marks.split("|"), Math.max(0, labels.indexOf(label)));
}

// Put a row into the form: what is wrong in it is focused, else the answer comes into sight.
function pick(row) {
  for (const line of part("body").rows) line.ariaCurrent = line.row === row ? "true" : null;
  measurements.dispatchEvent(new CustomEvent("row", { detail: row.cells }));
  picked = { row, texts: textsOf(fields) };
  showPicked(current);
  const wrong = row.errors && fields.find(({ key }) => key === row.errors[0]?.feature)?.element;
  if (wrong) {
    wrong.closest("details")?.setAttribute("open", "");
    wrong.querySelector(":is(input,select)").focus();
  } else document.getElementById("answer-title").scrollIntoView({ block: "nearest" });
}

const textsOf = (fields) => fields.map(({ text }) => text);
const isAsPicked = () => fields.every(({ text }, index) => text === picked.texts[index]);

// Whether the row is still what the form says: examples, the map and Back change that, too.
function showPicked({ model }) {
  part("again").hidden = !picked;
  if (!picked) return;
  const { row } = picked;
  part("score").ariaDisabled = isAsPicked(); // it keeps the focus
  const name = isAsPicked() ? (row.corrected ? "scored" : "picked") : "differs";
  part("picked").textContent = words(name, { line: shown(row.line), answer: answerOf(model, row) });
}

// Score the row with the values that are in the form.
async function scoreAgain() {
  if (isAsPicked()) return;
  const [run, { row }] = [current, picked];
  const cells = textsOf(fields);
  const sample = Object.fromEntries(fields.map(({ key, text }) => [key, text]));
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const response = await fetch("predict", { method: "POST", headers, body: JSON.stringify({ sample }) }).catch(() => null);
  const answer = await response?.json().catch(() => null);
  if (run !== current) return;
  if (!answer?.model && !answer?.errors) {
    part("picked").textContent = announcement.textContent = words("failed");
    return;
  }
  if (row === picked.row) picked.texts = cells;
  const { label, probabilities, value, notes, errors, detail: message } = answer;
  const probability = probabilities?.[label];
  Object.assign(row, { cells, label, probability, value, outside: notes?.length, errors, message, corrected: true });
  run.changes++;
  for (const line of part("body").rows) if (line.row === row) showRow(run, line, row);
  announcement.textContent = words("scored", { line: shown(row.line), answer: answerOf(run.model, row) });
  showLater();
}

function showCounts({ model: { labels }, counts, rows, bad }) {
  const order = [...labels.entries()].map(([index, label]) => ({ index, label, count: counts.get(label) ?? 0 }));
  if (order.length > MOST_COUNTED) order.sort((a, b) => b.count - a.count);
  const marks = form.dataset.marks.split("|");
  const lines = order.slice(0, MOST_COUNTED).map(({ index, label, count }) => [label, shown(count), markAt(marks, index)]);
  const left = order.slice(0, MOST_COUNTED).reduce((sum, { count }) => sum - count, rows - bad);
  if (order.length > MOST_COUNTED) lines.push([words("others"), shown(left), ""]);
  showLines(lines);
}

// Labels without a mark of their own share the last one.
const markAt = (marks, index) => marks[Math.min(index, marks.length - 1)];

function showValues({ values: { least, greatest, sum }, rows, bad }) {
  const lines = [["least", least], ["mean", sum / (rows - bad)], ["greatest", greatest]];
  showLines(lines.map(([name, value]) => [words(name), number(value), ""]));
}

function showLines(lines) {
  const body = part("counts");
  while (body.rows.length < lines.length) body.append(part("count").content.cloneNode(true));
  for (const [index, [name, text, mark]] of lines.entries()) {
    body.rows[index].querySelector("path").setAttribute("d", mark);
    body.rows[index].querySelector("span").textContent = name;
    body.rows[index].querySelector("td").textContent = text;
  }
}

function showEnd(run) {
  const download = part("download");
  const hadFocus = document.activeElement === part("cancel");
  if (run.result && !run.address) {
    run.address = URL.createObjectURL(run.result);
    download.href = run.address;
    download.download = `${run.file.name.replace(/(\.(csv|tsv|tab|txt|xlsx|xlsm))?(\.(gz|zip))?$/i, "")}-predictions.csv`;
  }
  download.hidden = !run.result;
  part("clear").hidden = false;
  part("cancel").hidden = true;
  if (hadFocus) (run.result ? download : input).focus();
}

// The rows that are kept are on the map that is there, and are drawn anew when its scales change.
function drawRows(run, map) {
  const seen = [map && [map.x, map.xLow, map.xHigh, map.y, map.yLow, map.yHigh], run.changes].join();
  if (seen === landing) return;
  landing = seen;
  marks = [];
  const context = canvas.getContext("2d");
  context.reset();
  if (!map || !run.model) return;
  const [left, top, width, height] = map.plot.split(" ").map(Number);
  const share = (value, low, high) => Math.min(Math.max((value - low) / (high - low), 0), 1);
  const [x, y] = [map.x, map.y].map((key) => fields.findIndex((field) => field.key === key));
  const style = getComputedStyle(canvas);
  const scale = canvas.width / 400;
  context.globalAlpha = 0.7;
  // Those that need attention on top.
  for (const [index, row] of [...[...run.listed.values()].flat(), ...run.wrong].entries()) {
    // Rows with the same word are spread over its band, as on the map itself.
    const placeOf = (column, step) =>
      fields[column].positionOf(row.cells[column]) + (fields[column].choices ? SPREAD * (((index * step) % 1) - 0.5) : 0);
    if (!row.cells.length) continue;
    const [right, up] = [placeOf(x, ACROSS_STEP), placeOf(y, UP_STEP)];
    if (Number.isNaN(right + up)) continue; // no value, or one that the map does not have
    const across = left + width * share(right, map.xLow, map.xHigh);
    const down = top + height * (1 - share(up, map.yLow, map.yHigh));
    const mark = new Path2D(markOf(run.model, row));
    marks.push([across, down, row]);
    context.fillStyle = context.strokeStyle = row.errors ? style.getPropertyValue("--wrong") : style.color;
    context.setTransform(scale, 0, 0, scale, scale * across, scale * down);
    context.fill(mark);
    context.stroke(mark);
  }
}

function rowAt({ clientX, clientY, pointerType }) {
  const { left, top, width } = canvas.getBoundingClientRect();
  const scale = 400 / width;
  const far = ([x, y]) => Math.hypot(x - (clientX - left) * scale, y - (clientY - top) * scale);
  const [nearest] = marks.toSorted((a, b) => far(a) - far(b));
  return nearest && far(nearest) < scale * (REACH_PX[pointerType] ?? REACH_PX.mouse) ? nearest[2] : null;
}

// A row's mark is pressed, and not the map below it; a finger may drag from there.
function press(event) {
  const row = event.target === handle && (event.detail || event.type !== "click") && current && rowAt(event);
  handle.toggleAttribute("data-row", Boolean(row));
  if (!row || event.type === "pointermove" || (event.type === "pointerdown" && event.pointerType === "touch")) return;
  event.stopPropagation();
  if (event.type !== "click") return;
  if (!viewOf(current).rows.includes(row)) {
    part("filter").value = row.errors ? "wrong" : Math.max(0, current.model.labels.indexOf(row.label));
    showRows(current);
  }
  pick(row);
}

function forget() {
  const former = current;
  current = null;
  former?.end("canceled");
  if (former?.address) URL.revokeObjectURL(former.address);
  part("counts").replaceChildren();
  part("body").replaceChildren();
  part("filter").value = "";
  picked = null;
  marks = [];
  canvas?.getContext("2d").reset();
  landing = "";
}

// Send a file, unless it is on its way already.
export function begin(file) {
  if (current?.file === file && !current.isOver) return;
  forget();
  fields = fieldsOf(measurements);
  current = new Run(file);
  part("result").hidden = part("cancel").hidden = false;
  part("clear").hidden = part("download").hidden = true;
  tell("begin");
}

form.addEventListener("reset", () => {
  forget();
  part("result").hidden = true;
  input.focus();
});
part("cancel").addEventListener("click", () => current.end("canceled"));
part("filter").addEventListener("change", showLater);
part("score").addEventListener("click", scoreAgain);
part("body").addEventListener("click", ({ target }) => {
  const { row } = target.closest("tr");
  if (row.cells.length && !String(getSelection())) pick(row);
});
prediction.addEventListener("htmx:afterSwap", showLater);
if (canvas) {
  for (const type of ["pointerdown", "pointermove", "click"]) handle.parentElement.addEventListener(type, press, { capture: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    landing = "";
    showLater();
  });
}
