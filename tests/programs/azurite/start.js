// Azurite's own beginning, with one change: what it knows of its blobs it writes to its disk after a tenth of a
// second, instead of five, and at once when it is killed by SIGUSR2, so that a server which is killed and started
// again has what it had confirmed before.
const fs = require("fs");
const Loki = require("lokijs");

const saved = [];
const { autosaveEnable } = Loki.prototype;
Loki.prototype.autosaveEnable = function (...given) {
  saved.push(this);
  this.autosaveInterval = 100;
  return autosaveEnable.apply(this, given);
};
process.on("SIGUSR2", function die() {
  if (saved.some((one) => one.throttledSavePending)) {
    setTimeout(die, 1);
    return;
  }
  for (const one of saved) {
    fs.writeFileSync(`${one.filename}.last`, one.serialize());
    fs.renameSync(`${one.filename}.last`, one.filename);
  }
  process.kill(process.pid, "SIGKILL");
});
require("azurite/dist/src/blob/main.js");
