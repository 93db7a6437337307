/** Whole rounds with real keys. */
import { expect, test } from 'vitest';
import { decodeMean, type SecaggResult, type SecaggSite } from '../../src/index.ts';
import {
  codeOf,
  examplesOf,
  type Federation,
  federation,
  plainSum,
  play,
  STAGES,
  sharesTold,
  updateOf,
} from './federation.ts';

test.each([3, 5, 10, 50])('gives the plain sum of %i sites, bit for bit', (n) => {
  const members = federation(n, { parameters: 40 });
  const { result, error, unmask } = play(members, new Map());
  expect(error).toBeUndefined();
  expect(result!.survivors).toEqual(members.ids);
  expect(result).toMatchObject(plainSum(members.coordinator().plan, members.ids));
  expect(result!.sums.some((sum) => sum > 0)).toBe(true);
  expect(unmask.flatMap((message) => message.maskKeyShares)).toEqual([]);
});

test('gives the exact sum when any one of five sites drops out at any stage', () => {
  const members = federation(5);
  const { plan } = members.coordinator();
  for (const id of members.ids)
    for (const stage of STAGES.slice(0, 5)) {
      const { result, error } = play(members, new Map([[id, stage]]));
      expect(error).toBeUndefined();
      const isIn = STAGES.indexOf(stage) > 2;
      const survivors = members.ids.filter((other) => isIn || other !== id);
      expect(result!.survivors).toEqual(survivors);
      expect(result).toMatchObject(plainSum(plan, survivors));
    }
});

test('gives the exact sum in a ring, with drop-outs at every stage', () => {
  // Of 10 neighbours 6 are enough: the three that fall silent after their keys can all be one site's.
  const members = federation(24, { harary: { degree: 10, threshold: 6 }, threshold: 13 });
  const silent = ['keys', 'shares', 'masked', 'signature'] as const;
  const { result, error } = play(members, new Map(silent.map((stage, i) => [members.ids[i]!, stage])));
  expect(error).toBeUndefined();
  expect(result!.survivors).toEqual(members.ids.slice(3));
  expect(result).toMatchObject(plainSum(members.coordinator().plan, members.ids.slice(3)));
});

test.each(STAGES.slice(0, 5))(
  'two of five that drop out at stage %s end the round: no secret is told, at no stage before the last a share',
  (stage) => {
    const members = federation(5);
    const played = play(members, new Map([...['s01', 's03'].map((id) => [id, stage] as const)]));
    expect(played.result).toBeUndefined();
    expect(played.error).toMatchObject({ code: 'FED_PRIVACY_SECAGG_TOO_FEW' });
    if (stage !== 'unmask') expect(played.unmask).toEqual([]);
    for (const shares of sharesTold(played).values()) expect(shares).toBeLessThan(4);
  },
);

test('the mean of the sum is the weighted mean of the clipped updates, within a step of the fixed point', () => {
  const members = federation(5, { parameters: 200 });
  const { plan } = members.coordinator();
  const { result } = play(members, new Map());
  const mean = new Float32Array(200);
  decodeMean(result!.sums, result!.totalWeight, plan.fixedPoint, mean);
  const total = members.ids.reduce((sum, id) => sum + examplesOf(id), 0);
  expect(result!.totalWeight).toBe(total);
  for (let i = 0; i < 200; i++) {
    const exact = members.ids.reduce((sum, id) => {
      const clipped = Math.min(1, Math.max(-1, updateOf(id, 200)[i]!));
      return sum + (clipped * examplesOf(id)) / total;
    }, 0);
    expect(Math.abs(mean[i]! - exact)).toBeLessThan(2 / 2 ** 12);
  }
});

test('an update in several arrays is the same as in one', () => {
  const members = federation(3, { parameters: 40_000 });
  const cut = (update: Float32Array) => [
    update.subarray(0, 7),
    update.subarray(7, 7),
    update.subarray(7, 20_000),
    update.subarray(20_000),
  ];
  const round = (parts: (update: Float32Array) => Float32Array[]) =>
    sumOf(members, (id) => parts(updateOf(id, 40_000)), examplesOf);
  expect(round(cut)).toEqual(round((update) => [update]));
});

test.each([3, 10, 50])(
  'section 6, 11 (PySyft 6954, 2706): %i sites at the ends of the range with the largest weight: no sum wraps',
  (n) => {
    const members = federation(n, { parameters: 3 });
    const { fixedPoint } = members.coordinator().plan;
    const { sums, totalWeight } = sumOf(
      members,
      () => [Float32Array.of(1, -1, 0)],
      () => 100,
    );
    // 100 times the last, the first and the middle level of 2^12 steps, n times.
    expect([...sums]).toEqual([2 ** 12 * 100 * n, 0, 2 ** 11 * 100 * n]);
    expect(totalWeight).toBe(100 * n);
    // They are tight: the largest sum has the highest bit of a word.
    expect(sums[0]).toBeGreaterThanOrEqual(2 ** (fixedPoint.bits - 1));
    const mean = new Float32Array(3);
    decodeMean(sums, totalWeight, fixedPoint, mean);
    expect([...mean]).toEqual([1, -1, 0]);
  },
);

test('a site answers each stage once and in order; asked again, it says nothing and is none the worse', () => {
  const members = federation(3);
  const site: SecaggSite = members.site('s00');
  const others = ['s01', 's02'].map((id) => members.site(id));
  expect(codeOf(() => site.shareKeys([]))).toBe('FED_PRIVACY_SECAGG_STAGE');
  const keys = [site, ...others].map((one) => one.advertiseKeys());
  expect(codeOf(() => site.advertiseKeys())).toBe('FED_PRIVACY_SECAGG_STAGE');
  expect(codeOf(() => site.unmask({ survivors: [], signatures: [] }))).toBe('FED_PRIVACY_SECAGG_STAGE');
  expect(site.shareKeys(keys).envelopes.map(({ to }) => to)).toEqual(['s01', 's02']);
});

/** A round that nobody leaves, of these updates and examples. */
function sumOf(
  members: Federation,
  update: (id: string) => Float32Array[],
  numExamples: (id: string) => number,
): SecaggResult {
  const sites = members.ids.map((id) => members.site(id));
  const coordinator = members.coordinator();
  for (const site of sites) coordinator.receiveKeys(site.advertiseKeys());
  const keys = coordinator.closeKeys();
  for (const site of sites) coordinator.receiveShares(site.shareKeys(keys));
  const deliveries = coordinator.closeShares();
  for (const site of sites) {
    const delivery = deliveries.get(site.site)!;
    const { message } = site.mask(delivery, update(site.site), numExamples(site.site));
    coordinator.receiveMasked(message);
  }
  const survivors = coordinator.closeMasked();
  for (const site of sites) coordinator.receiveSignature(site.signSurvivors(survivors));
  const request = coordinator.closeSignatures();
  for (const site of sites) coordinator.receiveUnmask(site.unmask(request));
  return coordinator.finish();
}
