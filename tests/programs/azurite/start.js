// Azurite's own beginning, with one change: what it knows of its blobs it writes to its disk after a tenth of a
// second, instead of five, so that a server which is killed and started again has what it had confirmed before.
const Loki = require("lokijs");

const { autosaveEnable } = Loki.prototype;
Loki.prototype.autosaveEnable = function (...given) {
  this.autosaveInterval = 100;
  return autosaveEnable.apply(this, given);
};
require("azurite/dist/src/blob/main.js");
