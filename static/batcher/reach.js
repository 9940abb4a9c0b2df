// Lets the keyboard into boxes that scroll, and names what Django draws without a role.
// Runs over the page once, over each part that htmx brings, and when the window changes its size.
"use strict";

(() => {
  const SCROLLS = ".b-scroll, .b-pre, pre";

  function nameOf(box) {
    const title = box.closest("section, details, fieldset")?.querySelector("h2, h3, summary, legend");
    return title?.textContent.trim() || "Scrolls sideways";
  }

  function openToKeys(box) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (!scrolls || box.hasAttribute("tabindex")) return;
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    if (!box.hasAttribute("aria-label")) box.setAttribute("aria-label", nameOf(box));
  }

  function look() {
    document.querySelectorAll(SCROLLS).forEach(openToKeys);
    document.querySelectorAll("span.help-tooltip[aria-label]").forEach((mark) => mark.setAttribute("role", "img"));
  }

  addEventListener("load", look);
  addEventListener("resize", look);
  addEventListener("htmx:afterSettle", look);
  addEventListener("toggle", look, true);
})();
