// All script of the pages: htmx with its server-sent events, and small behaviours found by data attributes.
// There is no inline script, and nothing here is needed to use a page.
import "./htmx-global.js";
import "htmx.org/dist/ext/hx-sse.js";
import "./palette.js";
import "./live.js";

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function toast(text) {
  const element = document.createElement("div");
  element.className = "toast";
  element.textContent = text;
  one("#toasts").append(element);
  leave(element, 5000);
}

/** Takes a toast away after a while, but not under the pointer or the focus. */
function leave(element, milliseconds) {
  setTimeout(() => (element.matches(":hover, :focus-within") ? leave(element, 1000) : element.remove()), milliseconds);
}

/** The command that fetches the tag of a row: its table says how it begins. */
function pullCommand(button) {
  return button.closest("[data-pull]").dataset.pull + one(".name", button.closest("tr")).textContent;
}

/** Selects that came with the chosen option alone get the others: they are in the page once, in a datalist. */
function fillOptions() {
  for (const select of all("select[data-options]")) {
    const value = select.value;
    select.replaceChildren(one("#" + select.dataset.options).cloneNode(true));
    select.firstElementChild.replaceWith(...select.firstElementChild.children);
    select.value = value;
  }
}

function closeMenus(except) {
  for (const menu of all("details.menu[open]")) if (!menu.contains(except)) menu.open = false;
}

function toggleSide(open) {
  const side = one("#side");
  side.toggleAttribute("data-open", open);
  one("[data-burger]").setAttribute("aria-expanded", open);
  if (open) one("a", side).focus();
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    try {
      await navigator.clipboard.writeText(copy.dataset.copy || pullCommand(copy));
      toast(copy.closest("[data-done]").dataset.done);
    } catch { // no permission: mark it, so that the keyboard copies it
      if (copy.previousElementSibling) getSelection().selectAllChildren(copy.previousElementSibling);
    }
  }
  const theme = event.target.closest("[data-set-theme]");
  if (theme) {
    event.preventDefault();
    const chosen = theme.dataset.setTheme;
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    const secure = location.protocol === "https:" ? ";secure" : "";
    document.cookie = `theme=${chosen};path=/;max-age=${chosen ? 31536000 : 0};samesite=lax${secure}`;
  }
  const opener = event.target.closest("[data-dialog]");
  if (opener) { event.preventDefault(); one("#" + opener.dataset.dialog)?.showModal(); }
  const closer = event.target.closest("[data-close]");
  const dialog = closer?.closest("dialog");
  if (dialog) { event.preventDefault(); dialog.close(); }
  const burger = event.target.closest("[data-burger]");
  if (burger) { event.preventDefault(); toggleSide(!one("#side").hasAttribute("data-open")); }
  else if (!event.target.closest("#side") && one("#side[data-open]")) toggleSide(false);
  closeMenus(event.target);
});

// A button of a row says what it does when it is pointed at; the heading of its column says it once for all.
document.addEventListener("pointerover", (event) => {
  const copy = event.target.closest?.("[data-copy][aria-labelledby]:not([title])");
  if (copy) copy.title = one("#" + copy.getAttribute("aria-labelledby").split(" ")[0]).textContent;
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of all("details.menu[open]")) { menu.open = false; one("summary", menu).focus(); }
  if (one("#side[data-open]")) { toggleSide(false); one("[data-burger]").focus(); }
});

// The menu lies over the page: it closes when the focus goes on to that.
document.addEventListener("focusin", ({ target }) => {
  if (one("#side[data-open]") && !target.closest("#side, [data-burger]")) toggleSide(false);
});

// Rows that are picked: how many, and what can be done with them.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-bulk]");
  if (!form) return;
  if (event.target.matches("[data-all]")) for (const box of all(".pick", form)) box.checked = event.target.checked;
  const picked = all(".pick:checked", form).length;
  one(".bulk", form).classList.toggle("on", picked > 0);
  one("[data-n]", form).textContent = picked;
});

// A form or a select that is sent as soon as it is changed; without script its button does that. Each arrow key changes
// a select: who walks through its options with the keyboard sends it with Enter, or by leaving it.
let walked, owed;
document.addEventListener("keydown", ({ key, target }) => {
  walked = key === "Enter" ? null : target;
  if (key === "Enter" && owed === target) send(target);
});
document.addEventListener("pointerdown", () => { walked = null; });
document.addEventListener("focusout", ({ target }) => { if (owed === target) send(target); });
document.addEventListener("change", ({ target }) => {
  if (!target.closest("[data-submit]")?.form) return;
  if (target === walked && target.matches("select")) owed = target;
  else send(target);
});
function send(element) { owed = null; element.form.requestSubmit(); }

// The answer to a form is often the same page again: then one is where one was, not at its top.
const LATER = 30_000;
const same = (element) => [element.localName, element.name, element.id, element.getAttribute("aria-label") || element.title || element.textContent.trim()].join();
document.addEventListener("submit", ({ target: form, submitter, defaultPrevented }) => {
  if (defaultPrevented || form.getAttribute("method") !== "post") return;
  const element = submitter ?? one("[data-submit]", form);
  sessionStorage.setItem("left", JSON.stringify({ path: location.pathname, at: Date.now(), y: scrollY, focus: element && same(element) }));
});
function comeBack() {
  const left = JSON.parse(sessionStorage.getItem("left") ?? "null");
  sessionStorage.removeItem("left");
  if (left?.path !== location.pathname || Date.now() - left.at > LATER || location.hash || one("[autofocus], [data-error-summary]")) return;
  scrollTo(0, left.y);
  all("main button, main select").find((element) => same(element) === left.focus)?.focus();
}

// Texts that the server sends with an answer: HX-Trigger: {"toast": "…"}.
document.addEventListener("toast", (event) => toast(event.detail.value ?? event.detail.text ?? event.detail));

document.addEventListener("htmx:after:swap", () => {
  const dialog = one("#dialog");
  if (dialog?.firstElementChild && !dialog.open) dialog.showModal();
  seeProblems();
  fillOptions();
  if (document.activeElement?.closest("form.filters")) tell();
});
one("#dialog")?.addEventListener("close", (event) => event.target.replaceChildren());

/** A form that came back is read from its summary on. */
function seeProblems() {
  const summary = one("[data-error-summary]:not([data-seen])");
  if (summary) { summary.dataset.seen = ""; summary.focus(); }
}
seeProblems();
fillOptions();
comeBack();

/** Says how many rows a filter left, to who does not see them. */
function tell() {
  one("#told").textContent = one("#list .pager > span, #list .empty :is(h1, h2, h3)")?.textContent ?? "";
}

// What is there when a page comes is not spoken as news: it is put there once more.
for (const said of all("[data-said]")) {
  said.remove();
  setTimeout(() => { one("#toasts").append(said); leave(said, one("form", said) ? 10000 : 6000); }, 100);
}
// The current tab is in view on a phone.
for (const tab of all(".tabs [aria-current]")) tab.parentElement.scrollLeft = tab.offsetLeft - 24;
