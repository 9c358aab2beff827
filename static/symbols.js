// The rows of a file on the map: a symbol for each one that the page has, drawn anew when the map's scales change.

import { prediction } from "./answer.js";
import { fields } from "./form.js";
import { symbolOf } from "./messages.js";

const REACH_PX = { mouse: 7, touch: 16 }; // of a symbol
const MAP_WIDTH = 400; // of the picture that the canvas lies upon
// As in web/page/axes.py.
const SPREAD = 0.7;
const [ACROSS_STEP, UP_STEP] = [0.7548776662, 0.569840291];

const canvas = document.getElementById("file-points");
const handle = document.getElementById("map-handle");

let drawn = ""; // the scales and rows that are on the canvas
let symbols = []; // where: x, y, and the row

export function drawSymbols(run) {
  if (!canvas) return;
  const map = prediction.querySelector(".map")?.dataset;
  const seen = [map && [map.x, map.xLow, map.xHigh, map.y, map.yLow, map.yHigh], run.changes].join();
  if (seen === drawn) return;
  forgetSymbols();
  drawn = seen;
  if (!map || !run.model) return;
  const context = canvas.getContext("2d");
  const [left, top, width, height] = map.plot.split(" ").map(Number);
  const share = (value, low, high) => Math.min(Math.max((value - low) / (high - low), 0), 1);
  const [x, y] = [map.x, map.y].map((key) => fields.findIndex((field) => field.key === key));
  const style = getComputedStyle(canvas);
  const scale = canvas.width / MAP_WIDTH;
  context.globalAlpha = 0.7;
  // Those that need attention on top.
  for (const [index, row] of [...[...run.listed.values()].flat(), ...run.wrong].entries()) {
    // Rows with the same word are spread over its band, as on the map itself.
    const placeOf = (column, step) =>
      fields[column].positionOf(row.cells[column]) + (fields[column].choices ? SPREAD * (((index * step) % 1) - 0.5) : 0);
    if (!row.cells.length) continue;
    const [right, up] = [placeOf(x, ACROSS_STEP), placeOf(y, UP_STEP)];
    if (Number.isNaN(right + up)) continue; // no value, or one that the map does not have
    const across = left + width * share(right, map.xLow, map.xHigh);
    const down = top + height * (1 - share(up, map.yLow, map.yHigh));
    const symbol = new Path2D(symbolOf(run.model, row));
    symbols.push([across, down, row]);
    context.fillStyle = context.strokeStyle = row.errors ? style.getPropertyValue("--wrong") : style.color;
    context.setTransform(scale, 0, 0, scale, scale * across, scale * down);
    context.fill(symbol);
    context.stroke(symbol);
  }
}

export function forgetSymbols() {
  drawn = "";
  symbols = [];
  canvas?.getContext("2d").reset();
}

function rowAt({ clientX, clientY, pointerType }) {
  const { left, top, width } = canvas.getBoundingClientRect();
  const scale = MAP_WIDTH / width;
  const far = ([x, y]) => Math.hypot(x - (clientX - left) * scale, y - (clientY - top) * scale);
  const [nearest] = symbols.toSorted((a, b) => far(a) - far(b));
  return nearest && far(nearest) < scale * (REACH_PX[pointerType] ?? REACH_PX.mouse) ? nearest[2] : null;
}

// A row's symbol is pressed, and not the map below it; a finger may drag from there.
export function onPress(pick) {
  const press = (event) => {
    const row = event.target === handle && (event.detail || event.type !== "click") && rowAt(event);
    handle.toggleAttribute("data-row", Boolean(row));
    if (!row || event.type === "pointermove" || (event.type === "pointerdown" && event.pointerType === "touch")) return;
    event.stopPropagation();
    if (event.type === "click") pick(row);
  };
  for (const type of ["pointerdown", "pointermove", "click"]) handle?.parentElement.addEventListener(type, press, { capture: true });
}
