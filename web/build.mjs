// Bundles what is here into ../src/dtr/http/ui/static: names carry a hash of the content, manifest.json leads from
// "app.js" to the file. With --watch it builds again whenever a file is saved.
import * as esbuild from "esbuild";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, watch, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "../src/dtr/http/ui/static");
const bundled = ["htmx.org", "lucide-static"];

/** One sprite with the icons that icons.txt names. */
function icons() {
  const names = readFileSync(join(here, "icons.txt"), "utf8").split(/\s+/).filter(Boolean).sort();
  const symbols = names.map((name) => {
    const svg = readFileSync(join(here, `node_modules/lucide-static/icons/${name}.svg`), "utf8");
    const inner = svg.replace(/^[\s\S]*?<svg[^>]*>/, "").replace(/<\/svg>\s*$/, "").replace(/\s+/g, " ").trim();
    return `<symbol id="${name}" viewBox="0 0 24 24">${inner}</symbol>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg">${symbols.join("")}</svg>`;
}

/** The licences of what is bundled, as their packages have them. */
function licenses() {
  return bundled.map((name) => {
    const folder = join(here, "node_modules", name);
    const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
    return `${name} ${version}\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
  }).join(`\n${"-".repeat(72)}\n\n`);
}

async function build() {
  mkdirSync(out, { recursive: true });
  const result = await esbuild.build({
    entryPoints: { app: join(here, "js/app.js"), style: join(here, "css/index.css") },
    bundle: true, minify: true, write: false, outdir: out, format: "iife", legalComments: "none",
    target: ["chrome123", "firefox121", "safari17.5"],
  });
  const files = result.outputFiles.map((file) => [file.path.split("/").pop(), Buffer.from(file.contents)]);
  files.push(["icons.svg", Buffer.from(icons())], ["favicon.svg", readFileSync(join(here, "favicon.svg"))]);
  const manifest = {}, kept = new Set(["manifest.json", "LICENSES.txt"]);
  for (const [name, content] of files) {
    const hash = createHash("sha256").update(content).digest("hex").slice(0, 12);
    const hashed = name.replace(/(\.\w+)$/, `.${hash}$1`);
    const packed = { "": content, ".gz": gzipSync(content, { level: 9 }), ".br": brotliCompressSync(content) };
    for (const [ending, bytes] of Object.entries(packed)) {
      writeFileSync(join(out, hashed + ending), bytes);
      kept.add(hashed + ending);
    }
    manifest[name] = hashed;
    console.log(`${name.padEnd(12)} ${String(content.length).padStart(7)} B, ${packed[".gz"].length} B with gzip`);
  }
  writeFileSync(join(out, "LICENSES.txt"), licenses());
  writeFileSync(join(out, "manifest.json.new"), JSON.stringify(manifest));
  renameSync(join(out, "manifest.json.new"), join(out, "manifest.json")); // readers change over here
  for (const file of readdirSync(out)) if (!kept.has(file)) rmSync(join(out, file), { recursive: true });
}

await build();
if (process.argv.includes("--watch")) {
  let timer;
  for (const folder of ["css", "js"]) {
    watch(join(here, folder), () => { clearTimeout(timer); timer = setTimeout(() => build().catch(console.error), 40); });
  }
}
