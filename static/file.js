// A file on its way through the service: its bytes go over the websocket /score, and the table with predictions comes
// back as bytes, to be kept. Nothing here knows how a table is written.
//
// Each slice is answered by bytes and then by a frame that says they are whole, with what is to be shown of them. When
// the connection is lost, what was not followed by such a frame is forgotten, and the file goes on behind the last one.

const SLICE_BYTES = 65_536;
const MOST_UNANSWERED = 4; // slices
const PART_BYTES = 2 ** 20;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;
const MOST_LISTED = 100;
const MOST_COUNTED = 20;
const MOST_POINTS = 1000;
// As in web/page/axes.py.
const SPREAD = 0.7;
const [ACROSS_STEP, UP_STEP] = [0.7548776662, 0.569840291];
const REASONS = { missing: "absent", not_a_number: "notANumber", not_finite: "notFinite", out_of_bounds: "outOfBounds" };

const form = document.getElementById("file");
const input = document.getElementById("file-input");
const prediction = document.getElementById("prediction");
const announcement = document.getElementById("announcement");
const canvas = document.getElementById("file-points");
const part = (name) => document.getElementById(`file-${name}`);
const language = document.documentElement.lang;
const shown = (number) => number.toLocaleString(language, { maximumFractionDigits: 0 });
const words = (name, values = {}) => form.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
const titleOf = (feature) => feature.titles?.[language] ?? feature.title;

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
  wrong = []; // the first rows that are bad
  counts = new Map(); // of each label
  values = null; // of a quantity: the least, the greatest and the sum
  points = []; // every so many rows with an answer: the label's index or the quantity, and the values
  versions = new Set();
  #read = 0; // bytes of the file
  #hasAnswers = false;
  #resume = "";
  #parts = [];
  #kept = []; // smaller ones, for the next part
  #incoming = []; // blobs of rows that may not be whole
  #sliceBytes = 0; // until the model is announced
  #unanswered = 0;
  #stride = 1;
  #retryMs = FIRST_RETRY_MS;
  #socket = null;
  #onAnswer = () => {};

  constructor(file) {
    this.file = file;
    this.began = performance.now();
    this.#connect();
  }

  get isOver() {
    return this.ended !== undefined;
  }

  // Nothing, while a file is read only once all of it is there, as an Excel file is.
  get share() {
    if (this.state === "done") return 1;
    return this.#hasAnswers && !this.#read && !this.isOver ? null : this.#read / this.file.size || 0;
  }

  end(state, reason = "") {
    if (this.isOver) return;
    this.state = state;
    this.reason = reason;
    this.ended = performance.now();
    this.#socket.close();
    if (this.#read) this.result = new Blob([...this.#parts, ...this.#kept], { type: "text/csv" });
    this.#parts = this.#kept = this.#incoming = [];
    if (this === current) tell("spoken");
  }

  #connect() {
    if (this.isOver) return;
    const address = new URL("score", document.baseURI);
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

  #take({ read, resume, rows, bad, errors, counts, values, points, version, done }) {
    this.#keep();
    this.#read = read;
    this.#hasAnswers = true;
    this.#resume = resume;
    this.#retryMs = FIRST_RETRY_MS;
    this.state = "begin";
    this.rows += rows;
    this.bad += bad;
    if (rows > bad) this.versions.add(version);
    for (const error of errors.slice(0, MOST_LISTED - this.wrong.length)) this.wrong.push(this.#lineOf(error));
    for (const [label, count] of Object.entries(counts)) this.counts.set(label, (this.counts.get(label) ?? 0) + count);
    if (values) {
      const { least, greatest, sum } = this.values ?? { least: Infinity, greatest: -Infinity, sum: 0 };
      this.values = {
        least: Math.min(least, values.least),
        greatest: Math.max(greatest, values.greatest),
        sum: sum + values.sum,
      };
    }
    this.points.push(...points.filter((_, index) => index % this.#stride === 0));
    while (this.points.length > MOST_POINTS) {
      this.points = this.points.filter((_, index) => index % 2);
      this.#stride *= 2;
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

  #lineOf({ line, message, errors }) {
    const reasonOf = ({ code, feature, value, message: text }) => {
      const title = titleOf(this.model.features.find(({ key }) => key === feature));
      return translated(code, { title, value, text });
    };
    return words("line", { line: shown(line), reason: errors.map(reasonOf).join("; ") || message });
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

function statusOf({ state, file, rows, bad, versions }) {
  const numbers = { name: file.name, rows: shown(rows), bad: shown(bad), good: shown(rows - bad) };
  const several = versions.size > 1 ? words("versions", { versions: [...versions].join(", ") }) : "";
  return `${words(state === "done" && bad ? "partly" : state, numbers)} ${several}`.trim();
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
  if (run.share === null) part("progress").removeAttribute("value");
  else part("progress").value = run.share;
  part("rows").textContent = shown(run.rows);
  part("rate").textContent = shown(run.rows / Math.max(seconds, 0.01));
  part("bad").textContent = shown(run.bad);
  showWrong(run);
  if (run.model?.labels?.length) showCounts(run);
  else if (run.values) showValues(run);
  if (canvas) drawPoints(run, prediction.querySelector(".map")?.dataset);
  if (run.isOver) showEnd(run);
}

function showWrong({ wrong, bad }) {
  const list = part("list");
  const lines = bad > wrong.length ? [...wrong, words("more", { number: shown(bad - wrong.length) })] : wrong;
  while (list.children.length < lines.length) list.append(document.createElement("li"));
  for (const [index, line] of lines.entries()) list.children[index].textContent = line;
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
  const value = (number) => number.toLocaleString(language, { maximumSignificantDigits: 4 });
  const lines = [["least", least], ["mean", sum / (rows - bad)], ["greatest", greatest]];
  showLines(lines.map(([name, number]) => [words(name), value(number), ""]));
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
    download.download = `${run.file.name.replace(/\.(csv|tsv|tab|txt|xlsx|xlsm)$/i, "")}-predictions.csv`;
  }
  download.hidden = !run.result;
  part("clear").hidden = false;
  part("cancel").hidden = true;
  if (hadFocus) (run.result ? download : input).focus();
}

// Points land on the map that is there, and are drawn anew when its scales change.
function drawPoints({ model, points }, map) {
  const seen = [map && [map.x, map.xLow, map.xHigh, map.y, map.yLow, map.yHigh], points.length, points[0]].join();
  if (seen === landing) return;
  landing = seen;
  const context = canvas.getContext("2d");
  context.reset();
  if (!map || !model) return;
  const [left, top, width, height] = map.plot.split(" ").map(Number);
  const columnOf = (key) => model.features.findIndex((feature) => feature.key === key);
  const share = (value, low, high) => Math.min(Math.max((value - low) / (high - low), 0), 1);
  // Rows with the same word are spread over its band, as on the map itself.
  const spread = (column, index, step) => (model.features[column].choices ? SPREAD * (((index * step) % 1) - 0.5) : 0);
  const [x, y] = [columnOf(map.x), columnOf(map.y)];
  const marks = form.dataset.marks.split("|").map((path) => new Path2D(path));
  const scale = canvas.width / 400;
  context.fillStyle = context.strokeStyle = getComputedStyle(canvas).color;
  context.globalAlpha = 0.6;
  for (const [index, [outcome, ...values]] of points.entries()) {
    // No value, or a word that the map does not have.
    if ([x, y].some((column) => values[column] === null || (model.features[column].choices && values[column] < 0))) continue;
    const across = left + width * share(values[x] + spread(x, index, ACROSS_STEP), map.xLow, map.xHigh);
    const down = top + height * (1 - share(values[y] + spread(y, index, UP_STEP), map.yLow, map.yHigh));
    const mark = markAt(marks, model.labels?.length ? outcome : 0);
    context.setTransform(scale, 0, 0, scale, scale * across, scale * down);
    context.fill(mark);
    context.stroke(mark);
  }
}

function forget() {
  const former = current;
  current = null;
  former?.end("canceled");
  if (former?.address) URL.revokeObjectURL(former.address);
  part("list").replaceChildren();
  part("counts").replaceChildren();
  canvas?.getContext("2d").reset();
  landing = "";
}

// Send a file, unless it is on its way already.
export function begin(file) {
  if (current?.file === file && !current.isOver) return;
  forget();
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
if (canvas) {
  prediction.addEventListener("htmx:afterSwap", showLater);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    landing = "";
    showLater();
  });
}
