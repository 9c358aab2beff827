// The form: the fields of the sample, the options of the view, and the pinned sample. All of them are sent, and kept by
// the address. Knows no answer.

import { fieldsOf } from "./fields.js";

export const form = document.getElementById("measurements");
// A field takes the place of the form's own member of that name, be it `children` or `dataset`: it has another name on
// the page than in what is sent.
for (const control of document.querySelectorAll("#measurements [name]")) {
  if (control.name in HTMLFormElement.prototype) control.name = `.${control.name}`;
}
form.addEventListener("formdata", ({ formData }) => {
  for (const [name, text] of [...formData].filter(([name]) => name.startsWith("."))) {
    formData.delete(name);
    formData.append(name.slice(1), text);
  }
});
export const fields = fieldsOf(form);
export const selects = [...document.querySelectorAll(".axis select")];
export const goal = document.getElementById("goal"); // of a quantity
export const threshold = () => document.getElementById("threshold"); // of two labels; replaced with the model
export const views = () => [...selects, goal, threshold()].filter(Boolean); // options of the view
const pin = document.getElementById("pinned-sample");
const pinButton = document.getElementById("pin");

export const query = (entries) => new URLSearchParams(entries).toString();
export const typed = () => query(new FormData(form));
export const sample = () => query(fields.map(({ key, text }) => [key, text]));
export const texts = () => fields.map(({ text }) => text);
export const fieldOf = (key) => fields.find((field) => field.key === key);
export const fieldAt = (element) => fields.find((field) => field.element === element.closest(".field"));
export const hasPin = () => !pin.disabled;

// What the server filled in.
export const initial = (() => {
  const defaults = new FormData(form);
  for (const { key, initial } of fields) defaults.set(key, initial);
  for (const select of selects) defaults.set(select.name, select.querySelector("[selected]").value);
  for (const view of [goal, threshold()]) if (view) defaults.set(view.name, view.defaultValue);
  return query(defaults);
})();

// Whatever changes the fields ends in this, once.
export function changed() {
  form.dispatchEvent(new Event("input"));
}

// Put a sample into the fields; those that it lacks get the example's value.
export function put(parameters) {
  for (const field of fields) field.put(parameters.get(field.key) ?? field.start);
}

// Mark the example that is in the fields, and return whether there is one.
export function markExample() {
  const shown = sample();
  let isExample = false;
  for (const link of document.querySelectorAll("[data-example]")) {
    const values = new URLSearchParams(link.search);
    const isShown = query(fields.map(({ key, start }) => [key, values.get(key) ?? start])) === shown;
    if (!link.matches(".reset")) link.ariaCurrent = isShown ? "true" : null;
    isExample ||= isShown;
  }
  return isExample;
}

export function fill(parameters) {
  put(parameters);
  for (const view of views()) view.value = parameters.get(view.name) ?? view.dataset.start;
  showThreshold();
  showPin(parameters.get(pin.name));
}

// The service compares the pinned sample with the present one.
export function showPin(pinned) {
  pin.disabled = !pinned;
  pin.value = pinned ?? "";
  pinButton.textContent = pinButton.dataset[pinned ? "unpin" : "pin"];
}

export function showThreshold() {
  const slider = threshold();
  if (!slider) return;
  const { start, text } = slider.dataset;
  const percent = slider.value === start ? text : text.replace(/^[\d.,]+/, Math.round(100 * slider.value));
  slider.nextElementSibling.textContent = percent;
  slider.setAttribute("aria-valuetext", percent);
}

export function addressOf(entries) {
  // The map's usual axes, the usual goal and the model's threshold need not be named.
  const isUsual = (options) => options.every((option) => option.value === option.dataset.start);
  const unnamed = [...(isUsual(selects) ? selects : []), ...[goal, threshold()].filter((view) => view && isUsual([view]))];
  const named = [...entries].filter(([name]) => !unnamed.some((option) => option.name === name));
  return `./?${query(named)}`;
}
