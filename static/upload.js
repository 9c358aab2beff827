// Choosing or dropping a file; what predicts it is loaded with the first one.

import { say } from "./answer.js";

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;

const form = document.getElementById("file");
const input = document.getElementById("file-input");
document.getElementById("file-drop").hidden = false;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = input.files;
  if (!file) return;
  // While the service is down the file stays chosen. Some browsers keep a module that failed to load: another address is
  // new.
  for (let ms = FIRST_RETRY_MS; input.files[0] === file; ms = Math.min(2 * ms, LAST_RETRY_MS)) {
    const { begin } = await import(ms === FIRST_RETRY_MS ? "./file.js" : `./file.js?${Date.now()}`).catch(() => ({}));
    if (begin) return begin(file);
    document.getElementById("file-result").hidden = false;
    document.getElementById("file-cancel").hidden = true;
    document.getElementById("file-status").textContent = form.dataset.lost;
    say(form.dataset.lost);
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
});
input.addEventListener("change", () => form.requestSubmit());

// A file that misses the section must not replace the page.
const dropZone = form.closest("section");
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
    form.requestSubmit();
  });
}
