// The fields of the form. Each holds one text, which is what is sent: a number with a slider, radio buttons, a select,
// or a text with a list of words. Knows no prediction.

import { numberIn, plain, wordOf } from "./text.js";

// Letters as one types them in a hurry.
const bare = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

class Field {
  constructor(element, mark) {
    const { header, gap, thousands = "", decimal = "." } = element.dataset;
    this.element = element;
    this.control = element.matches("[data-start]") ? element : element.querySelector("[data-start]");
    this.slider = element.querySelector(".slider");
    this.key = element.querySelector("[name]").name.replace(".", ""); // see form.js
    this.header = header;
    this.gap = gap; // the text that says that there is no value; undefined where there must be one
    this.title = element.querySelector(".label").textContent;
    this.start = this.control.dataset.start;
    this.unit = element.querySelector(".unit")?.textContent ?? "";
    this.format = { unit: this.unit, thousands, decimal };
    // Where the language's mark divides the column's thousands, the column's own one is written.
    this.decimalMark = thousands === mark ? decimal : mark;
    this.hint = document.getElementById(`${this.control.id}-hint`);
    this.toggle = element.querySelector(".unknown");
    this.known = null; // what stood there before it was set to unknown
  }

  get text() {
    return this.control.value;
  }

  set text(text) {
    this.control.value = text;
  }

  get initial() {
    return this.control.defaultValue;
  }

  // As the service reads it: a number, or the place among the choices; NaN for anything else.
  get position() {
    return this.positionOf(this.text);
  }

  get isGap() {
    return this.gap !== undefined && this.text.trim() === this.gap;
  }

  // Whether a text may stand in the field; of words, only those that the model knows.
  fits(text) {
    if (this.gap !== undefined && [this.gap, ""].includes(text.trim())) return true;
    return this.choices ? this.choiceOf(text) !== undefined : !Number.isNaN(numberIn(text, this.format));
  }

  // The same, but for words that it does not know.
  mayBe(text) {
    return this.fits(text) || Boolean(this.choices && text.trim());
  }

  put(text) {
    this.text = text;
    this.follow();
  }

  // An empty cell of a row is no value, where there may be none.
  paste(text) {
    this.put(this.gap !== undefined && !text.trim() ? this.gap : text);
  }

  setUnknown() {
    if (this.isGap) this.put(this.known ?? this.start);
    else {
      this.known = this.text;
      this.put(this.gap);
    }
  }

  // Bring what stands around the text in line with it.
  follow() {
    this.toggle?.setAttribute("aria-pressed", this.isGap);
    this.control.toggleAttribute("data-long", this.text.length > 10);
  }

  // Show it if its name has each of these words, or else hide it.
  find(words) {
    const names = bare(`${this.title} ${this.key} ${this.header ?? ""}`);
    this.element.hidden = !bare(words).split(/\s+/).every((word) => names.includes(word));
    return !this.element.hidden;
  }

  focus() {
    (this.element.querySelector("input:checked") ?? this.element.querySelector("[name]")).focus();
  }

  // The same field of another model: its start, range and step.
  renew(element) {
    const control = element.querySelector(`#${this.control.id}`) ?? element;
    Object.assign(this.control.dataset, control.dataset);
    this.start = this.control.dataset.start;
    this.element.querySelector(".range")?.replaceWith(element.querySelector(".range"));
    if (this.slider) for (const end of ["min", "max"]) this.slider[end] = element.querySelector(".slider")[end];
    this.follow();
  }

  // Show how the answer changes along it.
  draw(strip) {
    const lines = this.element.querySelectorAll(".line");
    for (const [index, line] of strip.querySelectorAll(".line").entries()) lines[index].replaceWith(line);
    document.getElementById(`${this.control.id}-said`).textContent = strip.dataset.said;
  }

  show(message) {
    if (!message && !this.hint.textContent) return; // as nearly all fields with nearly all answers
    this.hint.textContent = message?.hint ?? "";
    this.hint.dataset.kind = message?.kind ?? "";
    if (message?.kind === "error") {
      this.control.setAttribute("aria-invalid", "true");
      this.element.hidden = false;
      this.element.closest("details")?.setAttribute("open", "");
    } else this.control.removeAttribute("aria-invalid");
  }
}

class NumberField extends Field {
  positionOf(text) {
    return numberIn(text, this.format);
  }

  // The ends of the training range.
  get low() {
    return Number(this.slider.min);
  }

  get high() {
    return Number(this.slider.max);
  }

  putNumber(number, step = Number(this.control.dataset.step)) {
    this.put(this.#textOf(number, step));
  }

  // The slider was moved: it stays where it is, and the number has as many digits as the step. Where it is rounded
  // beyond the training range, it is the last one within.
  slide() {
    const [number, step] = [Number(this.slider.value), Number(this.control.dataset.step)];
    this.text = this.#textOf(number, step);
    if (this.position < this.low) this.text = this.#textOf(number + step, step);
    else if (this.position > this.high) this.text = this.#textOf(number - step, step);
    this.#name();
  }

  // Move by so many steps, with as many digits as there are already.
  move(steps) {
    const unit = this.control.dataset.step * steps;
    const from = Number.isNaN(this.position) ? numberIn(this.start, this.format) : this.position;
    const [digits, exponent = 0] = plain(this.text).split(/e/i); // 1.15e+18
    const decimals = (digits.split(this.format.thousands ? this.format.decimal : /[.,]/)[1] ?? "").length - exponent;
    this.putNumber(from + unit, Math.min(Math.abs(unit), 10 ** -decimals));
  }

  follow() {
    const number = this.position;
    if (!Number.isNaN(number)) this.slider.value = number;
    this.#name();
  }

  #name() {
    super.follow();
    if (!Number.isNaN(this.position)) this.slider.setAttribute("aria-valuetext", `${this.text} ${this.unit}`.trim());
  }

  #textOf(number, step) {
    const decimals = Math.min(Math.max(0, -Math.floor(Math.log10(step))), 20);
    // Beyond that there are no digits that a float could tell.
    let text = Math.abs(number) < 1e15 ? number.toFixed(decimals) : String(number);
    const size = Math.abs(Number(text));
    if (size === 0) text = text.replace("-", "");
    // As the service writes small numbers.
    else if (size < 1e-4) text = Number(text).toExponential().replace(/e-(?=\d$)/, "e-0");
    return text.replaceAll("-", "\u2212").replace(".", this.decimalMark);
  }
}

class ChoiceField extends Field {
  // The choice that the service takes a text for.
  choiceOf(text) {
    const word = wordOf(text);
    return this.choices.find((choice) => choice === text) ?? this.choices.find((choice) => wordOf(choice) === word);
  }

  put(text) {
    super.put(this.choiceOf(text) ?? text);
  }

  positionOf(text) {
    const position = this.choices.indexOf(this.choiceOf(text));
    return position < 0 ? NaN : position;
  }

  putNumber(number) {
    this.put(this.choices[Math.min(Math.max(Math.round(number), 0), this.choices.length - 1)]);
  }

  move(steps) {
    const from = Number.isNaN(this.position) ? this.choices.indexOf(this.start) : this.position;
    this.putNumber(from + steps);
  }
}

class SearchField extends ChoiceField {
  constructor(element, mark) {
    super(element, mark);
    this.choices = Array.from(this.control.list.options, ({ value }) => value).filter((value) => value !== this.gap);
  }
}

// A word that is none of the choices, typed or pasted, has an option of its own as long as it is chosen.
class SelectField extends ChoiceField {
  constructor(element, mark) {
    super(element, mark);
    this.choices = this.#options.map(({ value }) => value);
  }

  get #options() {
    return [...this.control.options].filter(({ value, dataset }) => value && value !== this.gap && !("other" in dataset));
  }

  get text() {
    return this.control.value;
  }

  set text(text) {
    this.control.querySelector("[data-other]")?.remove();
    if (![...this.control.options].some(({ value }) => value === text)) {
      this.control.add(new Option(text, text));
      this.control.options[this.control.length - 1].dataset.other = "";
    }
    this.control.value = text;
  }

  get initial() {
    return this.control.querySelector("[selected]")?.value ?? this.control.options[0].value;
  }
}

class RadioField extends ChoiceField {
  constructor(element, mark) {
    super(element, mark);
    const known = this.#radios.filter(({ value, dataset }) => value !== this.gap && !("other" in dataset));
    this.choices = known.map(({ value }) => value);
  }

  get #radios() {
    return [...this.element.querySelectorAll("[type=radio]")];
  }

  get text() {
    return this.#radios.find(({ checked }) => checked)?.value ?? "";
  }

  set text(text) {
    const [first] = this.#radios;
    this.element.querySelector("[data-other]")?.parentElement.remove();
    if (text && !this.#radios.some(({ value }) => value === text)) {
      const label = first.parentElement.cloneNode(true);
      label.lastElementChild.textContent = label.firstElementChild.value = text;
      label.firstElementChild.dataset.other = "";
      first.closest(".choices").append(label);
    }
    for (const radio of this.#radios) radio.checked = radio.value === text;
  }

  get initial() {
    return this.element.querySelector("[checked]")?.value ?? "";
  }
}

const KINDS = { number: NumberField, search: SearchField, select: SelectField, radio: RadioField };

// In the order of the features, which is that of rows; on the screen, the most important come first.
export function fieldsOf(form) {
  const fields = Array.from(form.querySelectorAll(".field"), (element) => {
    const [, Kind] = Object.entries(KINDS).find(([name]) => element.classList.contains(name));
    return new Kind(element, form.dataset.decimalMark);
  });
  return fields.sort((a, b) => a.control.id.slice(1) - b.control.id.slice(1));
}
