// Ways to enter values besides typing: arrow keys, "unknown", examples, a nearest change, and whole rows. Each stroke is
// a step for the browser's Back.

import { step } from "./address.js";
import { say } from "./answer.js";
import { changed, fieldOf, fields, form, goal, markExample, put, showThreshold, threshold } from "./form.js";
import { Refusal, rowIn } from "./text.js";

const UP_OR_DOWN = { ArrowUp: 1, ArrowDown: -1 };

// Put a row of values, in the order of the features, into the fields.
export function enter(row) {
  step();
  for (const [index, field] of fields.entries()) field.paste(row[index]);
  changed();
}

for (const field of fields) {
  const stepOnKey = (directions) => (event) => {
    const direction = directions[event.key];
    if (!direction || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    field.move(direction * (event.shiftKey ? 10 : event.altKey ? 0.1 : 1));
    changed();
  };
  if (field.slider) field.control.addEventListener("keydown", stepOnKey(UP_OR_DOWN));
  field.slider?.addEventListener("keydown", stepOnKey({ ...UP_OR_DOWN, ArrowRight: 1, ArrowLeft: -1 }));
  field.toggle?.addEventListener("click", () => {
    step();
    field.setUnknown();
    changed();
  });
}

goal?.addEventListener("input", changed);

document.addEventListener("click", (event) => {
  const { target } = event;
  const [example, change, usual] = ["[data-example]", "[data-set]", "#usual-threshold"].map((kind) => target.closest(kind));
  if (event.ctrlKey || event.metaKey || event.shiftKey || !(example || change || usual)) return;
  event.preventDefault();
  step();
  if (usual) threshold().value = threshold().dataset.start;
  else if (change) fieldOf(change.dataset.set).put(change.dataset.value);
  else put(new URLSearchParams(example.search));
  showThreshold();
  markExample();
  changed();
});

// A field that a mouse enters is to be replaced, as one that the Tab key enters; the next click places the caret.
let hadFocus = false;
form.addEventListener("pointerdown", ({ target }) => (hadFocus = target === document.activeElement));
form.addEventListener("click", ({ target, pointerType }) => {
  if (hadFocus || pointerType !== "mouse" || !target.matches(".field input[type=text]")) return;
  if (target.selectionStart === target.selectionEnd) target.select();
});

// A pasted row fills all fields, or none: what may be read in two ways is refused.

const refusal = document.getElementById("refusal");

function paste(event) {
  const labels = Array.from(document.querySelectorAll(".reserve .headline:not(.quantity) strong"), ({ textContent }) => textContent);
  hideRefusal();
  try {
    const values = rowIn(event.clipboardData.getData("text"), fields, labels);
    if (!values) return;
    enter(values);
    if (values.rows > 1) showRefusal(event.target, { message: "rows", values });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showRefusal(event.target, error);
  }
  event.preventDefault();
}

function showRefusal(target, { message, values }) {
  const text = refusal.dataset[message].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  target.closest(".field").append(refusal);
  refusal.textContent = text;
  refusal.hidden = false;
  say(text);
}

function hideRefusal() {
  if (!refusal.hidden) refusal.hidden = true; // the same again would cost a style
}

for (const { control } of fields) control.addEventListener("paste", paste);
for (const name of ["input", "focusout"]) form.addEventListener(name, hideRefusal);
for (const name of ["popstate", "pageshow"]) window.addEventListener(name, hideRefusal);
