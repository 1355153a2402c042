// The search field of every page: a list of what fits below it, moved through with the keyboard, and the keys that
// lead there. Without this the field is a form that shows the page of results.
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

const form = one("form[data-palette]");
const field = form && one("input", form);
let list, status, active, timer, asked, before;

if (form) {
  list = document.createElement("div");
  list.id = "palette";
  list.className = "palette";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", field.placeholder);
  status = document.createElement("span"); // says how many there are, for who does not see it
  status.className = "sr";
  status.setAttribute("aria-live", "polite");
  form.append(list, status);
  field.type = "text"; // a search field cannot be one with a list
  field.setAttribute("enterkeyhint", "search");
  for (const [name, value] of Object.entries({
    role: "combobox", "aria-expanded": "false", "aria-controls": "palette", "aria-autocomplete": "list",
  })) field.setAttribute(name, value);

  field.addEventListener("focus", () => look(0));
  field.addEventListener("input", () => look(120));
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter and the arrows belong to the input method
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) look(0);
      else move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && active && !list.hidden) {
      event.preventDefault();
      active.click();
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      close();
      if (before && before !== document.body) before.focus();
      else field.blur();
    }
  });
  form.addEventListener("focusout", (event) => { if (!form.contains(event.relatedTarget)) close(); });
}

/** Asks for what fits, after a while without another letter. */
function look(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    asked?.abort();
    asked = new AbortController();
    try {
      const found = await fetch(`/search?part=palette&q=${encodeURIComponent(field.value.trim())}`, {
        headers: { "HX-Request": "true" }, signal: asked.signal,
      });
      if (!found.ok || found.status === 204 || document.activeElement !== field) return;
      list.innerHTML = await found.text();
      all("[role=option]", list).forEach((option, number) => { option.id = `palette-${number}`; });
      choose(null);
      open();
      status.textContent = list.firstElementChild?.dataset.count ?? "";
    } catch { // the next letter asks again; Enter shows the page of results
    }
  }, milliseconds);
}

function open() {
  list.hidden = !list.firstElementChild;
  field.setAttribute("aria-expanded", String(!list.hidden));
}

function close() {
  clearTimeout(timer);
  asked?.abort();
  list.hidden = true;
  field.setAttribute("aria-expanded", "false");
  choose(null);
}

function choose(option) {
  active?.setAttribute("aria-selected", "false");
  active = option;
  if (!option) { field.removeAttribute("aria-activedescendant"); return; }
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  field.setAttribute("aria-activedescendant", option.id);
}

function move(step) {
  const options = all("[role=option]", list);
  const next = active ? options.indexOf(active) + step : step > 0 ? 0 : options.length - 1;
  choose(options[(next + options.length) % options.length] ?? null);
}

// --- keys ---

const off = () => localStorage.getItem("keys") === "off";
const isTyping = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;

document.addEventListener("keydown", (event) => {
  const opens = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k";
  const single = !event.ctrlKey && !event.metaKey && !event.altKey && !off() && !isTyping(event.target);
  if (field && (opens || (single && event.key === "/")) && !one("dialog[open]")) {
    event.preventDefault();
    if (document.activeElement !== field) before = document.activeElement;
    field.focus();
    field.select();
  } else if (single && event.key === "?" && !one("dialog[open]")) {
    event.preventDefault();
    showKeys();
  }
});

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href="/docs/keyboard"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !one("#dialog")) return;
  event.preventDefault();
  if (list) close();
  showKeys();
});

/** Shows the page of the keys as a dialog. */
async function showKeys() {
  const answer = await fetch("/docs/keyboard");
  if (!answer.ok) { location.assign("/docs/keyboard"); return; }
  const shown = one("#keys", new DOMParser().parseFromString(await answer.text(), "text/html"));
  one("#dialog").replaceChildren(shown);
  offerSwitch();
  one("#dialog").showModal();
}

/** Whether single keys do something is for this browser to remember. */
function offerSwitch() {
  for (const label of all("[data-keys-switch]")) {
    label.hidden = false;
    one("[data-keys]", label).checked = !off();
  }
}
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-keys]")) return;
  if (event.target.checked) localStorage.removeItem("keys");
  else localStorage.setItem("keys", "off");
});
offerSwitch();
