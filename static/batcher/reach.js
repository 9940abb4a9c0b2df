// Lets the keyboard into boxes that scroll and to the theme's switch of the sidebar, and names what Django draws
// without a role.
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

  function makeButton(mark) {
    if (mark.textContent.trim() !== "dock_to_right" || mark.hasAttribute("tabindex")) return;
    mark.tabIndex = 0;
    mark.setAttribute("role", "button");
    mark.setAttribute("aria-label", "Show or hide the menu");
    mark.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      mark.click();
    });
  }

  function look() {
    document.querySelectorAll("#header-inner span.material-symbols-outlined").forEach(makeButton);
    document.querySelectorAll(SCROLLS).forEach(openToKeys);
    document.querySelectorAll("span.help-tooltip[aria-label]").forEach((mark) => mark.setAttribute("role", "img"));
  }

  addEventListener("load", look);
  addEventListener("resize", look);
  addEventListener("htmx:afterSettle", look);
  addEventListener("toggle", look, true);
})();
