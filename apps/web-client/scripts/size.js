// Prints the size of each entry minified and under gzip, and fails when one is above its limit.
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { ENTRIES, bundled } from './entries.js';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
let total = 0;
for (const [entry, limit] of Object.entries(ENTRIES)) {
  const { outputFiles } = await build({ ...bundled(entry), minify: true, format: 'esm', target: 'es2022', write: false });
  const code = outputFiles[0].contents;
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`size of ${entry}: ${size} of ${limit} bytes (${code.length} before gzip)`);
  total += size;
  if (size > limit) process.exitCode = 1;
}
console.log(`size of all: ${total} bytes`);
