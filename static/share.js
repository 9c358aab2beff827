// What one keeps or sends: a sample that is pinned, and copies of the address, of the answer and of programs.

import { settleNow, step } from "./address.js";
import { prediction, say } from "./answer.js";
import { changed, fields, hasPin, sample, showPin } from "./form.js";

const COPIED_MS = 1500; // a button says that it has copied

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

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard; // browsers give it to pages that came over TLS, or from this very machine
  button.addEventListener("click", () => navigator.clipboard.writeText(textToCopy(button)).then(() => showCopied(button)));
}
