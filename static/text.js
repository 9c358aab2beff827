// Numbers, names of columns, and rows: as people write, copy and paste them. Knows no page.

const MOST_CHARACTERS = 2 ** 20; // of a pasted text
const MOST_LINES = 20; // of it, until one has values
// Text with tabs or semicolons is seldom about anything else; a comma may be a decimal mark.
const SEPARATORS = ["\t", ";", /\s{2,}/, /,?\s+/, ","];

// No character can be read by two parts of it: a long text takes no longer than its length.
const NUMBER = /^[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?$/i;
export const plain = (text) => text.trim().replaceAll("\u2212", "-");
export const isNumber = (text) => NUMBER.test(plain(text));
export const numberOf = (text) => (isNumber(text) ? Number(plain(text).replace(",", ".")) : NaN);

// The key of a column as in ml/tables/headers.py; both sides are folded here, since Python folds a few letters in its own way.
export function keyOf(header) {
  const title = header.trim().replace(/^(.*\S)\s*[([][^()[\]]*[)\]]$/s, "$1").normalize("NFC");
  const folded = title.toUpperCase().toLowerCase().replaceAll("ς", "σ");
  return folded.replace(/[^\p{L}\p{N}_]+/gu, "_").replace(/^_+|_+$/g, "");
}

// What was pasted is a row, but not surely one of this model: `message` is the name of the sentence that says why.
export class Refusal extends Error {
  constructor(name, values) {
    super(name);
    this.values = values;
  }
}

function refuse(name, values) {
  throw new Refusal(name, values);
}

// The values of a pasted row, in the order of the features, or nothing: anything else is pasted as ever.
//
// Values go by their names where there are some: the keys of JSON, or a header line above the row. Others go by the
// order of the features, `{ key, title, low, high }` each.
export function rowIn(text, features, labels) {
  const json = jsonIn(text.slice(0, MOST_CHARACTERS));
  if (json) return inJSON(json, features, labels);
  const lines = text.slice(0, MOST_CHARACTERS).split(/[\r\n]+/).filter((line) => line.trim()).slice(0, MOST_LINES);
  let refusal = null;
  for (const separator of SEPARATORS) {
    try {
      const row = inLines(lines, separator, features, labels);
      if (row) return row;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      refusal ??= error;
    }
  }
  if (refusal) throw refusal;
  return null;
}

function jsonIn(text) {
  try {
    return /^\s*[[{]/.test(text) ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

// A sample, or a request of one, or the first of many.
function inJSON(json, features, labels) {
  const isObject = (value) => typeof value === "object" && value !== null;
  if (Array.isArray(json)) return isObject(json[0]) ? inJSON(json[0], features, labels) : inOrder(json.map(String), features, labels);
  const inner = json.sample ?? json.samples;
  if (isObject(inner)) return inJSON(inner, features, labels);
  return byName(Object.keys(json), Object.values(json).map(String), features);
}

function inLines(lines, separator, features, labels) {
  const [first, second] = lines.map((line) => cellsIn(line, separator)).filter((cells) => cells.length > 1);
  if (!first) return null;
  const isRow = (cells) => cells?.filter(isNumber).length > 1;
  if (second && !columnsOf(first, features).some((columns) => columns.length !== 1)) {
    // Tables that are printed have no name above the numbers of their rows.
    if (separator instanceof RegExp && second.length === first.length + 1) second.shift();
    if (second.length !== first.length) refuse("width", { found: second.length, wanted: first.length });
    return byName(first, second, features);
  }
  if (isRow(first)) {
    // "5,1" is one number. "5,1,3,5" may be two numbers or four.
    const isUnclear = separator === "," && !first.some((cell) => cell.includes("."));
    if (isUnclear && (isNumber(first.join(",")) || features.length === 1)) return null;
    if (isUnclear && first.length >= 2 * features.length) refuse("commas");
    return inOrder(first, features, labels);
  }
  return isRow(second) ? byName(first, second, features) : null;
}

// A quote opens a cell only at its start, and is doubled inside.
function cellsIn(line, separator) {
  if (separator instanceof RegExp) return line.trim().split(separator).map((cell) => cell.replace(/^"(.*)"$/, "$1"));
  const cell = new RegExp(`${separator} *(?:"((?:[^"]|"")*)" *(?![^${separator}])|([^${separator}]*))`, "g");
  return Array.from((separator + line).matchAll(cell), ([, quoted, bare]) => (quoted?.replaceAll('""', '"') ?? bare).trim());
}

// Where the names have each feature: by its key as it is, else as a header writes its key or its title.
function columnsOf(names, features) {
  const places = [...names.keys()];
  const exact = Map.groupBy(places, (place) => names[place]);
  const folded = Map.groupBy(places, (place) => keyOf(names[place]));
  return features.map(({ key, title }) => exact.get(key) ?? folded.get(keyOf(key)) ?? folded.get(keyOf(title)) ?? []);
}

const namesOf = (features) => [...features.slice(0, 5).map(({ title }) => title), ...(features.length > 5 ? ["…"] : [])].join(", ");

function byName(names, cells, features) {
  const columns = columnsOf(names, features);
  const lacking = features.filter((_, index) => !columns[index].length);
  if (lacking.length) refuse("lacks", { names: namesOf(lacking) });
  const times = Map.groupBy(columns.flat(), (place) => place);
  const twice = features.filter((_, index) => columns[index].length > 1 || times.get(columns[index][0]).length > 1);
  if (twice.length) refuse("twice", { names: namesOf(twice) });
  const values = columns.map(([place]) => cells[place]);
  const wrong = values.findIndex((value) => !isNumber(value));
  if (wrong >= 0) refuse("wrong", { value: values[wrong].slice(0, 40), name: features[wrong].title });
  return values;
}

// As many numbers side by side as there are features. What may stand beside them: words, the number of the row before
// them, a label that is a number after them. Which number is which, the training ranges have to say beyond doubt.
function inOrder(cells, features, labels) {
  const wanted = features.length;
  const found = cells.filter(isNumber).length;
  if (found < wanted) refuse("few", { found, wanted });
  const starts = [];
  for (let index = 0, run = 0; index < cells.length; index++) {
    run = isNumber(cells[index]) ? run + 1 : 0;
    if (run >= wanted) starts.push(index + 1 - wanted);
  }
  const fits = (start) => features.every(({ low, high }, index) => {
    const number = numberOf(cells[start + index]);
    return low <= number && number <= high;
  });
  const [start, another] = starts.length > 1 && starts.length < 4 ? starts.filter(fits) : starts;
  const before = cells.slice(0, start).filter(isNumber);
  const after = cells.slice(start + wanted).filter(isNumber);
  const isRowNumber = (text) => /^\d+$/.test(text);
  const isClear = start !== undefined && another === undefined && before.length < 2 && before.every(isRowNumber)
    && after.length < 2 && after.every((text) => labels.includes(text));
  if (!isClear) refuse("unclear", { wanted });
  return cells.slice(start, start + wanted);
}
