// Fills in the calls of the API's docs page and shows what comes back. Knows nothing of any call: each
// form says its method, its path and where each value goes. The key stays in its input.
"use strict";

const SHOWN_CHARACTERS = 200_000;

function addressOf(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  for (const field of form.querySelectorAll("[data-in]")) {
    if (field.dataset.in === "path") {
      path = path.replace(`{${field.name}}`, encodeURIComponent(field.value));
    } else if (field.value !== "") {
      query.set(field.name, field.value);
    }
  }
  const tail = query.toString();
  return tail ? `${path}?${tail}` : path;
}

function headersOf(form) {
  const headers = new Headers();
  const key = document.getElementById("api-key").value.trim();
  if (key && !("open" in form.dataset)) headers.set("Authorization", `Bearer ${key}`);
  if (form.dataset.type) headers.set("Content-Type", form.dataset.type);
  return headers;
}

function readable(text, type) {
  let shown = text;
  if (type.startsWith("application/json")) {
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // Not JSON after all: shown as it came.
    }
  }
  return shown.length > SHOWN_CHARACTERS ? `${shown.slice(0, SHOWN_CHARACTERS)}\n…` : shown;
}

function show(output, headline, text, isGood) {
  const line = document.createElement("p");
  line.textContent = headline;
  line.className = isGood ? "good" : "bad";
  const body = document.createElement("pre");
  body.textContent = text;
  output.replaceChildren(line, ...(text ? [body] : []));
}

async function call(form) {
  const output = form.querySelector("output");
  const address = addressOf(form);
  const began = performance.now();
  try {
    const answer = await fetch(address, {
      method: form.dataset.method,
      headers: headersOf(form),
      body: form.elements.body ? form.elements.body.value : undefined,
      credentials: "omit",
    });
    const text = await answer.text();
    const took = Math.round(performance.now() - began);
    const headline = `${form.dataset.method} ${address} → ${answer.status} ${answer.statusText} in ${took} ms`;
    show(output, headline, readable(text, answer.headers.get("Content-Type") ?? ""), answer.ok);
  } catch (problem) {
    show(output, `${form.dataset.method} ${address}: no answer (${problem.message})`, "", false);
  }
}

for (const form of document.querySelectorAll("form.try")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    await call(form);
    button.disabled = false;
  });
}

function openNamed() {
  const named = location.hash && document.getElementById(location.hash.slice(1));
  if (named instanceof HTMLDetailsElement) named.open = true;
}
window.addEventListener("hashchange", openNamed);
openNamed();
