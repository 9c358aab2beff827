// Ways to enter values besides typing: arrow keys, "unknown", examples, a nearest change, and whole rows. Each stroke is
// a step for the browser's Back.

import { step } from "./address.js";
import { changed, fieldOf, fields, goal, put, showThreshold, threshold } from "./form.js";

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
  changed();
});
