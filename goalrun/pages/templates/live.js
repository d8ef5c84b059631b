// Keeps a page up to date: the server says that something has changed, the page is asked for again, and its part that
// lives is put in the place of the old one, with what was unfolded left so.
"use strict";

let busy = false;
let again = false;
let source = null;
let shown = document.getElementById("live")?.innerHTML;

function take(page) {
  document.querySelector("main").dataset.of = page.querySelector("main").dataset.of;
  const old = document.getElementById("live");
  const fresh = page.getElementById("live");
  // What is the same is left alone: somebody may be about to copy from it.
  if (!old || !fresh || fresh.innerHTML === shown) return;
  shown = fresh.innerHTML;
  for (const fold of old.querySelectorAll("details[id]")) {
    const same = page.getElementById(fold.id);
    if (same) same.open = fold.open;
  }
  for (const button of document.querySelectorAll("button")) {
    const same = page.querySelector(`button[value="${button.value}"]`);
    if (same) button.disabled = same.disabled;
  }
  old.replaceWith(document.adoptNode(fresh));
  document.title = page.title;
}

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  const began = performance.now();
  try {
    const reply = await fetch(location.pathname);
    if (reply.ok) take(new DOMParser().parseFromString(await reply.text(), "text/html"));
  } finally {
    // A page that takes long is asked for less often.
    setTimeout(() => {
      busy = false;
      if (again) {
        again = false;
        refresh();
      }
    }, Math.max(500, 3 * (performance.now() - began)));
  }
}

function listen() {
  if (source) source.close();
  source = null;
  // A browser keeps few connections to one server: a page that nobody sees gives its own back.
  if (document.hidden) return;
  const of = document.querySelector("main").dataset.of;
  if (!of) return;
  source = new EventSource(`${location.pathname.replace(/\/$/, "")}/events?of=${of}`);
  source.onmessage = refresh;
}

document.addEventListener("visibilitychange", listen);
listen();
