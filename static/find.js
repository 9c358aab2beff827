// Of many fields, those whose name has what is typed; the others are out of sight, but are sent as before.

import { fieldAt, fields, form } from "./form.js";

const input = document.getElementById("find");
const output = document.getElementById("found");
const more = form.querySelector(".more");
let wasOpen = null; // before the search

function find() {
  const count = fields.filter((field) => field.find(input.value)).length;
  if (more) {
    wasOpen ??= more.open;
    more.open = Boolean(input.value) || wasOpen;
    more.toggleAttribute("data-found", Boolean(input.value));
    if (!input.value) wasOpen = null;
  }
  output.textContent = input.value ? output.dataset.some.replace("{count}", count).replace("{all}", fields.length) : "";
}

for (const name of ["input", "change"]) input.addEventListener(name, (event) => event.stopPropagation()); // no value
input.addEventListener("input", find);
input.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    input.value = "";
    find();
  } else if (event.key === "Enter" || event.key === "ArrowDown") fieldAt(form.querySelector(".field:not([hidden])"))?.focus();
  else return;
  event.preventDefault();
});
if (input.value) find(); // typed before this was here
