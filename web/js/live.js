// A log that grows while one looks: it follows its end unless the reader has scrolled up, says when the
// connection is lost, and leads to the log-in when the session is over.
const MOST_LINES = 5000;
const NEAR = 24;

const logs = () => document.querySelectorAll("[data-follow]");
const isLog = (element) => element instanceof Element && element.matches("[data-follow]");
const isAtEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;

for (const log of logs()) log.scrollTop = log.scrollHeight;

// Where the reader is, before lines come.
document.addEventListener("scroll", ({ target }) => { if (isLog(target)) target.toggleAttribute("data-held", !isAtEnd(target)); }, true);

document.addEventListener("htmx:after:swap", () => {
  for (const log of logs()) {
    if (log.hasAttribute("data-held")) continue;
    while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
    log.scrollTop = log.scrollHeight;
  }
});

function tell(lost) {
  for (const badge of document.querySelectorAll("[data-live]")) badge.hidden = lost;
  for (const badge of document.querySelectorAll("[data-lost]")) badge.hidden = !lost;
}

document.addEventListener("htmx:sse:error", ({ target, detail }) => {
  if (!isLog(target)) return;
  if ([401, 403, 404].includes(detail.status)) location.reload();
  else tell(true);
});
document.addEventListener("htmx:sse:after:connection", ({ target, detail }) => {
  if (!isLog(target)) return;
  // Who is no longer logged in gets no stream, but is told where to log in; the page itself leads there.
  if (detail.connection.status === 204) location.reload();
  else tell(false);
});
