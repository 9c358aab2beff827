// A file on its way through the service: its bytes go over the websocket /score, and the table with predictions comes
// back as bytes, to be kept. Nothing here knows how a table is written, or what is seen of it.
//
// Each slice is answered by bytes and then by a frame that says they are whole, with what is to be shown of them. When
// the connection is lost, what was not followed by such a frame is forgotten, and the file goes on behind the last one.

import { FIRST_RETRY_MS, LAST_RETRY_MS, replaced } from "./answer.js";
import { fields } from "./form.js";

const SLICE_BYTES = 65_536;
const MOST_UNANSWERED = 4; // slices
const PART_BYTES = 2 ** 20;
// Rows in the table, and kept without an answer and of each label; fewer of each of many. As in web/scoring/websocket.py.
export const MOST_LISTED = 50;
const MOST_KEPT = 1000;

// Rows are as the service lists them; one that was corrected has its new cells and answer.
const sureness = ({ probability, outside }) => probability ?? -outside;
export const byLeastSure = (a, b) => sureness(a) - sureness(b);

// An event "change" says that there is more to show, an event "end" that there is no more to come.
export class Run extends EventTarget {
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

  // `options`, names and texts, say how the file is read.
  constructor(file, options) {
    super();
    this.file = file;
    this.#options = options;
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
    this.dispatchEvent(new Event("end"));
  }

  #change() {
    this.dispatchEvent(new Event("change"));
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
      if (typeof data === "string") this.#receive(JSON.parse(data));
      else this.#incoming.push(data); // a blob: no part of the page's memory
    };
    socket.onclose = () => {
      if (this.isOver) return;
      if (this.state !== "busy") this.state = "lost";
      this.#incoming = [];
      this.#sliceBytes = 0;
      this.#change();
      setTimeout(() => this.#connect(), this.#retryMs);
      this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
    };
  }

  // It is announced before anything else, and again when it was replaced.
  #onModel({ model, limits }) {
    const keys = new Set(fields.map(({ key }) => key));
    const isOurs = keys.size === model.features.length && model.features.every(({ key }) => keys.has(key));
    if (!this.model && !isOurs) {
      replaced();
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
      if (!first || first.byteLength < Math.min(slice.size, 1)) return this.end("unreadable");
      socket.send(slice);
      if (!slice.size) return; // which is the end
      this.#unanswered++;
      while (this.#unanswered >= MOST_UNANSWERED) await new Promise((resolve) => (this.#onAnswer = resolve));
    }
  }

  #receive(frame) {
    if (frame.type === "model") this.#onModel(frame);
    else if (frame.type === "rows") this.#take(frame);
    else if (frame.error.retry_after_s) {
      this.state = "busy";
      this.#retryMs = Math.min(1000 * frame.error.retry_after_s, 2 ** 31 - 1); // a longer timeout is none
    } else {
      this.#keep(); // a last row that says why
      this.end("refused", frame.error.detail);
    }
    this.#change();
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
