// The answer: swapped in by htmx; what it says of the fields beside them, and aloud; late, gone, back, or of another
// model. Each answer is an event "answer" of the form. Knows nothing of how values are entered.

import { addressOf, fields, form, goal, initial, query, selects, typed } from "./form.js";

const LATE_MS = 1000; // an answer that takes longer leaves an old one on the screen: say so
const RENEWED_MS = 60_000; // how long the model was updated "just now"
export const FIRST_RETRY_MS = 500;
export const LAST_RETRY_MS = 8000;

export const prediction = document.getElementById("prediction");
const connection = document.getElementById("connection");
const announcement = document.getElementById("announcement");
const why = document.getElementById("why");
const renewed = document.getElementById("renewed");
const reload = document.getElementById("reload");

export let answered = initial; // the input that the prediction on the screen belongs to
let asked = ""; // that of the answer that is about to be swapped in
let lastAnswer = prediction.querySelector("[data-state=answer]");
let lateTimer = 0;
let retryTimer = 0;
let retryMs = FIRST_RETRY_MS;
let shownVersion = document.getElementById("version").textContent;

export const isRetrying = () => Boolean(retryTimer);

export function say(text) {
  if (announcement.textContent !== text) announcement.textContent = text;
}

// Ask for the answer and its reasons again.
export function refresh() {
  stopRetrying();
  form.dispatchEvent(new Event("refresh"));
}

// Ask for the answer alone: it may be counted now, or be of another model, which refreshes all.
export function check() {
  form.dispatchEvent(new Event("check"));
}

function stopRetrying() {
  clearTimeout(retryTimer);
  retryTimer = 0;
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
    for (const view of [...selects, goal]) if (view) view.dataset.start = page.getElementsByName(view.name)[0].dataset.start;
  } catch {
    shownVersion = before; // the next answer asks again
    return;
  }
  renewed.hidden = false;
  setTimeout(() => (renewed.hidden = true), RENEWED_MS);
  say(renewed.textContent);
  refresh();
}

// Another model was put in its place: the last answer stays, of which no more is true.
export function replaced() {
  markStale("");
  renewed.hidden = true;
  if (reload.hidden) say(reload.textContent);
  reload.hidden = false;
}

// What is said beside the fields.
function showMessages() {
  goal?.setAttribute("aria-invalid", Boolean(prediction.querySelector("[data-goal=wrong]")));
  const messages = new Map();
  for (const item of prediction.querySelectorAll("[data-feature]")) messages.set(item.dataset.feature, item.dataset);
  for (const field of fields) field.show(messages.get(field.key));
}

// While a value is half typed or wrong, the last answer stays in sight, muted.
function keepLast() {
  const shown = prediction.firstElementChild;
  if (shown.dataset.state === "answer" || !lastAnswer) return;
  const last = lastAnswer.cloneNode(true);
  for (const part of last.querySelectorAll(":scope > :is(.headline, .messages)")) part.remove();
  for (const name of Object.keys(last.dataset)) delete last.dataset[name];
  last.className = "last";
  last.inert = true;
  shown.append(last);
}

function isShown(fragment) {
  const { firstElementChild } = new DOMParser().parseFromString(fragment, "text/html").body;
  const shown = prediction.firstElementChild.cloneNode(true);
  shown.querySelector(".last")?.remove();
  return firstElementChild.isEqualNode(shown);
}

function receive({ detail }) {
  answered = asked;
  stopRetrying();
  retryMs = FIRST_RETRY_MS;
  // One to an earlier input, which was marked as late, is still late.
  if (prediction.hasAttribute("data-stale") && answered === typed()) {
    prediction.toggleAttribute("data-stale", false);
    connection.textContent = "";
  }
  reload.hidden = true;
  renew(detail.xhr);
  showMessages();
  form.dispatchEvent(new Event("answer"));
}

form.addEventListener("htmx:beforeSend", () => {
  lateTimer = setTimeout(markStale, LATE_MS, connection.dataset.late);
});
form.addEventListener("htmx:afterRequest", () => clearTimeout(lateTimer));
for (const failure of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) form.addEventListener(failure, lose);

prediction.addEventListener("htmx:beforeSwap", (event) => {
  const { detail } = event;
  // A proxy's login or error page comes with status 200 too.
  const isOurs = detail.serverResponse.includes("data-state=");
  detail.shouldSwap &&= isOurs;
  detail.isError ||= !isOurs;
  if (isOurs && !isOurModel(detail.xhr)) {
    detail.shouldSwap = false;
    replaced();
    return;
  }
  asked = query(detail.requestConfig.formData);
  // The same answer to the same sample: what is selected or focused in it stays.
  if (detail.shouldSwap && answered === asked && isShown(detail.serverResponse)) {
    detail.shouldSwap = false;
    receive(event);
  }
});
// htmx dispatches two events for each element that it throws away, which took as long as all else of a swap: it gets the
// outermost one, without what is in it.
prediction.addEventListener("htmx:beforeCleanupElement", ({ target }) => {
  if (target.parentNode !== prediction || !target.dataset) return;
  const content = target.cloneNode();
  content.append(...target.childNodes);
  if (target.dataset.state === "answer") lastAnswer = content;
});
prediction.addEventListener("htmx:afterSwap", (event) => {
  keepLast();
  receive(event);
});

// The strips of the fields come with the reasons; those of another model belong to none of these fields.
why.addEventListener("htmx:beforeSwap", ({ detail }) => {
  detail.shouldSwap &&= detail.xhr.getResponseHeader("X-Model-Features") === form.dataset.features;
});
why.addEventListener("htmx:afterSwap", ({ target }) => {
  const strips = target.querySelector("template");
  for (const [index, strip] of [...(strips?.content.children ?? [])].entries()) fields[index]?.draw(strip);
  strips?.remove();
});

window.addEventListener("online", () => retryTimer && refresh());
// Going back, a reload or autofill may bring inputs that the prediction on the screen does not belong to, or a page
// whose request was cut off.
window.addEventListener("pageshow", (event) => {
  for (const field of fields) field.follow();
  if (event.persisted || answered !== typed()) refresh();
});
