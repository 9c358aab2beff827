// The map: its scales come with every answer, the handle above it and the choice of its axes stay.

import { step } from "./address.js";
import { prediction } from "./answer.js";
import { changed, fieldOf, selects } from "./form.js";
import * as gestures from "./gestures.js";

const handle = document.getElementById("map-handle");
const ARROWS = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowDown: ["y", -1], ArrowUp: ["y", 1] };

function moveTo(map, across, up) {
  for (const [axis, share] of [["x", across], ["y", up]]) {
    const [low, high] = ["Low", "High"].map((name) => Number(map[axis + name]));
    fieldOf(map[axis]).putNumber(low + Math.min(Math.max(share, 0), 1) * (high - low));
  }
  changed();
}

function drag(event) {
  const map = prediction.querySelector(".map");
  if (!map) return;
  const box = handle.getBoundingClientRect();
  const [left, top, width, height] = map.dataset.plot.split(" ");
  const x = ((event.clientX - box.left) / box.width) * map.viewBox.baseVal.width;
  const y = ((event.clientY - box.top) / box.height) * map.viewBox.baseVal.height;
  moveTo(map.dataset, (x - left) / width, 1 - (y - top) / height);
}

handle?.addEventListener("pointerdown", (event) => {
  if (!gestures.begin(event)) return;
  handle.setPointerCapture(event.pointerId);
  drag(event);
});
handle?.addEventListener("pointermove", (event) => {
  if (gestures.isDragged(event)) drag(event);
});
handle?.addEventListener("click", (event) => {
  if (!gestures.isTouched || !event.detail) return; // a key on the button, or a mouse that has already done it
  step();
  drag(event);
});
handle?.addEventListener("keydown", (event) => {
  const [axis, direction] = ARROWS[event.key] ?? [];
  const map = prediction.querySelector(".map");
  if (!axis || !map) return;
  event.preventDefault();
  fieldOf(map.dataset[axis]).move(direction * (event.shiftKey ? 10 : 1));
  changed();
});

for (const select of selects) {
  select.addEventListener("input", () => {
    // A feature cannot be on both axes: the other one takes what was here.
    const other = selects.find((one) => one !== select);
    const map = prediction.querySelector(".map")?.dataset;
    if (map && other.value === select.value) other.value = select.name === "map-x" ? map.x : map.y;
    changed();
  });
}
