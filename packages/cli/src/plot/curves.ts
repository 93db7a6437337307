/**
 * Training curves as one SVG file: loss on the left, accuracy on the right, a line a series. It holds its own light
 * and dark colours (the reader's setting decides), no script and no outside reference, so that it opens anywhere.
 */
import { formatMetric } from '../terminal/numbers.ts';

export interface Series {
  readonly name: string;
  /** One value a round from `firstRound`; undefined leaves a gap. */
  readonly values: readonly (number | undefined)[];
  /** Drawn strongly, on top, with its last value written beside it. */
  readonly main?: boolean;
}

export interface Panel {
  readonly title: string;
  readonly series: readonly Series[];
  /** Bounds of the vertical axis; what is not given follows from the values. */
  readonly min?: number;
  readonly max?: number;
}

export interface PlotOptions {
  readonly title: string;
  readonly subtitle?: string;
  /** @default 1 */
  readonly firstRound?: number;
  readonly panels: readonly Panel[];
}

const PANEL_WIDTH = 440;
const PANEL_HEIGHT = 300;
const MARGIN = { top: 92, right: 66, bottom: 64, left: 54 };
/** Told apart by colour-blind readers too (Okabe and Ito 2008); the main line has the text's own colour. */
const HUES = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'];

const STYLE = `
  svg { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; background: #ffffff; color: #1c2024 }
  text { fill: currentColor; font-size: 12px }
  .paper { fill: #ffffff } .title { font-size: 18px; font-weight: 600 } .panel { font-size: 13px; font-weight: 600 }
  .soft { fill: #6b7280 } .grid { stroke: #e5e7eb; stroke-width: 1 } .axis { stroke: #9ca3af; stroke-width: 1 }
  .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; opacity: .85 }
  .main { stroke: currentColor; stroke-width: 2.8; opacity: 1 } .dot { fill: currentColor }
  @media (prefers-color-scheme: dark) {
    svg { background: #16181b; color: #eceef0 } .paper { fill: #16181b }
    .soft { fill: #9aa2ab } .grid { stroke: #2a2e33 } .axis { stroke: #596069 }
  }`;

/** The SVG's text. Values that are not finite count as gaps. */
export function plotCurves(options: PlotOptions): string {
  const width = options.panels.length * (PANEL_WIDTH + MARGIN.left + MARGIN.right);
  const height = PANEL_HEIGHT + MARGIN.top + MARGIN.bottom;
  const firstRound = options.firstRound ?? 1;
  const names = [
    ...new Set(options.panels.flatMap((panel) => panel.series.filter((s) => !s.main).map((s) => s.name))),
  ];
  const hue = (name: string) => HUES[names.indexOf(name) % HUES.length]!;
  const panels = options.panels.map((panel, i) => {
    const left = i * (PANEL_WIDTH + MARGIN.left + MARGIN.right) + MARGIN.left;
    return `<g transform="translate(${left} ${MARGIN.top})">${drawPanel(panel, firstRound, hue)}</g>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${xmlText(options.title)}</title>
<style>${STYLE}
</style>
<rect class="paper" width="${width}" height="${height}"/>
<text class="title" x="${MARGIN.left}" y="34">${xmlText(options.title)}</text>
${options.subtitle === undefined ? '' : `<text class="soft" x="${MARGIN.left}" y="54">${xmlText(options.subtitle)}</text>`}
${panels.join('\n')}
${legend(options.panels[0]?.series ?? [], hue, height - 16)}
</svg>
`;
}

function drawPanel(panel: Panel, firstRound: number, hue: (name: string) => string): string {
  const rounds = Math.max(1, ...panel.series.map((series) => series.values.length));
  const values = panel.series.flatMap((series) => series.values).filter(isNumber);
  const { min, max, step } = niceAxis(
    panel.min ?? Math.min(...(values.length > 0 ? values : [0])),
    panel.max ?? Math.max(...(values.length > 0 ? values : [1])),
  );
  const x = (index: number) => round(rounds === 1 ? PANEL_WIDTH / 2 : (index / (rounds - 1)) * PANEL_WIDTH);
  const y = (value: number) => round(PANEL_HEIGHT - ((value - min) / (max - min)) * PANEL_HEIGHT);

  const parts = [`<text class="panel" x="0" y="-12">${xmlText(panel.title)}</text>`];
  for (let tick = min; tick <= max + step / 2; tick += step) {
    parts.push(
      `<line class="grid" x1="0" x2="${PANEL_WIDTH}" y1="${y(tick)}" y2="${y(tick)}"/>`,
      `<text class="soft" x="-8" y="${y(tick) + 4}" text-anchor="end">${Number(tick.toFixed(6))}</text>`,
    );
  }
  parts.push(`<line class="axis" x1="0" x2="${PANEL_WIDTH}" y1="${PANEL_HEIGHT}" y2="${PANEL_HEIGHT}"/>`);
  const every = Math.max(1, Math.ceil(rounds / 12));
  for (let i = 0; i < rounds; i += every) {
    parts.push(
      `<text class="soft" x="${x(i)}" y="${PANEL_HEIGHT + 18}" text-anchor="middle">${firstRound + i}</text>`,
    );
  }
  for (const series of [...panel.series].sort((a, b) => Number(a.main ?? false) - Number(b.main ?? false))) {
    parts.push(drawSeries(series, x, y, hue));
  }
  return parts.join('\n');
}

function drawSeries(
  series: Series,
  x: (i: number) => number,
  y: (v: number) => number,
  hue: (name: string) => string,
): string {
  const style = series.main ? 'class="line main"' : `class="line" stroke="${hue(series.name)}"`;
  const parts = segments(series.values).map((points) => {
    const path = points.map(([i, value], at) => `${at === 0 ? 'M' : 'L'}${x(i)} ${y(value)}`).join(' ');
    // A lone point has no line: a round dot of no length shows it.
    return `<path ${style} d="${points.length === 1 ? `${path} h0.01` : path}"/>`;
  });
  const last = series.values.findLastIndex(isNumber);
  if (series.main && last >= 0) {
    const value = series.values[last]!;
    parts.push(
      `<circle class="dot" cx="${x(last)}" cy="${y(value)}" r="4"/>`,
      `<text x="${x(last) + 10}" y="${y(value) + 4}" font-weight="600">${formatMetric(value)}</text>`,
    );
  }
  return parts.join('\n');
}

/** Runs of neighbouring values, with their indices. */
function segments(values: readonly (number | undefined)[]): [number, number][][] {
  const out: [number, number][][] = [];
  let open: [number, number][] = [];
  for (const [i, value] of values.entries()) {
    if (isNumber(value)) {
      if (open.length === 0) out.push(open);
      open.push([i, value]);
    } else open = [];
  }
  return out;
}

function legend(series: readonly Series[], hue: (name: string) => string, y: number): string {
  let left = MARGIN.left;
  return series
    .map((one) => {
      const at = left;
      left += 44 + one.name.length * 7.5;
      const stroke = one.main ? 'class="line main"' : `class="line" stroke="${hue(one.name)}"`;
      return `<path ${stroke} d="M${at} ${y - 4} h18"/><text x="${at + 26}" y="${y}">${xmlText(one.name)}</text>`;
    })
    .join('');
}

/** Bounds and a step of 1, 2 or 5 times a power of ten that hold [low, high] in at most 6 steps. */
function niceAxis(low: number, high: number): { min: number; max: number; step: number } {
  const span = high - low > 0 ? high - low : Math.max(Math.abs(high), 1) * 0.1;
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough - 1e-12)!;
  const min = Math.floor(low / step + 1e-9) * step;
  const max = Math.max(min + step, Math.ceil(high / step - 1e-9) * step);
  return { min, max, step };
}

function isNumber(value: number | undefined): value is number {
  return value !== undefined && Number.isFinite(value);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function xmlText(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
}
