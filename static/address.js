// The address keeps what is in the form: for whoever copies it, for a reload and for the browser's Back. It follows when
// typing pauses, and so does the spoken line.

import { answered, check, isRetrying, prediction, refresh, say } from "./answer.js";
import { addressOf, fields, fill, form, markExample, texts, typed } from "./form.js";

const QUIET_MS = 700; // after the last key, before anything is spoken or the address changes
const ASK_MS = 20_000; // an idle page asks this often whether the model is still the same

const code = document.getElementById("code");

let isQuiet = true;
let quietTimer = 0;
let isHeld = false; // by a gesture, whose end is one step
let isExample = false; // whether the fields have an example, which nobody has entered
let counted = texts(); // what nobody has entered, or was counted as entered

// What is done in one stroke is undone by the browser's Back.
export function step() {
  settleNow();
  history.pushState(null, "", location.href);
}

export function settleNow() {
  if (!isQuiet) settle();
}

export function hold() {
  isHeld = true;
}

export function release() {
  isHeld = false;
}

// Typing has paused: the address follows at once, the spoken line as soon as the answer is there.
function settle() {
  clearTimeout(quietTimer);
  if (isHeld) return;
  window.removeEventListener("beforeunload", leave);
  isQuiet = true;
  history.replaceState(history.state, "", addressOf(new FormData(form)));
  for (const link of document.querySelectorAll("[data-option]")) {
    const entries = new FormData(form);
    entries.set(link.dataset.option, link.dataset.value);
    link.href = addressOf(entries);
  }
  isExample = markExample();
  if (code?.open) code.dispatchEvent(new Event("refresh"));
  speak();
}

function speak() {
  if (!isQuiet || answered !== typed()) return;
  const { title, spoken } = prediction.firstElementChild.dataset;
  document.title = [title, form.dataset.title].filter(Boolean).join(" · ");
  say(spoken);
  if (isExample) counted = texts();
  else if (entered().length) check();
}

// The places of the values that someone has entered and that the service has not counted yet. Keys on the way to a value
// are no input of anyone: only what typing has settled on is compared with the training data.
function entered() {
  const isAnswer = prediction.firstElementChild.dataset.state === "answer" && answered === typed();
  if (!isQuiet || !isAnswer) return [];
  return fields.flatMap(({ text }, index) => (text === counted[index] ? [] : [index + 1]));
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

form.addEventListener("input", () => {
  isQuiet = false;
  clearTimeout(quietTimer);
  quietTimer = setTimeout(settle, QUIET_MS);
  // Whoever leaves before the pause comes back to what was typed. Later events are too late to change the address, and
  // a listener that stays would keep the page out of some browsers' back-forward cache.
  window.addEventListener("beforeunload", leave);
  if (!isRetrying()) say(""); // the same words again are spoken only when they are new
});
form.addEventListener("change", settleNow);
form.addEventListener("submit", settle);
form.addEventListener("answer", speak);
// Links of other views are to have what was just typed.
document.addEventListener("click", ({ target }) => target.closest("[data-option]") && settleNow());

form.addEventListener("htmx:configRequest", ({ detail }) => {
  const places = entered();
  detail.headers["X-Input"] = places.length ? `settled=${places}` : "unsettled";
  if (places.length) counted = texts();
});

window.addEventListener("popstate", () => {
  fill(new URLSearchParams(location.search));
  counted = texts(); // it was entered before
  refresh();
});
setInterval(() => {
  if (!document.hidden && isQuiet && !isRetrying()) check();
}, ASK_MS);
document.addEventListener("visibilitychange", () => (document.hidden ? settleNow() : refresh()));
