// Numbers, names of columns, and rows: as people write, copy and paste them. Knows no page.

const MOST_CHARACTERS = 2 ** 20; // of a pasted text
const MOST_LINES = 20; // of it, until one has values
// Text with tabs or semicolons is seldom about anything else; a comma may be a decimal mark.
const SEPARATORS = ["\t", ";", /\s{2,}/, /,?\s+/, ","];

// No character can be read by two parts of it: a long text takes no longer than its length.
const NUMBER = /^[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?$/i;
export const plain = (text) => text.trim().replaceAll("\u2212", "-");
const isNumber = (text) => NUMBER.test(plain(text));
const numberOf = (text) => (isNumber(text) ? Number(plain(text).replace(",", ".")) : NaN);

// The number in a text for a column with these marks and this unit, as ml/model/values.py reads it.
export function numberIn(text, { unit, thousands, decimal }) {
  let bare = text.trim();
  if (unit && !isNumber(bare)) {
    if (bare.endsWith(unit)) bare = bare.slice(0, -unit.length).trim();
    else if (bare.startsWith(unit)) bare = bare.slice(unit.length).trim();
  }
  if (thousands && bare.includes(thousands)) {
    const [first, ...threes] = bare.split(decimal)[0].replace(/^[+\-\u2212]/, "").split(thousands);
    if (!first || first.length > 3 || threes.some((three) => three.length !== 3)) return NaN;
    bare = bare.replaceAll(thousands, "");
  }
  return numberOf(bare);
}

// The key of a column as in ml/tables/headers.py; both sides are folded here, since Python folds a few letters in its own way.
function keyOf(header) {
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

// The values of a pasted row, in the order of the fields, or nothing: anything else is pasted as ever. Of several rows
// it is the first, and `rows` is their number.
//
// Values go by their names where there are some: the keys of JSON, or a header line above the row. Others go by the
// order of the fields, `{ key, title, header, choices, gap, low, high, fits, mayBe }` each.
export function rowIn(text, fields, labels) {
  const json = jsonIn(text.slice(0, MOST_CHARACTERS));
  if (json) return inJSON(json, fields, labels);
  const isValue = valuesOf(fields);
  if (isValue(text.trim())) return null; // one value, whatever it looks like
  const lines = text.slice(0, MOST_CHARACTERS).split(/[\r\n]+/).filter((line) => line.trim());
  let refusal = null;
  for (const separator of SEPARATORS) {
    try {
      const row = inLines(lines, separator, fields, labels);
      if (row) return row;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      refusal ??= error;
    }
  }
  if (refusal) throw refusal;
  // One below the other.
  const cells = lines.map((line) => line.trim());
  const isCell = (cell) => isValue(cell) || labels.includes(cell);
  return cells.length > 1 && cells.every(isCell) ? inOrder(cells, fields, labels) : null;
}

function jsonIn(text) {
  try {
    return /^\s*[[{]/.test(text) ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

// A sample, or a request of one, or the first of many.
function inJSON(json, fields, labels) {
  const isObject = (value) => typeof value === "object" && value !== null;
  if (Array.isArray(json)) {
    if (isObject(json[0])) return counted(inJSON(json[0], fields, labels), json.length);
    return inOrder(json.map((value, index) => textOf(value, fields[index])), fields, labels);
  }
  const inner = json.sample ?? json.samples;
  if (isObject(inner)) return inJSON(inner, fields, labels);
  return byName(Object.keys(json), Object.values(json), fields);
}

const BOOLEANS = { false: ["false", "no", "f", "n", "0"], true: ["true", "yes", "t", "y", "1"] };

// A value of JSON as it is typed into a field; a cell of a table is text already.
function textOf(value, field) {
  if (value === null) return "";
  if (typeof value === "boolean") {
    return field?.choices?.find((choice) => BOOLEANS[value].includes(choice.toLowerCase())) ?? String(value);
  }
  return typeof value === "number" && field?.format.thousands ? String(value).replace(".", field.format.decimal) : String(value);
}

// A word as the service compares it: people see no other difference.
export const wordOf = (text) => text.normalize("NFC").trim().replace(/\s+/g, " ");

const counted = (values, rows) => values && Object.assign(values, { rows });

// Whether a cell may be a value of any of the fields.
function valuesOf(fields) {
  const words = new Set(fields.flatMap(({ choices }) => choices?.map(wordOf) ?? []));
  const formats = fields.filter(({ choices, format }) => !choices && format?.thousands).map(({ format }) => format);
  const isFormatted = (cell) => formats.some((format) => !Number.isNaN(numberIn(cell, format)));
  return (cell) => isNumber(cell) || words.has(wordOf(cell)) || isFormatted(cell);
}

function inLines(lines, separator, fields, labels) {
  const [first, second] = lines.slice(0, MOST_LINES).map((line) => cellsIn(line, separator)).filter((cells) => cells.length > 1);
  if (!first) return null;
  const isWhole = ({ length }) => ["\t", ";"].includes(separator) && length === fields.length;
  const isRow = (cells) => cells && (cells.filter(valuesOf(fields)).length > 1 || isWhole(cells));
  const rowsOf = ({ length }) => lines.filter((line) => cellsIn(line, separator).length === length).length;
  if (second && !columnsOf(first, fields).some((columns) => columns.length !== 1)) {
    // Tables that are printed have no name above the numbers of their rows.
    const rows = rowsOf(second) - (second.length === first.length);
    if (separator instanceof RegExp && second.length === first.length + 1) second.shift();
    if (second.length !== first.length) refuse("width", { found: second.length, wanted: first.length });
    return counted(byName(first, second, fields), rows);
  }
  if (isRow(first)) {
    // "5,1" is one number. "5,1,3,5" may be two numbers or four.
    const isUnclear = separator === "," && !first.some((cell) => isNumber(cell) && cell.includes("."));
    if (isUnclear && (isNumber(first.join(",")) || fields.length === 1)) return null;
    if (isUnclear && first.length >= 2 * fields.length) refuse("commas");
    return counted(inOrder(first, fields, labels), rowsOf(first));
  }
  return isRow(second) ? byName(first, second, fields) : null;
}

// A quote opens a cell only at its start, and is doubled inside.
function cellsIn(line, separator) {
  if (separator instanceof RegExp) return line.trim().split(separator).map((cell) => cell.replace(/^"(.*)"$/, "$1"));
  const cell = new RegExp(`${separator} *(?:"((?:[^"]|"")*)" *(?![^${separator}])|([^${separator}]*))`, "g");
  return Array.from((separator + line).matchAll(cell), ([, quoted, bare]) => (quoted?.replaceAll('""', '"') ?? bare).trim());
}

// Where the names have each feature: by its key or its header as they are, else as a header writes its key or its title.
function columnsOf(names, fields) {
  const places = [...names.keys()];
  const exact = Map.groupBy(places, (place) => names[place]);
  const folded = Map.groupBy(places, (place) => keyOf(names[place]));
  return fields.map(
    ({ key, header, title }) =>
      exact.get(key) ?? exact.get(header) ?? folded.get(keyOf(key)) ?? folded.get(keyOf(title)) ?? [],
  );
}

const namesOf = (fields) => [...fields.slice(0, 5).map(({ title }) => title), ...(fields.length > 5 ? ["…"] : [])].join(", ");

function byName(names, cells, fields) {
  const columns = columnsOf(names, fields);
  const lacking = fields.filter((_, index) => !columns[index].length);
  if (lacking.length) refuse("lacks", { names: namesOf(lacking) });
  const times = Map.groupBy(columns.flat(), (place) => place);
  const twice = fields.filter((_, index) => columns[index].length > 1 || times.get(columns[index][0]).length > 1);
  if (twice.length) refuse("twice", { names: namesOf(twice) });
  const values = columns.map(([place], index) => textOf(cells[place], fields[index]));
  const [wrong] = misfits(values, fields);
  return wrong ? refuse(...wrong) : values;
}

// Why each value that may not stand in its field may not: the name of a sentence, and its values.
function misfits(values, fields) {
  const wrong = fields.map((field, index) => [field, values[index]]).filter(([field, value]) => !field.mayBe(value));
  return wrong.map(([{ title: name }, value]) => [value.trim() ? "wrong" : "empty", { value: value.slice(0, 40), name }]);
}

// Of the places where a row may start, that with the fewest wrong values says which one is wrong.
function refuseValue(cells, fields, starts) {
  const wrong = starts.map((start) => misfits(cells.slice(start), fields)).sort((a, b) => a.length - b.length);
  if (wrong[0].length && wrong[0].length !== wrong[1]?.length) refuse(...wrong[0][0]);
}

// As many values side by side as there are features, each of which may stand in its field. What may stand beside them:
// words, the number of the row before them, and after them the target, a label that is a number or the quantity. Which
// value is which, the words and the training ranges have to say beyond doubt.
function inOrder(cells, fields, labels) {
  const wanted = fields.length;
  if (cells.length < wanted) refuse("few", { found: cells.length, wanted });
  const starts = [...Array(cells.length - wanted + 1).keys()];
  const every = (start, is) => fields.every((field, index) => is(field, cells[start + index]));
  const isInside = ({ choices, low, high, format }, cell) => choices || !isNumber(cell) || (low <= numberIn(cell, format) && numberIn(cell, format) <= high);
  let possible = starts.filter((start) => every(start, (field, cell) => field.fits(cell)));
  // A row of another place may have words that are new; its numbers are where they belong.
  if (!possible.length && cells.length === wanted && every(0, (field, cell) => field.mayBe(cell))) possible = [0];
  if (!possible.length) refuseValue(cells, fields, starts);
  const [start, another] = possible.length > 1 && possible.length < 4 ? possible.filter((at) => every(at, isInside)) : possible;
  const before = cells.slice(0, start).filter(isNumber);
  const after = cells.slice(start + wanted).filter(isNumber);
  const isRowNumber = (text) => /^\d+$/.test(text);
  const isClear = start !== undefined && another === undefined && before.length < 2 && before.every(isRowNumber)
    && after.length < 2 && after.every((text) => !labels.length || labels.includes(text));
  if (!isClear) refuse("unclear", { wanted });
  return cells.slice(start, start + wanted);
}
