import { describe, expect, test } from 'vitest';
import { plotCurves } from '../../src/plot/curves.ts';
import { plotRun } from '../../src/plot/run-plot.ts';

describe('plotCurves', () => {
  const svg = plotCurves({
    title: 'A <b> & "c"',
    panels: [
      {
        title: 'loss',
        min: 0,
        max: 1,
        series: [
          { name: 'main', main: true, values: [1, 0.5, 0] },
          { name: 's', values: [1, undefined, 0] },
        ],
      },
    ],
  });

  test('draws a value at its place: 440 wide, 300 high, the first round left, 0 at the bottom', () => {
    // Three rounds: x = 0, 220, 440. y = 300 * (1 - value).
    expect(svg).toContain('d="M0 0 L220 150 L440 300"');
  });

  test('leaves a gap where a round was not measured', () => {
    expect(svg).toContain('d="M0 0 h0.01"');
    expect(svg).toContain('d="M440 300 h0.01"');
  });

  test('text is escaped, and nothing outside the file is referred to', () => {
    expect(svg).toContain('A &lt;b&gt; &amp; &quot;c&quot;');
    expect(svg).not.toMatch(/<b>|href|<script|url\(/);
  });

  test('a run of one round, of equal values and of none is drawn all the same', () => {
    for (const values of [[0.5], [0.5, 0.5, 0.5], [], [Number.NaN]]) {
      const one = plotCurves({
        title: 't',
        panels: [{ title: 'loss', series: [{ name: 'm', main: true, values }] }],
      });
      expect(one).not.toMatch(/NaN|Infinity/);
    }
  });
});

describe('plotRun', () => {
  test('the main line is the central one where there is any, and a replayed round counts as it was last', () => {
    const event = (at: number, accuracy: number) =>
      ({
        at,
        type: 'evaluated',
        round: 1,
        metrics: { loss: 1, accuracy: 0.1 },
        sites: [],
        central: { loss: 0.3, accuracy },
      }) as const;
    const svg = plotRun([event(1, 0.25), event(2, 0.75)], { title: 't', metric: 'accuracy', sites: [] });
    expect(svg).toContain('common test set');
    expect(svg).toContain('>0.7500<');
    expect(svg).not.toContain('>0.2500<');
  });
});
