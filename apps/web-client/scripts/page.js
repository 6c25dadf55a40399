// Writes the module that the demo serves as /realtime.js, or, with --check, compares it with what it is to be.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const file = fileURLToPath(new URL('../../demo/assets/realtime.js', import.meta.url));
const contents = `
  export * from './index.js';
  export { snapshot, state } from './state.js';
  export { stream } from './text-stream.js';
`;
const { outputFiles } = await build({
  stdin: { contents, resolveDir: fileURLToPath(new URL('../src', import.meta.url)), loader: 'ts' },
  banner: { js: '// @realtime/client, built by `npm run page` in apps/web-client.' },
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  write: false,
});
if (!process.argv.includes('--check')) {
  writeFileSync(file, outputFiles[0].contents);
} else if (readFileSync(file, 'utf8') !== outputFiles[0].text) {
  console.error('apps/demo/assets/realtime.js is not what src/ gives: run `npm run page`');
  process.exit(1);
}
