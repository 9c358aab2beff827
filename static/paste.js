// A pasted row fills all fields, or none: what may be read in two ways is refused.

import { say } from "./answer.js";
import { enter } from "./entry.js";
import { fields, form } from "./form.js";
import { Refusal, rowIn } from "./text.js";

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
  refusal.hidden = true;
}

for (const { control } of fields) control.addEventListener("paste", paste);
for (const name of ["input", "focusout"]) form.addEventListener(name, hideRefusal);
for (const name of ["popstate", "pageshow"]) window.addEventListener(name, hideRefusal);
