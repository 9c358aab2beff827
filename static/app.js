// What htmx does not do: errors beside their inputs, one spoken line, the address, and coming back when the service was
// gone; sliders, steps, pasted rows and the map, which all end in the text fields. The prediction itself is htmx's: see
// the form's hx-* attributes.

import { fieldsOf } from "./fields.js";
import { Refusal, rowIn } from "./text.js";

const QUIET_MS = 700; // after the last key, before anything is spoken or the address changes
const LATE_MS = 1000; // an answer that takes longer leaves an old one on the screen: say so
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;
const ASK_MS = 20_000; // an idle page asks this often whether the model is still the same
const COPIED_MS = 1500; // a button says that it has copied
const SLOP_PX = 8; // a finger that rests moves no farther

const form = document.getElementById("measurements");
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
const fields = fieldsOf(form);
const selects = [...document.querySelectorAll(".axis select")];
const goal = document.getElementById("goal"); // of a quantity
const threshold = () => document.getElementById("threshold"); // of two labels; replaced with the model
const handle = document.getElementById("map-handle");
const prediction = document.getElementById("prediction");
const connection = document.getElementById("connection");
const announcement = document.getElementById("announcement");
const code = document.getElementById("code");
const refusal = document.getElementById("refusal"); // of what was pasted

const query = (entries) => new URLSearchParams(entries).toString();
const typed = () => query(new FormData(form));
const sample = () => query(fields.map(({ key, text }) => [key, text]));
const fieldOf = (key) => fields.find((field) => field.key === key);
const fieldAt = (element) => fields.find((field) => field.element === element.closest(".field"));

// The input that the prediction on the screen belongs to; at first, what the server filled in.
let answered = (() => {
  const defaults = new FormData(form);
  for (const { key, initial } of fields) defaults.set(key, initial);
  for (const select of selects) defaults.set(select.name, select.querySelector("[selected]").value);
  for (const view of [goal, threshold()]) if (view) defaults.set(view.name, view.defaultValue);
  return query(defaults);
})();
const views = () => [...selects, goal, threshold()].filter(Boolean); // options of the view
let lastAnswer = prediction.querySelector("[data-state=answer]");
let isQuiet = true;
let isSettled = false; // whether the next request is for what someone has entered
let settled = sample(); // the last one
let quietTimer = 0;
let lateTimer = 0;
let retryTimer = 0;
let shownVersion = document.getElementById("version").textContent;
let retryMs = FIRST_RETRY_MS;

// Fields. Whatever changes them ends in `changed`, once.

function changed() {
  form.dispatchEvent(new Event("input"));
}

// What is done in one stroke is undone by the browser's Back.
function step() {
  settleNow();
  history.pushState(null, "", location.href);
}

function fill(parameters) {
  for (const field of fields) field.put(parameters.get(field.key) ?? field.start);
  for (const view of views()) view.value = parameters.get(view.name) ?? view.dataset.start;
  showThreshold();
  showPin(parameters.get(pin.name));
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
const UP_OR_DOWN = { ArrowUp: 1, ArrowDown: -1 };
for (const field of fields) {
  const stepOnKey = (directions) => (event) => {
    const direction = directions[event.key];
    if (!direction || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    field.move(direction * (event.shiftKey ? 10 : event.altKey ? 0.1 : 1));
    changed();
  };
  if (field.slider) field.control.addEventListener("keydown", stepOnKey(UP_OR_DOWN));
  field.slider?.addEventListener("keydown", stepOnKey({ ...UP_OR_DOWN, ArrowRight: 1, ArrowLeft: -1 }));
  field.control.addEventListener("paste", paste);
  field.toggle?.addEventListener("click", () => {
    step();
    field.setUnknown();
    changed();
  });
}
for (const select of selects) {
  select.addEventListener("input", () => {
    // A feature cannot be on both axes: the other one takes what was here.
    const other = selects.find((one) => one !== select);
    const map = prediction.querySelector(".map")?.dataset;
    if (map && other.value === select.value) other.value = select.name === "map-x" ? map.x : map.y;
    changed();
  });
}

goal?.addEventListener("input", changed);

function enter(row) {
  step();
  for (const [index, field] of fields.entries()) field.paste(row[index]);
  changed();
}

form.addEventListener("row", ({ detail }) => enter(detail)); // of a file

// A threshold between two labels that is tried on this page.
document.addEventListener("input", ({ target }) => {
  if (target !== threshold()) return;
  if (gesture?.isOpen) target.value = gesture.viewed.at(-1);
  else changed();
  showThreshold();
});
document.addEventListener("change", ({ target }) => target === threshold() && settleNow());

function showThreshold() {
  const slider = threshold();
  if (!slider) return;
  const { start, text } = slider.dataset;
  const percent = slider.value === start ? text : text.replace(/^[\d.,]+/, Math.round(100 * slider.value));
  slider.nextElementSibling.textContent = percent;
  slider.setAttribute("aria-valuetext", percent);
}

// A pasted row fills all fields, or none: what may be read in two ways is refused.
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
for (const name of ["input", "focusout"]) form.addEventListener(name, hideRefusal);

document.addEventListener("click", (event) => {
  const example = event.target.closest("[data-example]");
  const change = event.target.closest("[data-set]");
  const copy = event.target.closest("[data-copy]");
  const usual = event.target.closest("#usual-threshold");
  if (event.target.closest("[data-option]")) settleNow(); // these links are to have what was just typed
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (example || change || usual) {
    event.preventDefault();
    step();
    if (usual) threshold().value = threshold().dataset.start;
    else if (change) fieldOf(change.dataset.set).put(change.dataset.value);
    else {
      const sample = new URLSearchParams(example.search);
      for (const field of fields) field.put(sample.get(field.key) ?? field.start);
    }
    showThreshold();
    changed();
  } else if (copy) navigator.clipboard.writeText(textToCopy(copy)).then(() => showCopied(copy));
});

// Of many fields, those whose name has what is typed; the others are out of sight, but are sent as before.
const find = document.getElementById("find");
const more = form.querySelector(".more");
let wasOpen = null; // before the search

function findFields() {
  const count = fields.filter((field) => field.find(find.value)).length;
  if (more) {
    wasOpen ??= more.open;
    more.open = Boolean(find.value) || wasOpen;
    more.toggleAttribute("data-found", Boolean(find.value));
    if (!find.value) wasOpen = null;
  }
  const output = document.getElementById("found");
  output.textContent = find.value ? output.dataset.some.replace("{count}", count).replace("{all}", fields.length) : "";
}

for (const name of ["input", "change"]) find?.addEventListener(name, (event) => event.stopPropagation()); // no value
find?.addEventListener("input", findFields);
find?.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    find.value = "";
    findFields();
  } else if (event.key === "Enter" || event.key === "ArrowDown") fieldAt(form.querySelector(".field:not([hidden])"))?.focus();
  else return;
  event.preventDefault();
});

// A pinned sample is kept in the form, and so in the address; the service compares it with the present one.
const pinButton = document.getElementById("pin");
const pin = document.getElementById("pinned-sample");
pinButton.hidden = false;
pinButton.addEventListener("click", () => {
  step();
  showPin(pin.disabled ? sample() : null);
  changed();
});

function showPin(pinned) {
  pin.disabled = !pinned;
  pin.value = pinned ?? "";
  pinButton.textContent = pinButton.dataset[pinned ? "unpin" : "pin"];
}

// A program; or the address; or the answer and the values that it is for, as one writes them in a mail.
function textToCopy({ dataset, parentElement }) {
  if (!dataset.share) return parentElement.querySelector("code").textContent;
  settleNow();
  if (dataset.share === "link") return location.href;
  const values = fields.map(({ title, text, unit }) => `${title} ${text} ${unit}`.trim());
  return `${prediction.firstElementChild.dataset.title}: ${values.join(", ")}\n${location.href}`;
}

function showCopied(button) {
  button.dataset.text ??= button.textContent;
  button.textContent = button.dataset.copy;
  say(button.dataset.copy);
  setTimeout(() => (button.textContent = button.dataset.text), COPIED_MS);
}
window.addEventListener("popstate", () => {
  hideRefusal();
  fill(new URLSearchParams(location.search));
  refresh();
});

// The map: its scales come with every fragment, the handle above it stays.

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
  if (!beginGesture(event) || gesture.isOpen) return;
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
  const [axis, direction] = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowDown: ["y", -1], ArrowUp: ["y", 1] }[event.key] ?? [];
  const map = prediction.querySelector(".map");
  if (!axis || !map) return;
  event.preventDefault();
  fieldOf(map.dataset[axis]).move(direction * (event.shiftKey ? 10 : 1));
  changed();
});

// Gestures on the map and on sliders: one step each. What a finger wants is open until it has moved: upwards it scrolls
// the page, which must change nothing; sideways it drags. A tap on the map is known by its click, which one that ends a scroll does not have; on a slider it
// would be found by chance while scrolling, so it does nothing.

let gesture = null;
let isTouched = false;

function beginGesture(event) {
  if (event.button || !event.isPrimary) return false;
  isTouched = event.pointerType === "touch";
  endGesture();
  settleNow();
  const texts = fields.map((field) => field.text);
  const slid = fields.map((field) => field.slider?.value);
  const viewed = views().map((view) => view.value);
  const { pointerId, clientX: x, clientY: y } = event;
  gesture = { pointerId, x, y, texts, slid, viewed, isOpen: isTouched };
  return true;
}

function isDragged({ pointerId, clientX, clientY }) {
  if (!gesture || gesture.pointerId !== pointerId) return false;
  const [across, up] = [Math.abs(clientX - gesture.x), Math.abs(clientY - gesture.y)];
  if (across > SLOP_PX && across >= up) gesture.isOpen = false;
  return !gesture.isOpen;
}

function endGesture() {
  if (!gesture) return;
  // The address is still that of before.
  if (isMoved(gesture)) history.pushState(null, "", location.href);
  gesture = null;
  settleNow();
}

function isMoved({ texts, viewed }) {
  return fields.some(({ text }, index) => text !== texts[index]) || views().some(({ value }, index) => value !== viewed[index]);
}

// The browser has taken the gesture for something else.
function cancelGesture() {
  const { texts, slid, viewed } = gesture;
  const isChanged = isMoved(gesture);
  for (const [index, view] of views().entries()) view.value = viewed[index];
  showThreshold();
  for (const [index, field] of fields.entries()) {
    field.put(texts[index]);
    if (field.slider) field.slider.value = slid[index];
  }
  gesture = null;
  if (isChanged) changed();
}

document.addEventListener("pointerdown", (event) => event.target.type === "range" && beginGesture(event));
document.addEventListener("pointermove", isDragged);
for (const [name, end] of [["pointerup", endGesture], ["pointercancel", cancelGesture]]) {
  window.addEventListener(name, ({ pointerId }) => gesture && gesture.pointerId === pointerId && end());
}

// What is said beside the fields and aloud.

function showMessages() {
  goal?.setAttribute("aria-invalid", Boolean(prediction.querySelector("[data-goal=wrong]")));
  const messages = new Map();
  for (const item of prediction.querySelectorAll("[data-feature]")) messages.set(item.dataset.feature, item.dataset);
  for (const field of fields) field.show(messages.get(field.key));
}

function say(text) {
  if (announcement.textContent !== text) announcement.textContent = text;
}

function addressOf(entries) {
  // The map's usual axes, the usual goal and the model's threshold need not be named.
  const isUsual = (options) => options.every((option) => option.value === option.dataset.start);
  const unnamed = [...(isUsual(selects) ? selects : []), ...[goal, threshold()].filter((view) => view && isUsual([view]))];
  const named = [...entries].filter(([name]) => !unnamed.some((option) => option.name === name));
  return `./?${query(named)}`;
}

// Typing has paused: the address follows at once, the spoken line as soon as the answer is there.
function settle() {
  clearTimeout(quietTimer);
  if (gesture) return; // its end is one step
  window.removeEventListener("beforeunload", leave);
  isQuiet = true;
  history.replaceState(history.state, "", addressOf(new FormData(form)));
  for (const link of document.querySelectorAll("[data-option]")) {
    const entries = new FormData(form);
    entries.set(link.dataset.option, link.dataset.value);
    link.href = addressOf(entries);
  }
  if (code?.open) code.dispatchEvent(new Event("refresh"));
  speak();
}

function speak() {
  if (!isQuiet || answered !== typed()) return;
  const { title, spoken } = prediction.firstElementChild.dataset;
  document.title = [title, form.dataset.title].filter(Boolean).join(" · ");
  say(spoken);
  if (sample() === settled) return;
  settled = sample();
  isSettled = true;
  refresh();
}

function settleNow() {
  if (!isQuiet) settle();
}

// A reload asks for the address that was there before: what was typed since is kept for it.
const storage = (() => {
  try {
    return sessionStorage;
  } catch {
    return null; // the browser allows this page none
  }
})();

function leave() {
  const { href } = location;
  settle();
  storage?.setItem("typed", JSON.stringify([href, location.search]));
}

function resume() {
  const [href, search] = JSON.parse(storage?.getItem("typed") ?? "[]");
  storage?.removeItem("typed");
  if (href !== location.href || performance.getEntriesByType("navigation")[0].type !== "reload") return;
  fill(new URLSearchParams(search));
  settle();
}
resume();

// The service: late, gone, back, or with another model.

function refresh() {
  clearTimeout(retryTimer);
  retryTimer = 0;
  form.dispatchEvent(new Event("refresh"));
}

function markStale(text) {
  prediction.toggleAttribute("data-stale", true);
  connection.textContent = text;
}

function lose({ detail }) {
  markStale(connection.dataset.gone);
  say(connection.dataset.spoken);
  if (retryTimer) return;
  const askedMs = 1000 * detail.xhr?.getResponseHeader("Retry-After") || 0; // a longer timeout than 2 ** 31 - 1 is none
  retryTimer = setTimeout(refresh, Math.min(Math.max(retryMs, askedMs), 2 ** 31 - 1));
  retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
}

function retryNow() {
  if (retryTimer) refresh();
}

// The model was replaced. What belongs to it is replaced with it, if it has the same features; other ones need another
// form.
const isOurModel = (xhr) => [null, form.dataset.features].includes(xhr.getResponseHeader("X-Model-Features"));

async function renew(xhr) {
  const version = xhr.getResponseHeader("X-Model-Version") ?? shownVersion;
  if (version === shownVersion) return;
  const before = shownVersion;
  shownVersion = version; // once
  try {
    const response = await fetch(addressOf(new FormData(form)));
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (page.getElementById("measurements")?.dataset.features !== form.dataset.features) throw new Error("another page");
    for (const part of ["#card", ".examples", ".reserve", ".legend", ".threshold", "#version"])
      document.querySelector(part)?.replaceWith(page.querySelector(part));
    for (const field of fields) field.renew(page.getElementById(field.control.id).closest(".field"));
  } catch {
    shownVersion = before; // the next answer asks again
    return;
  }
  document.getElementById("renewed").hidden = false;
  refresh();
}

form.addEventListener("input", () => {
  isQuiet = false;
  clearTimeout(quietTimer);
  quietTimer = setTimeout(settle, QUIET_MS);
  // Whoever leaves before the pause comes back to what was typed. Later events are too late to change the address, and
  // a listener that stays would keep the page out of some browsers' back-forward cache.
  window.addEventListener("beforeunload", leave);
  if (!retryTimer) say(""); // the same words again are spoken only when they are new
});
form.addEventListener("change", settleNow);
form.addEventListener("submit", settle);

// Keys on the way to a value are no input of anyone: only what typing has settled on is compared with the training data.
form.addEventListener("htmx:configRequest", ({ detail }) => {
  if (!isSettled) detail.headers["X-Input"] = "unsettled";
  isSettled = false;
});
form.addEventListener("htmx:beforeSend", () => {
  lateTimer = setTimeout(markStale, LATE_MS, connection.dataset.late);
});
form.addEventListener("htmx:afterRequest", () => clearTimeout(lateTimer));
for (const failure of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) form.addEventListener(failure, lose);

prediction.addEventListener("htmx:beforeSwap", (event) => {
  // A proxy's login or error page comes with status 200 too.
  const isOurs = event.detail.serverResponse.includes("data-state=");
  event.detail.shouldSwap &&= isOurs;
  event.detail.isError ||= !isOurs;
  if (isOurs && !isOurModel(event.detail.xhr)) {
    event.detail.shouldSwap = false;
    markStale("");
    document.getElementById("reload").hidden = false;
    return;
  }
  // The same answer to the same sample: what is selected or focused in it stays.
  if (event.detail.shouldSwap && answered === query(event.detail.requestConfig.formData) && isShown(event.detail.serverResponse)) {
    event.detail.shouldSwap = false;
    receive(event);
  }
});
prediction.addEventListener("htmx:afterSwap", (event) => {
  keepLast();
  receive(event);
});

// The strips of the fields come with the reasons.
document.getElementById("why").addEventListener("htmx:afterSwap", ({ target }) => {
  const strips = target.querySelector("template");
  for (const strip of [...(strips?.content.children ?? [])]) document.getElementById(strip.id)?.replaceWith(strip);
  strips?.remove();
});

// While a value is half typed or wrong, the last answer stays in sight, muted.
function keepLast() {
  const shown = prediction.firstElementChild;
  if (shown.dataset.state === "answer") lastAnswer = shown;
  else if (lastAnswer) {
    const last = lastAnswer.cloneNode(true);
    for (const part of last.querySelectorAll(":scope > :is(.headline, .messages)")) part.remove();
    for (const name of Object.keys(last.dataset)) delete last.dataset[name];
    last.className = "last";
    last.inert = true;
    shown.append(last);
  }
}

function isShown(fragment) {
  const { firstElementChild } = new DOMParser().parseFromString(fragment, "text/html").body;
  const shown = prediction.firstElementChild.cloneNode(true);
  shown.querySelector(".last")?.remove();
  return firstElementChild.isEqualNode(shown);
}

function receive(event) {
  answered = query(event.detail.requestConfig.formData);
  clearTimeout(retryTimer);
  retryTimer = 0;
  retryMs = FIRST_RETRY_MS;
  prediction.toggleAttribute("data-stale", false);
  connection.textContent = "";
  document.getElementById("reload").hidden = true;
  renew(event.detail.xhr);
  showMessages();
  speak();
}

setInterval(() => {
  if (!document.hidden && isQuiet && !retryTimer) refresh();
}, ASK_MS);
window.addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => (document.hidden ? settleNow() : refresh()));
// Going back, a reload or autofill may bring inputs that the prediction on the screen does not belong to, or a page
// whose request was cut off.
window.addEventListener("pageshow", (event) => {
  hideRefusal();
  for (const field of fields) field.follow();
  if (event.persisted || answered !== typed()) refresh();
});
// Browsers give the clipboard to pages that came over TLS, or from this very machine.
for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;

// Predict a file: a module of its own, which is loaded with the first file.

const fileForm = document.getElementById("file");
const fileInput = document.getElementById("file-input");
document.getElementById("file-drop").hidden = false;

fileForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = fileInput.files;
  if (!file) return;
  // While the service is down the file stays chosen. Browsers keep a module that failed to load: another address is new.
  for (let ms = FIRST_RETRY_MS; fileInput.files[0] === file; ms = Math.min(2 * ms, LAST_RETRY_MS)) {
    const { begin } = await import(ms === FIRST_RETRY_MS ? "./file.js" : `./file.js?${Date.now()}`).catch(() => ({}));
    if (begin) return begin(file);
    document.getElementById("file-result").hidden = false;
    document.getElementById("file-cancel").hidden = true;
    document.getElementById("file-status").textContent = fileForm.dataset.lost;
    say(fileForm.dataset.lost);
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
});
fileInput.addEventListener("change", () => fileForm.requestSubmit());

// A file that misses the section must not replace the page.
const dropZone = fileForm.closest("section");
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    const isOver = dropZone.contains(event.target);
    dropZone.toggleAttribute("data-over", isOver && name === "dragover");
    if (name === "dragleave") return;
    event.preventDefault();
    event.dataTransfer.dropEffect = isOver ? "copy" : "none";
    if (name !== "drop" || !isOver || !event.dataTransfer.files.length) return;
    fileInput.files = event.dataTransfer.files;
    fileForm.requestSubmit();
  });
}
