// Prints the size of the minified core under gzip, and fails when it is above the limit.
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const LIMIT = 6144;
const entry = fileURLToPath(new URL('../src/index.ts', import.meta.url));
const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: 'esm', target: 'es2022', write: false });
const code = outputFiles[0].contents;
const size = gzipSync(code, { level: 9 }).length;
console.log(`size: ${size} of ${LIMIT} bytes (${code.length} before gzip)`);
if (size > LIMIT) process.exit(1);
