import { formatClock, formatShort } from './format.js';
import { t } from './i18n.js';
import { WINDOW_MS } from './sampler.js';
import { create, createSvg } from './ui.js';

const HEIGHT = 168;
const LEFT = 44;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;
/** Distance of two values between which there is a hole. */
const HOLE_MS = 4_000;
const MINUTE_MS = 60_000;
const TICKS = 4;
const NARROW = 420;

/**
 * @typedef {import('./sampler.js').Sample} Sample
 * @typedef {object} Series
 * @property {string} label
 * @property {string} color a name of the style sheet: `--chart-<color>`
 * @property {(sample: Sample) => number | null | undefined} value
 */

/** Lines of the last minutes, with a legend and a readout where the pointer is. */
export class Chart {
  element;
  #series;
  #format;
  #svg;
  #values;
  #readout;
  #title;
  #least;
  /** @type {Sample[]} */
  #samples = [];
  #width = 600;
  /** @type {number | null} x of the pointer */
  #pointer = null;

  /**
   * @param {string} title
   * @param {Series[]} series
   * @param {(value: number | null | undefined) => string} format
   * @param {AbortSignal} signal
   * @param {number} [least] value that the axis reaches in any case
   */
  constructor(title, series, format, signal, least = 1) {
    this.#least = least;
    this.#title = title;
    this.#series = series;
    this.#format = format;
    this.#values = series.map(() => create('span', { class: 'legend-value', text: '–' }));
    this.#svg = createSvg('svg', { class: 'plot', role: 'img', height: HEIGHT });
    this.#readout = create('div', { class: 'readout' });
    this.#readout.hidden = true;
    const legend = series.map(({ label, color }, index) =>
      create('li', { class: 'legend-item', data: { color } }, create('span', { text: label }), this.#values[index]),
    );
    const plot = create('div', { class: 'plot-box' }, this.#svg, this.#readout);
    this.element = create(
      'figure',
      { class: 'card chart' },
      create(
        'figcaption',
        { class: 'card-head' },
        create('h2', { class: 'card-title', text: title }),
        create('ul', { class: 'legend' }, ...legend),
      ),
      plot,
    );
    const observer = new ResizeObserver(([entry]) => {
      this.#width = Math.max(200, Math.round(entry.contentRect.width));
      this.draw(this.#samples);
    });
    observer.observe(plot);
    signal.addEventListener('abort', () => observer.disconnect());
    plot.addEventListener('pointermove', (event) => this.#point(event.clientX - plot.getBoundingClientRect().left));
    plot.addEventListener('pointerleave', () => this.#point(null));
  }

  /** @param {Sample[]} samples oldest first */
  draw(samples) {
    this.#samples = samples;
    const end = samples.at(-1)?.at ?? Date.now();
    const span = spanOf(samples);
    const x = (at) => this.#width - RIGHT - ((end - at) / span) * (this.#width - LEFT - RIGHT);
    const values = this.#series.flatMap(({ value }) => samples.map(value)).filter((each) => each !== null && each !== undefined);
    const highest = Math.max(this.#least, ...values);
    const step = niceStep(highest / TICKS);
    const top = Math.ceil(highest / step) * step;
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);

    this.#svg.setAttribute('viewBox', `0 0 ${this.#width} ${HEIGHT}`);
    this.#svg.replaceChildren(
      ...this.#axes(end, span, step, top, x, y),
      ...this.#series.flatMap((series, index) => draw(series, samples, x, y, index === 0)),
    );
    this.#series.forEach(({ value }, index) => {
      this.#values[index].textContent = samples.length ? this.#format(value(samples.at(-1))) : '–';
    });
    const last = this.#series.map(({ label }, index) => `${label} ${this.#values[index].textContent}`);
    this.#svg.setAttribute('aria-label', t('{0}, now: {1}', this.#title, last.join(', ')));
    this.#drawPointer(x);
  }

  #axes(end, span, step, top, x, y) {
    const lines = [];
    for (let value = 0; value <= top + step / 2; value += step) {
      lines.push(createSvg('line', { class: 'grid', x1: LEFT, x2: this.#width - RIGHT, y1: y(value), y2: y(value) }));
      const text = createSvg('text', { class: 'axis', x: LEFT - 8, y: y(value) + 4, 'text-anchor': 'end' });
      text.textContent = formatShort(value);
      lines.push(text);
    }
    const labels = this.#width < NARROW ? 3 : 5;
    const every = [10_000, 15_000, 30_000, 60_000, 120_000].find((each) => span / each <= labels) ?? 120_000;
    for (let at = Math.floor(end / every) * every; at > end - span; at -= every) {
      if (x(at) > this.#width - RIGHT - 20 || x(at) < LEFT + 20) continue;
      const text = createSvg('text', { class: 'axis', x: x(at), y: HEIGHT - 5, 'text-anchor': 'middle' });
      text.textContent = every < MINUTE_MS ? formatClock(at) : formatClock(at).slice(0, 5);
      lines.push(text);
    }
    return lines;
  }

  #point(x) {
    this.#pointer = x;
    this.draw(this.#samples);
  }

  #drawPointer(x) {
    const nearest = this.#pointer === null ? null : closest(this.#samples, (sample) => Math.abs(x(sample.at) - this.#pointer));
    this.#readout.hidden = !nearest;
    if (!nearest) return;
    const at = x(nearest.at);
    this.#svg.append(createSvg('line', { class: 'pointer', x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    this.#readout.replaceChildren(
      create('time', { class: 'readout-time', text: formatClock(nearest.at) }),
      ...this.#series.map(({ label, color, value }) =>
        create(
          'span',
          { class: 'legend-item', data: { color } },
          create('span', { text: label }),
          create('span', { class: 'legend-value', text: this.#format(value(nearest)) }),
        ),
      ),
    );
    this.#readout.style.left = `${at}px`;
    this.#readout.dataset.side = at > this.#width / 2 ? 'left' : 'right';
  }
}

/** Draws a line, and the area below the first one; it is broken where there is no value. */
function draw({ color, value }, samples, x, y, filled) {
  const parts = [];
  let part = null;
  let before = 0;
  for (const sample of samples) {
    const number = value(sample);
    if (number === null || number === undefined) {
      part = null;
      continue;
    }
    if (!part || sample.at - before > HOLE_MS) parts.push((part = []));
    part.push([x(sample.at).toFixed(1), y(number).toFixed(1)]);
    before = sample.at;
  }
  const group = createSvg('g', { class: 'line', 'data-color': color });
  for (const points of parts) {
    const path = `M${points.map((point) => point.join(' ')).join('L')}`;
    // A stroke of no length with round caps is a point.
    group.append(createSvg('path', { class: 'stroke', d: points.length === 1 ? `${path}h0` : path }));
    if (filled) group.prepend(createSvg('path', { class: 'area', d: `${path}V${y(0)}H${points[0][0]}Z` }));
  }
  return [group];
}

/** Time that is shown: a young page has little to show. */
function spanOf(samples) {
  const span = samples.length ? samples.at(-1).at - samples[0].at : 0;
  return Math.min(WINDOW_MS, Math.max(MINUTE_MS, span));
}

/** The next of 1, 2, 5, 10, 20, … */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return power * ([1, 2, 5].find((each) => each * power >= least) ?? 10);
}

function closest(samples, distance) {
  let best = null;
  for (const sample of samples) if (!best || distance(sample) < distance(best)) best = sample;
  return best;
}

/** Good and bad times in a row. */
export class Strip {
  element;
  #svg;
  #state;
  #value;

  /**
   * @param {string} title
   * @param {(sample: Sample) => 'ok' | 'bad' | 'unknown'} state
   */
  constructor(title, state) {
    this.#state = state;
    this.#svg = createSvg('svg', { class: 'strip', preserveAspectRatio: 'none', role: 'img' });
    this.#value = create('span', { class: 'strip-value' });
    this.element = create(
      'div',
      { class: 'card strip-card' },
      create('div', { class: 'card-head' }, create('h2', { class: 'card-title', text: title }), this.#value),
      this.#svg,
    );
  }

  /**
   * @param {Sample[]} samples
   * @param {string} text of the last state
   */
  draw(samples, text) {
    const end = samples.at(-1)?.at ?? Date.now();
    const span = spanOf(samples);
    const rects = [];
    samples.forEach((sample, index) => {
      const state = this.#state(sample);
      const next = Math.min(samples[index + 1]?.at ?? sample.at + 1_000, sample.at + HOLE_MS);
      const last = rects.at(-1);
      const from = (span - (end - sample.at)) / 1000 - 1;
      const width = (next - sample.at) / 1000;
      if (last?.state === state && Math.abs(last.from + last.width - from) < 0.01) last.width += width;
      else rects.push({ state, from, width });
    });
    this.#svg.setAttribute('viewBox', `0 0 ${span / 1000} 1`);
    this.#svg.replaceChildren(
      ...rects.map(({ state, from, width }) => createSvg('rect', { 'data-state': state, x: from, y: 0, width, height: 1 })),
    );
    this.#svg.setAttribute('aria-label', text);
    this.#value.textContent = text;
    this.#value.dataset.state = samples.length ? this.#state(samples.at(-1)) : 'unknown';
  }
}
