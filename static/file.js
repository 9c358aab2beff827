// Predict a file: what is seen of a run, once a frame at most. Loaded with the first file.

import { prediction, say } from "./answer.js";
import { drawSymbols, forgetSymbols, onPress } from "./symbols.js";
import { forgetRows, pick, showAmong, showPicked, showRows } from "./rows.js";
import { Run } from "./run.js";
import { form, messageOf, number, part, shown, symbolAt } from "./messages.js";

const MOST_COUNTED = 20;

const input = document.getElementById("file-input");

let current = null;
let isShowing = false;

function showLater() {
  if (!isShowing) requestAnimationFrame(show);
  isShowing = true;
}

function statusOf({ state, file, rows, bad, versions }) {
  const numbers = { name: file.name, rows: shown(rows), bad: shown(bad), good: shown(rows - bad) };
  const several = versions.size > 1 ? messageOf("versions", { versions: [...versions].join(", ") }) : "";
  const name = state === "done" && bad ? "partly" : state === "canceled" && !rows ? "nothing" : state;
  return `${messageOf(name, numbers)} ${several}`.trim();
}

function announce(name) {
  const status = `${statusOf(current)} ${current.reason}`.trim();
  say(messageOf(name, { name: current.file.name, status, rows: shown(current.rows), bad: shown(current.bad) }));
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
  showPicked();
  if (run.model?.labels?.length) showCounts(run);
  else if (run.values) showValues(run);
  drawSymbols(run);
  if (run.isOver) showEnd(run);
}

function showCounts({ model: { labels }, counts, rows, bad }) {
  const order = [...labels.entries()].map(([index, label]) => ({ index, label, count: counts.get(label) ?? 0 }));
  if (order.length > MOST_COUNTED) order.sort((a, b) => b.count - a.count);
  const lines = order.slice(0, MOST_COUNTED).map(({ index, label, count }) => [label, shown(count), symbolAt(index)]);
  const left = order.slice(0, MOST_COUNTED).reduce((sum, { count }) => sum - count, rows - bad);
  if (order.length > MOST_COUNTED) lines.push([messageOf("others"), shown(left), ""]);
  showLines(lines);
}

function showValues({ values: { least, greatest, sum }, rows, bad }) {
  const lines = [["least", least], ["mean", sum / (rows - bad)], ["greatest", greatest]];
  showLines(lines.map(([name, value]) => [messageOf(name), number(value), ""]));
}

function showLines(lines) {
  const body = part("counts");
  while (body.rows.length < lines.length) body.append(part("count").content.cloneNode(true));
  for (const [index, [name, text, symbol]] of lines.entries()) {
    body.rows[index].querySelector("path").setAttribute("d", symbol);
    body.rows[index].querySelector("span").textContent = name;
    body.rows[index].querySelector("td").textContent = text;
  }
}

function showEnd(run) {
  const download = part("download");
  const hadFocus = document.activeElement === part("cancel");
  if (run.state === "unreadable") input.value = ""; // else the same file could not be chosen again
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

function forget() {
  const former = current;
  current = null;
  former?.end("canceled");
  if (former?.address) URL.revokeObjectURL(former.address);
  part("counts").replaceChildren();
  forgetRows();
  forgetSymbols();
}

// Send a file, unless it is on its way already.
export function begin(file) {
  if (current?.file === file && !current.isOver) return;
  forget();
  // How it is read: what the form has besides the file.
  const options = [...new FormData(form)].filter(([, value]) => value && typeof value === "string");
  const run = new Run(file, options);
  current = run;
  run.addEventListener("change", showLater);
  run.addEventListener("end", () => run === current && announce("spoken"));
  part("result").hidden = part("cancel").hidden = false;
  part("clear").hidden = part("download").hidden = true;
  announce("begin");
}

form.addEventListener("reset", () => {
  forget();
  part("result").hidden = true;
  input.focus();
});
part("cancel").addEventListener("click", () => current.end("canceled"));
part("filter").addEventListener("change", showLater);
part("body").addEventListener("click", ({ target }) => {
  const { row } = target.closest("tr");
  if (row.cells.length && !String(getSelection())) pick(current, row);
});
onPress((row) => {
  showAmong(current, row);
  pick(current, row);
});
prediction.addEventListener("htmx:afterSwap", showLater);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  forgetSymbols();
  showLater();
});
