// The rows of a file that the page has: a table of them; one of them is put into the form, changed there, and scored
// again.

import { say } from "./answer.js";
import { enter } from "./entry.js";
import { fields, texts } from "./form.js";
import { byLeastSure, MOST_LISTED } from "./run.js";
import { answerOf, messageOf, part, shown, symbolOf, titleOf } from "./messages.js";

let picked = null; // the run and its row that was put into the form, and what stood there then

const isAsPicked = () => fields.every(({ text }, index) => text === picked.texts[index]);

// Show a run's rows. A row that has the focus stays where it is.
export function showRows(run) {
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
  part("listed").textContent = messageOf(order, { listed: shown(rows.length), rows: shown(all) });
}

// The rows in the table, how many there are of them in the file, and the name of the sentence that says so.
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
  button.ariaLabel = messageOf("pick", { line: shown(row.line) });
  line.ariaCurrent = row === picked?.row ? "true" : null;
  answer.querySelector("path").setAttribute("d", symbolOf(model, row));
  answer.querySelector("span").textContent = answerOf(model, row);
  answer.toggleAttribute("data-wrong", Boolean(row.errors));
  for (const cell of cells) cell.remove();
  answer.colSpan = row.cells.length ? 1 : 1 + fields.length;
  for (const [index, text] of row.cells.entries()) {
    const cell = line.insertCell();
    cell.textContent = text;
    cell.toggleAttribute("data-wrong", Boolean(row.errors?.some(({ feature }) => feature === model.features[index].key)));
  }
}

// Show the rows that a row is among.
export function showAmong(run, row) {
  if (viewOf(run).rows.includes(row)) return;
  part("filter").value = row.errors ? "wrong" : Math.max(0, run.model.labels.indexOf(row.label));
  showRows(run);
}

// Put a row into the form: what is wrong in it is focused, else the answer comes into sight.
export function pick(run, row) {
  for (const line of part("body").rows) line.ariaCurrent = line.row === row ? "true" : null;
  enter(row.cells);
  picked = { run, row, texts: texts() };
  showPicked();
  const wrong = row.errors && fields.find(({ key }) => key === row.errors[0]?.feature)?.element;
  if (wrong) {
    wrong.closest("details")?.setAttribute("open", "");
    wrong.querySelector(":is(input,select)").focus();
  } else document.getElementById("answer-title").scrollIntoView({ block: "nearest" });
}

// Whether the row is still what the form says: examples, the map and Back change that, too.
export function showPicked() {
  part("again").hidden = !picked;
  if (!picked) return;
  const { run, row } = picked;
  part("score").ariaDisabled = isAsPicked(); // it keeps the focus
  const name = isAsPicked() ? (row.corrected ? "scored" : "picked") : "differs";
  part("picked").textContent = messageOf(name, { line: shown(row.line), answer: answerOf(run.model, row) });
}

// Score the row with the values that are in the form.
async function scoreAgain() {
  if (isAsPicked()) return;
  const { run, row } = picked;
  const cells = texts();
  const sample = Object.fromEntries(fields.map(({ key, text }) => [key, text]));
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const response = await fetch("predict", { method: "POST", headers, body: JSON.stringify({ sample }) }).catch(() => null);
  const answer = await response?.json().catch(() => null);
  if (run !== picked?.run) return;
  if (!answer?.model && !answer?.errors) {
    part("picked").textContent = messageOf("failed");
    say(messageOf("failed"));
    return;
  }
  if (row === picked.row) picked.texts = cells;
  const { label, probabilities, value, notes, errors, detail: message } = answer;
  const probability = probabilities?.[label];
  Object.assign(row, { cells, label, probability, value, outside: notes?.length, errors, message, corrected: true });
  run.changes++;
  for (const line of part("body").rows) if (line.row === row) showRow(run, line, row);
  say(messageOf("scored", { line: shown(row.line), answer: answerOf(run.model, row) }));
  run.dispatchEvent(new Event("change"));
}

export function forgetRows() {
  picked = null;
  part("body").replaceChildren();
  part("filter").value = "";
}

part("score").addEventListener("click", scoreAgain);
