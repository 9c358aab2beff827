// Gestures on the map and on sliders: one step each. What a finger wants is open until it has moved: upwards it scrolls
// the page, which must change nothing; sideways it drags. A tap on the map is known by its click, which one that ends a
// scroll does not have; on a slider it would be found by chance while scrolling, so it does nothing.

import { hold, release, settleNow, step } from "./address.js";
import { prediction } from "./answer.js";
import { changed, fieldAt, fieldOf, fields, form, selects, showThreshold, threshold, views } from "./form.js";

const SLOP_PX = 8; // a finger that rests moves no farther
const ARROWS = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowDown: ["y", -1], ArrowUp: ["y", 1] };

let isTouched = false; // by the last gesture
let gesture = null;

// Begin a gesture; return whether it may already act: a finger's may not until it has moved.
function begin(event) {
  if (event.button || !event.isPrimary) return false;
  isTouched = event.pointerType === "touch";
  end();
  settleNow();
  const texts = fields.map((field) => field.text);
  const slid = fields.map((field) => field.slider?.value);
  const viewed = views().map((view) => view.value);
  const { pointerId, clientX: x, clientY: y } = event;
  gesture = { pointerId, x, y, texts, slid, viewed, isOpen: isTouched };
  hold();
  return !gesture.isOpen;
}

function isDragged({ pointerId, clientX, clientY }) {
  if (!gesture || gesture.pointerId !== pointerId) return false;
  const [across, up] = [Math.abs(clientX - gesture.x), Math.abs(clientY - gesture.y)];
  if (across > SLOP_PX && across >= up) gesture.isOpen = false;
  return !gesture.isOpen;
}

function isMoved({ texts, viewed }) {
  return fields.some(({ text }, index) => text !== texts[index]) || views().some(({ value }, index) => value !== viewed[index]);
}

function end() {
  if (!gesture) return;
  // The address is still that of before.
  if (isMoved(gesture)) history.pushState(null, "", location.href);
  gesture = null;
  release();
  settleNow();
}

// The browser has taken the gesture for something else.
function cancel() {
  const { texts, slid, viewed } = gesture;
  const isChanged = isMoved(gesture);
  for (const [index, view] of views().entries()) view.value = viewed[index];
  showThreshold();
  for (const [index, field] of fields.entries()) {
    field.put(texts[index]);
    if (field.slider) field.slider.value = slid[index];
  }
  gesture = null;
  release();
  if (isChanged) changed();
}

document.addEventListener("pointerdown", (event) => event.target.type === "range" && begin(event));
document.addEventListener("pointermove", isDragged);
for (const [name, finish] of [["pointerup", end], ["pointercancel", cancel]]) {
  window.addEventListener(name, ({ pointerId }) => gesture && gesture.pointerId === pointerId && finish());
}

form.addEventListener(
  "input",
  (event) => {
    const { target } = event;
    const field = fieldAt(target);
    if (target.type === "range" && gesture?.isOpen) {
      // Browsers set a slider as soon as it is touched.
      event.stopImmediatePropagation();
      target.value = gesture.slid[fields.indexOf(field)];
    } else if (target.type === "range") field.slide();
    else field?.follow();
  },
  { capture: true }, // before htmx reads the fields
);

// A threshold between two labels that is tried on this page.
document.addEventListener("input", ({ target }) => {
  if (target !== threshold()) return;
  if (gesture?.isOpen) target.value = gesture.viewed.at(-1);
  else changed();
  showThreshold();
});
document.addEventListener("change", ({ target }) => target === threshold() && settleNow());

// The map: its scales come with every answer, the handle above it and the choice of its axes stay.

const handle = document.getElementById("map-handle");

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
  if (!begin(event)) return;
  handle.setPointerCapture(event.pointerId);
  drag(event);
});
handle?.addEventListener("pointermove", (event) => {
  if (isDragged(event)) drag(event);
});
handle?.addEventListener("click", (event) => {
  if (!isTouched || !event.detail) return; // a key on the button, or a mouse that has already done it
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
