// Prints the size of each entry minified and under gzip. Fails when one is above its limit, or when the table in the
// README says something else; `--write` writes that one.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { ENTRIES, bundled } from './entries.js';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const kilobytes = bytes => (bytes / 1024).toFixed(1);
const sizes = {};
let total = 0;
for (const [entry, limit] of Object.entries(ENTRIES)) {
  const { outputFiles } = await build({ ...bundled(entry), minify: true, format: 'esm', target: 'es2022', write: false });
  const code = outputFiles[0].contents;
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`size of ${entry}: ${size} of ${limit} bytes (${code.length} before gzip)`);
  sizes[entry] = kilobytes(size);
  total += size;
  if (size > limit) process.exitCode = 1;
}
console.log(`size of all: ${total} bytes`);

// The last column of the rows that name an entry's file.
const readme = readFileSync('README.md', 'utf8');
const named = new Set();
const written = readme.replace(/^(\| .* \| `([\w-]+)\.js` \| )[\d.]+( \|)$/gm, (row, before, entry, after) => {
  named.add(entry);
  return sizes[entry] ? `${before}${sizes[entry]}${after}` : row;
});
const missing = Object.keys(ENTRIES).filter(entry => !named.has(entry));
if (missing.length) {
  console.error(`size: the table in README.md lacks ${missing}`);
  process.exitCode = 1;
} else if (process.argv.includes('--write')) {
  writeFileSync('README.md', written);
} else if (written !== readme) {
  console.error('size: the table in README.md is out of date; npm run size -- --write');
  process.exitCode = 1;
}
