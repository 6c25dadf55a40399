// Looks at what `npm pack` would publish: each entry with its declarations, nothing that is none of the package's, and no
// import of a file that is not in it.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path/posix';
import { fileURLToPath } from 'node:url';
import { ENTRIES } from './entries.js';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const told = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { encoding: 'utf8' });
const [{ files, size, unpackedSize }] = JSON.parse(told);
const paths = new Set(files.map(({ path }) => path));

const { exports } = JSON.parse(readFileSync('package.json', 'utf8'));
const named = Object.values(exports).flatMap(({ types, default: code }) => [types, code]);
for (const path of named) assert.ok(paths.has(path.slice(2)), `${path} is not packed`);
const scripts = [...paths].filter(path => path.endsWith('.js'));
assert.deepEqual(scripts.sort(), Object.keys(ENTRIES).map(entry => `dist/${entry}.js`).sort());

for (const path of paths) {
  assert.match(path, /^(README\.md|package\.json|dist\/(LICENSE-\w+|[\w-]+\.js|[\w-]+\.d\.ts))$/);
  if (!/\.(js|d\.ts)$/.test(path)) continue;
  for (const [, from] of readFileSync(path, 'utf8').matchAll(/(?:from|import\()\s*["'](\.[^"']+)["']/g)) {
    const target = join(dirname(path), path.endsWith('.d.ts') ? from.replace(/\.js$/, '.d.ts') : from);
    assert.ok(paths.has(target), `${path} imports ${from}, which is not packed`);
  }
}
console.log(`package: ${paths.size} files, ${size} bytes packed, ${unpackedSize} unpacked`);
