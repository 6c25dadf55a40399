// Builds dist/: an ES module of each entry with its declarations. And build/: the files one by one, for the tests of the
// parts.
import { execFileSync } from 'node:child_process';
import { copyFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { ENTRIES, bundled } from './entries.js';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
for (const folder of ['dist', 'build']) rmSync(folder, { recursive: true, force: true });
const common = { format: 'esm', target: 'es2022', logLevel: 'warning' };
for (const entry of Object.keys(ENTRIES)) await build({ ...common, ...bundled(entry), outfile: `dist/${entry}.js` });
await build({ ...common, entryPoints: ['src/*.ts'], outdir: 'build' });
execFileSync('node_modules/.bin/tsc', ['--emitDeclarationOnly'], { stdio: 'inherit' });
for (const license of ['LICENSE-MIT', 'LICENSE-APACHE']) copyFileSync(`../../${license}`, `dist/${license}`);
