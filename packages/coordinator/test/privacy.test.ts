/** A privacy budget is spent, by the log's own account, and the run ends before it is overdrawn. */
import { epsilonSpent } from '@tributary/privacy';
import { secureAggregationSchema } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import { unsoundWithPrivacy } from '../src/config/privacy-rules.ts';
import { type FederationConfig, resolveFederation } from '../src/index.ts';
import { adds, artifact, baseConfig, records, startRun, temporaryDir } from './federation.ts';

const differentialPrivacy = { unit: 'record', clippingNorm: 1, noiseMultiplier: 1 } as const;
const DELTA = 1e-5;
const BATCH = 10;
/** Of each site; 100 images in batches of 10. */
const site = { trainExamples: 100 };
/** What so many rounds of one epoch cost such a site. */
const costOf = (rounds: number): number =>
  epsilonSpent(
    Array.from({ length: rounds }, () => ({
      noiseMultiplier: 1,
      trainExamples: 100,
      batchSize: BATCH,
      epochs: 1,
    })),
    DELTA,
  );
const privateRun = (epsilon: number, more: Partial<FederationConfig> = {}): Partial<FederationConfig> => ({
  rounds: 10,
  cohort: { quorum: 1 },
  training: { batchSize: BATCH, epochs: 1 },
  privacy: { differentialPrivacy, budget: { epsilon, delta: DELTA } },
  ...more,
});
const trainsOn = (numExamples: number): ReturnType<typeof adds> => adds(1, numExamples);
const trains = { site, train: trainsOn(100) };

describe('a privacy budget', () => {
  it('ends the run before the round that would overdraw it; the models so far are kept', async () => {
    const run = await startRun(privateRun(costOf(3) + 1e-6));
    await run.join('a', trains);
    const summary = await run.coordinator.run();
    expect(summary).toMatchObject({ reason: 'privacy-budget', rounds: 3 });
    expect(summary.message).toMatch(/no room for round 4; the best model is that of round 3/);

    const commits = records(run).flatMap((record) => (record.type === 'committed' ? [record] : []));
    expect(commits.map(({ epsilonSpent: spent }) => spent)).toEqual([1, 2, 3].map((n) => ({ a: costOf(n) })));
    expect(run.events.filter(({ type }) => type === 'committed').at(-1)).toMatchObject({
      privacy: { epsilonSpent: costOf(3), budget: { epsilon: costOf(3) + 1e-6, delta: DELTA } },
    });
  });

  it('is not forgotten when the coordinator starts again', async () => {
    const runDir = temporaryDir();
    const config = privateRun(costOf(2) + 1e-6);
    const first = await startRun({ ...config, deadlines: { quorumSeconds: 0.3 } }, { runDir });
    let trained = 0;
    const worker = await first.join('a', {
      ...trains,
      train: (job) => {
        trained += 1;
        return trained > 1 ? undefined : trainsOn(100)(job);
      },
    });
    const playing = first.coordinator.run();
    await first.event('committed');
    await first.coordinator.close();
    await playing.catch(() => undefined);

    const second = await startRun({ ...config, deadlines: { quorumSeconds: 0.3 } }, { runDir });
    await second.join('a', { ...trains, credential: worker.credential });
    expect(await second.coordinator.run()).toMatchObject({ reason: 'privacy-budget', rounds: 2 });
  });

  it('leaves out the site that has spent it, and goes on with those that have not', async () => {
    const run = await startRun(privateRun(costOf(2) + 1e-6, { rounds: 3 }));
    await run.join('small', trains);
    await run.join('large', {
      site: { trainExamples: 10_000 },
      train: trainsOn(10_000),
    });
    // Of 10,000 images an epoch is 1,000 steps at a rate of 0.001: cheaper than 10 steps at 0.1.
    const summary = await run.coordinator.run();
    const cohorts = records(run).flatMap((record) =>
      record.type === 'round-started' ? [record.cohort] : [],
    );
    expect(summary).toMatchObject({ reason: 'rounds', rounds: 3 });
    expect(cohorts.at(-1)).toEqual(['large']);
    expect(run.events.find(({ type }) => type === 'warning')).toMatchObject({
      message: expect.stringMatching(/^small: round 3 would overdraw the privacy budget of epsilon/),
    });
  });

  it('Flower 605: epsilons of sites are never added up, nor those of rounds: a run has spent what its dearest site has', async () => {
    const run = await startRun(privateRun(1000, { rounds: 3, cohort: { quorum: 2 } }));
    await run.join('small', trains);
    await run.join('large', { site: { trainExamples: 10_000 }, train: trainsOn(10_000) });
    await run.coordinator.run();
    const spent = records(run).flatMap((record) =>
      record.type === 'committed' ? [record.epsilonSpent!] : [],
    );
    expect(spent.map((epsilons) => epsilons['small'])).toEqual([1, 2, 3].map(costOf));
    expect(costOf(3)).toBeLessThan(2 * costOf(1));
    for (const epsilons of spent) expect(epsilons['large']).toBeLessThan(epsilons['small']!);
    const told = run.events.flatMap((event) => (event.type === 'committed' ? [event.privacy] : []));
    expect(told.map((privacy) => privacy?.epsilonSpent)).toEqual([1, 2, 3].map(costOf));
  });

  it('NVFlare PR 4470: what was spent outlives the end of a run: failed and gone on with, or ended for good', async () => {
    const runDir = temporaryDir();
    const config = privateRun(costOf(3) + 1e-6, { deadlines: { extensions: 0, rejoinSeconds: 0 } });
    let trained = 0;
    const train: typeof trains.train = (job) => {
      trained += 1;
      // No two are the same, as with noise. The second is refused, which fails the run: there is no other site.
      return { ...adds(trained, 100)(job), ...(trained === 2 ? { base: '0'.repeat(64) } : {}) };
    };
    let credential: string | undefined;
    for (const [reason, rounds, total] of [
      ['failed', 1, 2],
      ['privacy-budget', 2, 3],
      ['privacy-budget', 2, 3],
    ] as const) {
      const run = await startRun(config, { runDir });
      if (trained < 3) {
        const site = await run.join('a', { ...trains, train, ...(credential ? { credential } : {}) });
        credential = site.credential;
      }
      expect(await run.coordinator.run()).toMatchObject({ reason, rounds });
      await run.coordinator.close();
      expect(trained).toBe(total);
      const commits = records(run).flatMap((record) => (record.type === 'committed' ? [record] : []));
      const known = [costOf(1), costOf(3)].slice(0, rounds).map((a) => ({ a }));
      expect(commits.map(({ epsilonSpent: spent }) => spent)).toEqual(known);
    }
  });

  it('counts an update that was refused: it has left its site all the same', async () => {
    const run = await startRun(privateRun(costOf(2) + 1e-6, { deadlines: { extensions: 0 } }));
    let asked = 0;
    await run.join('a', {
      ...trains,
      train: (job) => {
        asked += 1;
        const update = trainsOn(100)(job);
        return asked === 1 ? { ...update, base: '0'.repeat(64) } : update;
      },
    });
    await run.join('b', { ...trains, site: { trainExamples: 100 } });
    await run.coordinator.run();
    const commits = records(run).flatMap((record) => (record.type === 'committed' ? [record] : []));
    expect(commits[0]?.epsilonSpent?.['a']).toBe(costOf(1));
  });
});

describe('settings that would make privacy a lie are refused', () => {
  const resolve = (config: Partial<FederationConfig>, model = artifact) =>
    resolveFederation({ ...baseConfig, ...privateRun(1), ...config }, model);

  it.each([
    [{ evaluation: { sites: true } }, /evaluation\.sites.*leave it without noise.*evaluation\.testDir/s],
    [{ augmentation: { featurewiseCenter: true } }, /augmentation\.featurewiseCenter.*samplewiseCenter/s],
    [{ augmentation: { featurewiseStdNormalization: true } }, /featurewiseStdNormalization/],
    [{ augmentation: { zcaWhitening: true } }, /zcaWhitening.*no noise covers them/s],
    [{ privacy: { differentialPrivacy, budget: { epsilon: 0, delta: DELTA } } }, /privacy\.budget\.epsilon/],
    [
      {
        privacy: {
          differentialPrivacy: { ...differentialPrivacy, noiseMultiplier: 0 },
          budget: { epsilon: 1, delta: 1e-5 },
        },
      },
      /privacy\.differentialPrivacy\.noiseMultiplier/,
    ],
  ] as [Partial<FederationConfig>, RegExp][])('%j', (config, message) => {
    expect(() => resolve(config)).toThrow(message);
  });

  it('FLIP PR 833: another sensitivity than the clipping norm is refused: it makes any epsilon of any noise', () => {
    const own = { ...differentialPrivacy, sensitivity: 1e-4 } as typeof differentialPrivacy;
    expect(() =>
      resolve({ privacy: { differentialPrivacy: own, budget: { epsilon: 1, delta: DELTA } } }),
    ).toThrow(/privacy\.differentialPrivacy.*sensitivity/s);
  });

  it('a model with batch normalisation', () => {
    const topology = JSON.stringify({ config: { layers: [{ class_name: 'BatchNormalization' }] } });
    expect(() => resolve({}, { ...artifact, topology })).toThrow(
      /model.*batch normalisation.*layer normalisation/s,
    );
  });

  it('sites evaluate only where nothing is private', () => {
    expect(resolve({}).evaluation.sites).toBe(false);
    expect(resolveFederation(baseConfig as FederationConfig, artifact).evaluation.sites).toBe(true);
  });
});

describe('settings that would make the privacy of sites a lie are refused', () => {
  const site = { unit: 'site', noise: 'coordinator', clippingNorm: 1, noiseMultiplier: 1 } as const;
  const budget = { epsilon: 1, delta: DELTA };
  const resolve = (config: object, model = artifact, differentialPrivacy: object = site) =>
    resolveFederation(
      { ...baseConfig, privacy: { differentialPrivacy, budget }, ...config } as FederationConfig,
      model,
    );

  it.each([
    [{ evaluation: { sites: true } }, /evaluation\.sites.*leave it without noise.*evaluation\.testDir/s],
    [
      { strategy: { name: 'fed-avg', weighting: 'examples' } },
      /strategy\.weighting.*more examples would move the mean by more.*"uniform"/s,
    ],
    [
      { strategy: { name: 'fed-adam', updateClippingNorm: 5 } },
      /strategy\.updateClippingNorm.*privacy\.differentialPrivacy\.clippingNorm/s,
    ],
  ])('%j', (config, message) => {
    expect(() => resolve(config)).toThrow(message);
  });

  it.each([
    [{ ...site, noise: 'nobody' }, /differentialPrivacy\.noise.*"coordinator", "site"/s],
    [{ ...site, unit: 'patient' }, /differentialPrivacy\.unit.*"record", "site"/s],
    [{ ...site, noise: undefined }, /differentialPrivacy\.noise/],
    [{ ...site, noiseMultiplier: 0 }, /differentialPrivacy\.noiseMultiplier.*more than 0/s],
    [{ ...site, clippingNorm: 0 }, /differentialPrivacy\.clippingNorm.*more than 0/s],
    [
      { ...site, clippingNorm: 'auto' },
      /differentialPrivacy\.clippingNorm.*a number above 0, or \{ initial/s,
    ],
    [
      { ...site, noise: 'site', clippingNorm: { initial: 1 } },
      /differentialPrivacy\.clippingNorm.*adapts needs noise: "coordinator"/s,
    ],
    [
      { ...site, noiseMultiplier: 2, clippingNorm: { initial: 1, countStdDev: 1 } },
      /clippingNorm\.countStdDev.*must be above 1/s,
    ],
    [{ ...site, sensitivity: 1e-4 }, /differentialPrivacy\.sensitivity.*no such key.*clippingNorm/s],
    // On five parameters: 1e8 sqrt(5) 2^-25 is more than a half.
    [{ ...site, noiseMultiplier: 1e8 }, /noiseMultiplier.*finer grid.*less noise/s],
  ])('%j', (differentialPrivacy, message) => {
    expect(() => resolve({}, artifact, differentialPrivacy)).toThrow(message);
  });

  it('noise at the coordinator under masks, where it can clip nothing; and not noise at the sites', () => {
    const masked = (noise: string) =>
      resolve({
        privacy: { secureAggregation: true, differentialPrivacy: { ...site, noise }, budget },
        cohort: { quorum: 3 },
      });
    expect(() => masked('coordinator')).toThrow(
      /differentialPrivacy\.noise.*can clip no update.*"distributed"/s,
    );
    for (const noise of ['site', 'distributed']) expect(masked(noise).strategy.weighting).toBe('uniform');
  });

  it('shares of noise without masks, in a range of the lead’s, or of fewer steps than they need', () => {
    const shares = { ...site, noise: 'distributed' };
    const masked = (secureAggregation: object | boolean, more: object = {}) =>
      resolve({
        privacy: { secureAggregation, differentialPrivacy: { ...shares, ...more }, budget } as never,
        cohort: { quorum: 3 },
      });
    expect(() => masked(false)).toThrow(/differentialPrivacy\.noise.*a share of the noise only/s);
    expect(() => masked({ clippingRange: 2 })).toThrow(/clippingRange.*follows from the clipping norm/s);
    expect(() => masked({ valueBits: 8 })).toThrow(/noiseMultiplier.*take more valueBits/s);
    expect(() => masked(true, { clippingNorm: { initial: 1 } })).toThrow(/clippingNorm.*needs noise/s);
  });

  it.each([
    ['noise', { differentialPrivacy: site, budget }],
    ['masks', { secureAggregation: secureAggregationSchema.parse({}) }],
  ])('a strategy that looks at single updates, under %s', (_, privacy) => {
    const rest = { augmentation: {}, evaluation: {} };
    expect(unsoundWithPrivacy({ privacy, ...rest, strategy: { name: 'krum' } })).toMatchObject([
      { path: ['strategy', 'name'], message: expect.stringMatching(/single updates.*fed-avg/) },
    ]);
    expect(unsoundWithPrivacy({ privacy, ...rest, strategy: { name: 'fed-avg' } })).toEqual([]);
  });

  it('a model with batch normalisation', () => {
    const topology = JSON.stringify({ config: { layers: [{ class_name: 'BatchNormalization' }] } });
    expect(() => resolve({}, { ...artifact, topology })).toThrow(/model.*moving averages.*below zero/s);
  });

  it('while what stays at the site may be computed from all of its images', () => {
    expect(resolve({ augmentation: { featurewiseCenter: true } }).augmentation.featurewiseCenter).toBe(true);
  });

  it('all weigh the same, and sites do not evaluate, where nothing else was asked for', () => {
    expect(resolve({}).strategy.weighting).toBe('uniform');
    expect(resolve({}).evaluation.sites).toBe(false);
    expect(resolveFederation(baseConfig, artifact).strategy.weighting).toBe('examples');
  });
});
