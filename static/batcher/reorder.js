// Moves rows of a lane's line, by pointer or by keys, and asks the server for one move.
// The order that counts is the server's: what comes back replaces the list. Without this file the plain buttons do it all.

(() => {
  "use strict";

  const PART = "lane_line";
  let lifted = null; // {row, form, home: the row behind it at first, byPointer}

  const say = (words) => {
    const told = document.getElementById("lane_said");
    if (told) told.textContent = words;
  };
  const rowsOf = (row) => [...row.parentElement.children];
  const placeOf = (row) => rowsOf(row).indexOf(row) + 1;
  const handleOf = (row) => row.querySelector(".b-handle");

  function lift(handle, byPointer) {
    const row = handle.closest("tr");
    lifted = { row, form: handle.closest("form"), home: row.nextElementSibling, byPointer };
    row.classList.add("b-lifted");
    handle.setAttribute("aria-pressed", "true");
    if (!byPointer) say(`Batch ${row.dataset.batch} lifted, place ${placeOf(row)} of ${rowsOf(row).length}.`);
  }

  function settle() {
    const { row } = lifted;
    row.classList.remove("b-lifted");
    handleOf(row).setAttribute("aria-pressed", "false");
    lifted = null;
  }

  function leave() {
    const { row, home } = lifted;
    row.parentElement.insertBefore(row, home);
    settle();
    handleOf(row).focus();
    say(`Batch ${row.dataset.batch} stays where it was.`);
  }

  function shift(row, before) {
    if (before === row || before === row.nextElementSibling) return;
    row.parentElement.insertBefore(row, before);
    handleOf(row).focus({ preventScroll: lifted.byPointer });
    if (!lifted.byPointer) {
      row.scrollIntoView({ block: "nearest" });
      say(`Place ${placeOf(row)} of ${rowsOf(row).length}.`);
    }
  }

  function drop() {
    const { row, form, home } = lifted;
    const next = row.nextElementSibling;
    settle();
    if (next === home) {
      say(`Batch ${row.dataset.batch} stays where it was.`);
      return;
    }
    const values = Object.fromEntries(new FormData(form));
    values.to = "before";
    values.batch = row.dataset.batch;
    values.before = next ? next.dataset.batch : "";
    const asked = { target: `#${PART}`, swap: "outerHTML", source: form, values };
    window.htmx.ajax("POST", form.action, asked).then(() => refocus(values.batch));
  }

  function refocus(batch) {
    const row = document.querySelector(`#${PART} tr[data-batch="${batch}"]`);
    if (row && handleOf(row)) handleOf(row).focus({ preventScroll: true });
  }

  document.addEventListener("keydown", (event) => {
    const handle = event.target.closest && event.target.closest(".b-handle");
    if (!handle) return;
    const row = handle.closest("tr");
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      if (lifted) drop();
      else lift(handle, false);
    } else if (lifted && event.key === "Escape") {
      event.preventDefault();
      leave();
    } else if (lifted && event.key === "ArrowUp") {
      event.preventDefault();
      if (row.previousElementSibling) shift(row, row.previousElementSibling);
    } else if (lifted && event.key === "ArrowDown") {
      event.preventDefault();
      if (row.nextElementSibling) shift(row, row.nextElementSibling.nextElementSibling);
    }
  });

  document.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(".b-handle");
    if (!handle || event.button !== 0 || lifted) return;
    event.preventDefault();
    handle.focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
    lift(handle, true);
  });

  document.addEventListener("pointermove", (event) => {
    if (!lifted || !lifted.byPointer) return;
    const { row } = lifted;
    const under = rowsOf(row).find((other) => {
      const box = other.getBoundingClientRect();
      return other !== row && event.clientY >= box.top && event.clientY <= box.bottom;
    });
    if (!under) return;
    const box = under.getBoundingClientRect();
    shift(row, event.clientY < box.top + box.height / 2 ? under : under.nextElementSibling);
  });

  document.addEventListener("pointerup", () => {
    if (lifted && lifted.byPointer) drop();
  });
  document.addEventListener("pointercancel", () => {
    if (lifted && lifted.byPointer) leave();
  });
  document.addEventListener("focusout", (event) => {
    const isLost = lifted && !lifted.byPointer && event.target === handleOf(lifted.row) && event.relatedTarget;
    if (isLost && !lifted.row.contains(event.relatedTarget)) leave();
  });

  // What came of a move is read out; the list itself is new by then.
  document.addEventListener("htmx:afterSwap", () => {
    const part = document.getElementById(PART);
    if (part && part.dataset.said) say(part.dataset.said);
  });
})();
