// Keys for lists: j and k go from row to row, Enter opens one, x ticks it, ? tells of them. "/" is the theme's: it goes to the search.
// Nothing happens while a field is written in, or together with Ctrl, Alt or Meta; help is a dialog that Escape closes.
"use strict";

(() => {
  const KEYS = [
    ["/", "go to the search"],
    ["j", "next row"],
    ["k", "row before"],
    ["Enter", "open the row"],
    ["x", "tick the row"],
    ["?", "this help"],
  ];
  const isWriting = (element) => element.isContentEditable || element.matches("input:not([type=checkbox], [type=radio]), textarea, select");
  const rows = () => [...document.querySelectorAll("#result_list tbody tr")].filter((row) => linkOf(row));
  const linkOf = (row) => row.querySelector("th a, td a");

  function step(by) {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.contains(document.activeElement));
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
    linkOf(next).focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  function tick() {
    const row = rows().find((one) => one.contains(document.activeElement));
    const box = row?.querySelector("input.action-select");
    if (!box) return;
    box.click();
    linkOf(row).focus();
  }

  function help() {
    let dialog = document.getElementById("b-keys");
    if (!dialog) {
      dialog = document.createElement("dialog");
      dialog.id = "b-keys";
      dialog.setAttribute("aria-labelledby", "b-keys-title");
      const title = document.createElement("h2");
      title.id = "b-keys-title";
      title.textContent = "Keys";
      const list = document.createElement("dl");
      for (const [key, words] of KEYS) {
        const term = document.createElement("dt");
        const cap = document.createElement("kbd");
        cap.textContent = key;
        term.append(cap);
        const meaning = document.createElement("dd");
        meaning.textContent = words;
        list.append(term, meaning);
      }
      const close = document.createElement("button");
      close.type = "button";
      close.textContent = "Close";
      close.addEventListener("click", () => dialog.close());
      dialog.append(title, list, close);
      document.body.append(dialog);
    }
    dialog.showModal();
  }

  const does = { j: () => step(1), k: () => step(-1), x: tick, "?": help };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
    const open = document.querySelector("details.b-menu[open]");
    if (event.key === "Escape" && open) {
      open.open = false;
      open.querySelector("summary").focus();
      return;
    }
    const act = does[event.key];
    if (!act || isWriting(event.target) || document.querySelector("dialog[open]")) return;
    if (event.key !== "?" && !document.getElementById("result_list")) return;
    event.preventDefault();
    act();
  });
  document.addEventListener("click", (event) => {
    document.querySelectorAll("details.b-menu[open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
})();
