/* Buttons that copy: data-copy names the element whose text goes to the clipboard; the button says that it did. */
"use strict";

document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    const source = button && document.querySelector(button.dataset.copy);
    if (!source) return;
    const said = button.parentElement.querySelector("[role=status]");
    try {
        await copy(source.textContent);
        if (said) said.textContent = "Copied.";
    } catch {
        if (said) said.textContent = "Your browser does not let pages copy here; select the text instead.";
    }
});

/* Browsers give the clipboard to pages of https and of this computer only; elsewhere the old way still works. */
async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) {
        await navigator.clipboard.writeText(text);
        return;
    }
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "b-unseen";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    if (!isDone) throw new Error("not copied");
}
