// The browsers that are installed. REALTIME_BROWSERS names those that have to be: chromium,firefox.
import { spawnSync } from 'node:child_process';
import { Chromium } from './driver.js';
import { Firefox } from './firefox.js';

const KINDS = { chromium: [Chromium, 'chromedriver'], firefox: [Firefox, 'firefox'] };
const wanted = process.env.REALTIME_BROWSERS?.split(',');

/** The class of each browser by its name. */
export const BROWSERS = Object.fromEntries(
  Object.entries(KINDS).flatMap(([name, [kind, program]]) => {
    const isThere = spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
    if (wanted ? wanted.includes(name) : isThere) return [[name, kind]];
    console.log(`# ${name} is not tested${isThere ? '' : `: there is no ${program}`}`);
    return [];
  }),
);
