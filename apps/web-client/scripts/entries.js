/** The entries of the package, and how many bytes of its own each may have, minified and under gzip. */
export const ENTRIES = {
  index: 6560,
  tabs: 3072,
  state: 1280,
  'text-stream': 1152,
  eventsource: 1152,
  uni: 1792,
  vue: 1024,
  react: 1024,
};

/**
 * Options of esbuild for one file without the packages that it is used with, without the core if it is another, and
 * without the part for tabs, which the core loads when it is needed.
 */
export function bundled(entry) {
  const setup = ({ onResolve }) => onResolve({ filter: /^\.\/(index|tabs)\.js$/ }, ({ path }) => ({ path, external: true }));
  return {
    entryPoints: [`src/${entry}.ts`],
    bundle: true,
    packages: 'external',
    plugins: [{ name: 'parts', setup }],
  };
}
