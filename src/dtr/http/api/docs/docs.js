"use strict";
// Finding, opening and copying; the page is complete without.

const operations = [...document.querySelectorAll(".operation")].map((element) => ({
  element,
  link: document.querySelector(`[data-for="${element.id}"]`),
  words: `${element.id} ${element.querySelector("summary").textContent.replaceAll("\u200b", "")}`.toLowerCase(),
}));
const find = document.getElementById("find");

function filter() {
  const wanted = find.value.toLowerCase().split(/\s+/);
  for (const { element, link, words } of operations) {
    const hidden = !wanted.every((word) => words.includes(word));
    element.hidden = link.hidden = hidden;
  }
  for (const section of document.querySelectorAll("main .tag:not(#records), nav section:has(li)")) {
    section.hidden = !section.querySelector(".operation:not([hidden]), li:not([hidden])");
  }
  document.getElementById("none").hidden = operations.some(({ element }) => !element.hidden);
}

function open() {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
}

find.closest("label").hidden = false;
find.addEventListener("input", filter);
addEventListener("hashchange", open);
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== find) {
    event.preventDefault();
    find.focus();
  }
});
if (matchMedia("(max-width: 52rem)").matches) document.querySelector("nav > details").open = false;
for (const button of document.querySelectorAll(".copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
filter();
open();
