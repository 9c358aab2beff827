// What htmx does not do: errors beside their inputs, one spoken line, the address, and coming back when the service was
// gone. The prediction itself is htmx's: see the form's hx-* attributes.

const QUIET_MS = 700; // after the last key, before anything is spoken or the address changes
const LATE_MS = 1000; // an answer that takes longer leaves an old one on the screen: say so
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;

const form = document.getElementById("measurements");
const inputs = [...document.querySelectorAll("#measurements input")];
const prediction = document.getElementById("prediction");
const connection = document.getElementById("connection");
const announcement = document.getElementById("announcement");

const query = (entries) => new URLSearchParams(entries).toString();
const typed = () => query(inputs.map((input) => [input.name, input.value]));

// The input that the prediction on the screen belongs to; at first, what the server filled in.
let answered = query(inputs.map((input) => [input.name, input.defaultValue]));
let isQuiet = true;
let quietTimer = 0;
let lateTimer = 0;
let retryTimer = 0;
let retryMs = FIRST_RETRY_MS;

function showMessages() {
  const messages = new Map();
  for (const item of prediction.querySelectorAll("[data-feature]")) messages.set(item.dataset.feature, item.dataset);
  for (const input of inputs) {
    const message = messages.get(input.name);
    const hint = document.getElementById(`${input.id}-hint`);
    hint.textContent = message?.hint ?? "";
    hint.dataset.kind = message?.kind ?? "";
    if (message?.kind === "error") {
      input.setAttribute("aria-invalid", "true");
      input.closest("details")?.setAttribute("open", "");
    } else input.removeAttribute("aria-invalid");
  }
}

function say(text) {
  if (announcement.textContent !== text) announcement.textContent = text;
}

// Typing has paused: the address follows at once, the spoken line as soon as the answer is there.
function settle() {
  clearTimeout(quietTimer);
  window.removeEventListener("beforeunload", settle);
  isQuiet = true;
  history.replaceState(history.state, "", `./?${typed()}`);
  speak();
}

function speak() {
  if (isQuiet && answered === typed()) say(prediction.firstElementChild.dataset.spoken);
}

function settleNow() {
  if (!isQuiet) settle();
}

function refresh() {
  clearTimeout(retryTimer);
  retryTimer = 0;
  form.dispatchEvent(new Event("refresh"));
}

function markStale(text) {
  prediction.toggleAttribute("data-stale", true);
  connection.textContent = text;
}

function lose() {
  markStale(connection.dataset.gone);
  say(connection.dataset.spoken);
  if (retryTimer) return;
  retryTimer = setTimeout(refresh, retryMs);
  retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
}

function retryNow() {
  if (retryTimer) refresh();
}

form.addEventListener("input", () => {
  isQuiet = false;
  clearTimeout(quietTimer);
  quietTimer = setTimeout(settle, QUIET_MS);
  // Whoever leaves before the pause comes back to what was typed. Later events are too late to change the address, and
  // a listener that stays would keep the page out of some browsers' back-forward cache. A reload has the old address.
  window.addEventListener("beforeunload", settle);
  if (!retryTimer) say(""); // the same words again are spoken only when they are new
});
form.addEventListener("change", settleNow);
form.addEventListener("submit", settle);

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
});
prediction.addEventListener("htmx:afterSwap", (event) => {
  answered = query(event.detail.requestConfig.formData);
  clearTimeout(retryTimer);
  retryTimer = 0;
  retryMs = FIRST_RETRY_MS;
  prediction.toggleAttribute("data-stale", false);
  connection.textContent = "";
  showMessages();
  speak();
});

window.addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => (document.hidden ? settleNow() : retryNow()));
// Going back, a reload or autofill may bring inputs that the prediction on the screen does not belong to, or a page
// whose request was cut off.
window.addEventListener("pageshow", (event) => {
  if (event.persisted || answered !== typed()) refresh();
});
