// Builds dist/: one ES module with its declarations. And build/: the files one by one, for the tests of the parts.
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
for (const folder of ['dist', 'build']) rmSync(folder, { recursive: true, force: true });
const common = { format: 'esm', target: 'es2022', logLevel: 'warning' };
await build({ ...common, entryPoints: ['src/index.ts'], bundle: true, outfile: 'dist/index.js' });
await build({ ...common, entryPoints: ['src/*.ts'], outdir: 'build' });
execFileSync('node_modules/.bin/tsc', ['--emitDeclarationOnly'], { stdio: 'inherit' });
