import type { Open } from './link.js'; export function share(..._: [any,any,any,any,(open: Open) => boolean]): void {}
