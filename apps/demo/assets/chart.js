import { t } from './i18n.js';

const POINTS = 60;
const STEP_MS = 1_000;

/** A line of percentages which scrolls to the left, one step with every new value. */
export class Chart {
  #svg;
  #series;
  #area;
  #line;
  #point;
  #values = [];

  /** @param {SVGSVGElement} svg */
  constructor(svg) {
    this.#svg = svg;
    this.#series = svg.querySelector('.chart-series');
    this.#area = svg.querySelector('.chart-area');
    this.#line = svg.querySelector('.chart-line');
    this.#point = svg.querySelector('.chart-point');
  }

  /** @param {number} percent */
  push(percent) {
    // One value more than fits, so that the line does not start inside the plot while it scrolls.
    this.#values = [...this.#values, percent].slice(-POINTS - 1);
    this.#draw();
    this.#scroll();
    this.#svg.setAttribute('aria-label', t('CPU load, last value {0} percent', percent));
  }

  #draw() {
    const first = POINTS - this.#values.length;
    const points = this.#values.map((value, index) => `${first + index} ${100 - value}`);
    const line = `M${points.join('L')}`;
    this.#line.setAttribute('d', line);
    this.#area.setAttribute('d', `${line}V100H${first}Z`);
    // A stroke of no length with round caps: a circle would be stretched with the drawing.
    this.#point.setAttribute('d', `M${points.at(-1)}h0`);
  }

  #scroll() {
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    this.#series.animate([{ transform: 'translateX(1px)' }, { transform: 'none' }], {
      duration: STEP_MS,
      easing: 'linear',
    });
  }
}
