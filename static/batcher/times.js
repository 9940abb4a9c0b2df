/* Moments in the browser's own zone, with the UTC on hover, and ages that go on. Without this file pages show
   UTC, and ages as they were when the page was made. Works on what HTMX brings later, too. */
"use strict";

(() => {
    const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
    const two = (number) => String(number).padStart(2, "0");
    const clock = (at) => `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
    const day = (at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;

    /* The two biggest units, as batching/admin/shown.py writes them. */
    function span(seconds) {
        const parts = [];
        let left = Math.max(0, Math.floor(seconds));
        for (const [unit, size] of UNITS) {
            if (parts.length || left >= size) {
                parts.push([Math.floor(left / size), unit]);
                left %= size;
            }
            if (parts.length === 2) break;
        }
        return parts.filter(([count]) => count).map((part) => part.join(" ")).join(" ") || "0 s";
    }

    const texts = {
        moment: (at) => `${day(at)} ${clock(at)}`,
        clock,
        age: (at) => {
            const seconds = (Date.now() - at) / 1000;
            return seconds >= 0 ? span(seconds) : `in ${span(-seconds)}`;
        },
    };

    function write(element) {
        const at = new Date(element.dateTime);
        const text = texts[element.dataset.time];
        if (!text || Number.isNaN(at.getTime())) return;
        const words = text(at);
        if (element.textContent !== words) element.textContent = words;
        if (!element.dataset.utc) element.dataset.utc = element.title;
        const here = element.dataset.time === "age" ? `${texts.moment(at)} here, ` : "";
        element.title = here + element.dataset.utc;
    }

    function writeAll(root, forms = "time[data-time]") {
        if (root.matches?.(forms)) write(root);
        root.querySelectorAll(forms).forEach(write);
    }

    const writeAges = () => {
        if (!document.hidden) writeAll(document, 'time[data-time="age"]');
    };
    document.addEventListener("DOMContentLoaded", () => writeAll(document));
    document.addEventListener("htmx:load", (event) => writeAll(event.detail.elt));
    document.addEventListener("visibilitychange", writeAges);
    setInterval(writeAges, 30000);
})();
