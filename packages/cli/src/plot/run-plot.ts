/** The curves of a run, from its events: loss and one metric over the rounds, central, weighted and by site. */
import type { RunEvent } from '@tributary/shared-protocol';
import { plotCurves, type Series } from './curves.ts';

export interface RunPlotOptions {
  readonly title: string;
  readonly subtitle?: string;
  /** Drawn beside the loss. */
  readonly metric: string;
  /** Sites to draw a line for. */
  readonly sites: readonly string[];
}

type Evaluated = Extract<RunEvent, { type: 'evaluated' }>;

/** The SVG's text. Rounds that were not evaluated are gaps; a round played twice counts as it was played last. */
export function plotRun(events: readonly RunEvent[], options: RunPlotOptions): string {
  const byRound = new Map<number, Evaluated>();
  for (const event of events) if (event.type === 'evaluated') byRound.set(event.round, event);
  const rounds = Array.from({ length: Math.max(1, ...byRound.keys()) }, (_, i) => byRound.get(i + 1));
  const hasCentral = rounds.some((event) => event?.central !== undefined);
  const series = (key: string): Series[] => [
    {
      name: hasCentral ? 'common test set' : 'all sites, weighted',
      main: true,
      values: rounds.map((e) => (hasCentral ? e?.central : e?.metrics)?.[key]),
    },
    ...options.sites.map((name) => ({
      name,
      values: rounds.map((e) => e?.sites.find((site) => site.name === name)?.metrics[key]),
    })),
  ];
  return plotCurves({
    title: options.title,
    ...(options.subtitle === undefined ? {} : { subtitle: options.subtitle }),
    panels: [
      { title: 'loss', min: 0, series: series('loss') },
      { title: options.metric, max: 1, series: series(options.metric) },
    ],
  });
}
