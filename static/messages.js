// The messages of the file's section: sentences of its form, numbers, and what stands for a row's answer.

const language = document.documentElement.lang;
const REASONS = { missing: "absent", not_a_number: "notANumber", not_finite: "notFinite", out_of_bounds: "outOfBounds" };

export const form = document.getElementById("file");
export const part = (name) => document.getElementById(`file-${name}`);
// As web/page/templates.py has it: in a name they would turn around the sentence that it stands in.
const withoutTurning = (text) => text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
export const messageOf = (name, values = {}) =>
  withoutTurning(form.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]));
export const shown = (number) => number.toLocaleString(language, { maximumFractionDigits: 0 });
export const number = (value) => value.toLocaleString(language, { maximumSignificantDigits: 4 });
export const titleOf = (feature) => feature.titles?.[language] ?? feature.title;

const WRONG = "M-3-3L3 3M-3 3L3-3"; // a row without an answer
const symbols = form.dataset.symbols.split("|");
// Labels without a symbol of their own share the last one.
export const symbolAt = (index) => symbols[Math.min(index, symbols.length - 1)];
export const symbolOf = ({ labels }, { label, errors }) => (errors ? WRONG : symbolAt(Math.max(0, labels.indexOf(label))));

// Only 1 itself is 100 %.
const percent = (share) =>
  (share < 1 ? Math.min(share, 0.999) : 1).toLocaleString(language, { style: "percent", maximumFractionDigits: 1 });

// What the service says of a value, in the language of the page.
function translated(code, { title, value, text }) {
  if (!(code in REASONS) || (value === null && code !== "missing")) return text;
  const [, one, other] = text.match(/can be read as (\S+) or as (\S+)$/) ?? [];
  if (one) return messageOf("open", { title, value, one, other });
  if (/has another decimal mark than the rest of the row$/.test(text)) return messageOf("mixed", { title, value });
  const [, thousands, decimal] = text.match(/here '(.)' divides thousands and '(.)' is the decimal mark$/) ?? [];
  return messageOf(REASONS[code], { title, value }) + (thousands ? `; ${messageOf("divided", { thousands, decimal })}` : "");
}

export function answerOf(model, row) {
  const { label, probability, value, outside, errors, message, corrected } = row;
  const reasonOf = ({ code, feature, value, message: text }) => {
    const known = model.features.find(({ key }) => key === feature); // another model may answer by now
    return known ? translated(code, { title: titleOf(known), value, text }) : text;
  };
  const parts = [];
  const [, found, wanted] = message?.match(/^(\d+) columns, the header has (\d+)$/) ?? [];
  if (found) parts.push(messageOf("ragged", { found, wanted }));
  else if (errors) parts.push(errors.map(reasonOf).join("; ") || message);
  else if (label === undefined) parts.push(`${number(value)} ${model.target.unit}`.trim());
  else parts.push(`${label} ${percent(probability)}`);
  if (outside) parts.push(messageOf("guess", { number: outside }));
  if (corrected && !errors) parts.push(messageOf("corrected"));
  return withoutTurning(parts.join(" · "));
}
