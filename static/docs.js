// The documentation: an operation that a link or the address names is open, and buttons copy an example.

function openNamed() {
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");
}
openNamed();
window.addEventListener("hashchange", openNamed);
document.addEventListener("click", ({ target }) => target.closest("a[href^='#']") && setTimeout(openNamed)); // once more

const COPIED_MS = 1500; // a button says that it has copied

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard; // browsers give it to pages that came over TLS, or from this very machine
  const { textContent } = button;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.closest(".example").querySelector("code").textContent);
    button.textContent = button.dataset.copy;
    setTimeout(() => (button.textContent = textContent), COPIED_MS);
  });
}
