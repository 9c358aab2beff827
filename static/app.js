// The page: what htmx does not do. The prediction itself is htmx's: see the form's hx-* attributes. All that is entered,
// be it by keys, sliders, the map or a pasted row, ends in the fields of the form. Each module costs a request and its
// headers, so the buttons around the form, which are small, stand here.

import { settleNow, step } from "./address.js";
import { FIRST_RETRY_MS, LAST_RETRY_MS, prediction, say } from "./answer.js";
import { changed, fields, hasPin, sample, showPin } from "./form.js";
import "./gestures.js";
import "./entry.js";

const COPIED_MS = 1500; // a button says that it has copied

// Fields can be searched where there are many.
if (document.getElementById("find")) import("./find.js");

// On a phone, the headline sticks to the top, and what stands behind it is far below the fields.

const details = document.getElementById("details");
details.hidden = false;
details.addEventListener("click", () => prediction.querySelector(".bars, .span, .messages")?.scrollIntoView());

// What one keeps or sends: a sample that is pinned, and copies of the address, of the answer and of programs.

const pinButton = document.getElementById("pin");
pinButton.hidden = false;
pinButton.addEventListener("click", () => {
  step();
  showPin(hasPin() ? null : sample());
  changed();
});

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

function offerCopies(part) {
  for (const button of part.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard; // browsers give it to pages that came over TLS, or from this very machine
    button.addEventListener("click", () => navigator.clipboard.writeText(textToCopy(button)).then(() => showCopied(button)));
  }
}
offerCopies(document);
document.getElementById("code").addEventListener("htmx:load", ({ target }) => offerCopies(target)); // its programs

// Choosing or dropping a file; what predicts it is loaded with the first one.

const fileForm = document.getElementById("file");
const input = document.getElementById("file-input");
document.getElementById("file-drop").hidden = false;

fileForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = input.files;
  if (!file) return;
  // While the service is down the file stays chosen. Some browsers keep a module that failed to load: another address is
  // new. Those that it imports have none: where they are kept, or where those of another release do not fit the ones that
  // the page has, only a new page loads them, with the same sample.
  for (let ms = FIRST_RETRY_MS; input.files[0] === file; ms = Math.min(2 * ms, LAST_RETRY_MS)) {
    const address = ms === FIRST_RETRY_MS ? "./file.js" : `./file.js?${Date.now()}`;
    const { begin } = await import(address).catch(() => ({}));
    if (begin) return begin(file);
    const isThere = await fetch(import.meta.resolve(address), { cache: "no-store" }).then(({ ok }) => ok, () => false);
    const isOld = isThere && ms > FIRST_RETRY_MS;
    const status = fileForm.dataset[isOld ? "old" : "lost"];
    document.getElementById("file-result").hidden = false;
    document.getElementById("file-cancel").hidden = true;
    document.getElementById("file-status").textContent = status;
    document.getElementById("file-reload").hidden = !isOld;
    say(status);
    if (isOld) return;
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
});
document.getElementById("file-reload").addEventListener("click", settleNow);
input.addEventListener("change", () => fileForm.requestSubmit());

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
    input.files = event.dataTransfer.files;
    fileForm.requestSubmit();
  });
}
