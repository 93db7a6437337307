import { secureAggregationSchema, sha256 } from '@tributary/shared-protocol';
import { describe, expect, test } from 'vitest';
import { matchesAddress, parseAddress } from '../../src/policy/addresses.ts';
import { parsePolicy } from '../../src/policy/load.ts';
import { type FederationFacts, judge, strangersIn } from '../../src/policy/rules.ts';

const NOON = new Date(2026, 2, 2, 12).getTime();
const MIB = 2 ** 20;
const CERTIFICATE = 'c'.repeat(64);
const federation = { topology: '{}', rounds: 10, modelBytes: 10 * MIB, frozenWeights: [] };

function verdictOn(policy: string, facts: Partial<FederationFacts> = {}) {
  const all = judge(parsePolicy(policy, 'p.yaml'), { at: NOON, ...facts });
  expect(all).toHaveLength(1);
  return all[0]!;
}

describe('addresses', () => {
  test.each([
    ['https://hub.example.org', 'https://hub.example.org:7700', true],
    ['https://hub.example.org:7700', 'https://hub.example.org:7700', true],
    ['https://hub.example.org:443', 'https://hub.example.org', true],
    ['https://hub.example.org:443', 'https://hub.example.org:7700', false],
    ['https://*.example.org', 'https://a.b.example.org:1', true],
    ['https://*.example.org', 'https://evil-example.org', false],
    ['https://*.example.org', 'https://a.example.org.evil.net', false],
    ['https://*.example.org', 'https://a.example.org@evil.net', false],
    ['https://hub', 'http://hub', false],
    ['https://[::1]:7700', 'https://[::1]:7700', true],
    ['https://HUB', 'https://hub:7700', true],
    // Every server of a cluster must fit.
    ['tls://*.example.org', 'tls://a.example.org:4222,b.example.org:4222/ward', true],
    ['tls://*.example.org', 'tls://a.example.org:4222,b.evil.net:4222/ward', false],
  ])('%s and %s: %s', (pattern, address, fits) => {
    expect(matchesAddress(parseAddress(pattern)!, address)).toBe(fits);
  });
});

describe('judge', () => {
  test('coordinators: one entry has to fit, and all of that entry', () => {
    const policy = `coordinators: [{ url: "https://hub", fingerprint: ${CERTIFICATE} }, https://other]`;
    const on = (url: string, fingerprint?: string) =>
      verdictOn(policy, { coordinator: { url, fingerprint } });
    expect(on('https://hub:7700', CERTIFICATE).state).toBe('ok');
    expect(on('https://other:1', undefined).state).toBe('ok');
    expect(on('https://hub:7700', 'd'.repeat(64))).toMatchObject({ code: 'FED_POLICY_COORDINATOR' });
    // An address alone proves nothing where a certificate is asked for.
    expect(on('https://hub:7700', undefined)).toMatchObject({ code: 'FED_POLICY_COORDINATOR' });
    expect(verdictOn(policy).state).toBe('unknown');
  });

  test('models: the digest of the topology has to be listed, and is told', () => {
    expect(verdictOn(`models: [${sha256('{}')}]`, { federation }).state).toBe('ok');
    expect(verdictOn(`models: [${'f'.repeat(64)}]`, { federation })).toMatchObject({
      code: 'FED_POLICY_MODEL',
      detail: expect.stringContaining(sha256('{}')),
    });
  });

  test('minCohort: the fewest updates that a round may close with count', () => {
    expect(verdictOn('minCohort: 5', { minUpdates: 5 }).state).toBe('ok');
    expect(verdictOn('minCohort: 5', { minUpdates: 4 })).toMatchObject({ code: 'FED_POLICY_COHORT' });
    expect(verdictOn('minCohort: 5', { tellsCohort: false })).toMatchObject({ code: 'FED_POLICY_COHORT' });
    expect(verdictOn('minCohort: 5', { tellsCohort: true }).state).toBe('ok');
  });

  test('privacy: secure aggregation is held against what the federation offers', () => {
    const rule = 'privacy: { secureAggregation: true }';
    expect(verdictOn(rule).state).toBe('unknown');
    expect(verdictOn(rule, { federation })).toMatchObject({
      code: 'FED_POLICY_PRIVACY',
      detail: expect.stringMatching(/^secure aggregation is required/),
    });
    const masked = { ...federation, privacy: { secureAggregation: secureAggregationSchema.parse({}) } };
    expect(verdictOn(rule, { federation: masked })).toMatchObject({
      state: 'ok',
      detail: 'each update is masked, and the coordinator learns their sum',
    });
    const both = 'privacy: { secureAggregation: true, differentialPrivacy: true }';
    expect(verdictOn(both, { federation: masked })).toMatchObject({
      code: 'FED_POLICY_PRIVACY',
      detail: expect.stringMatching(/^differential privacy is required/),
    });
    expect(verdictOn('privacy: { secureAggregation: false }').state).toBe('ok');
  });

  test('privacy: with peers, updates are masked with those sites and keys only', () => {
    const [north, south] = ['N'.repeat(42).concat('A'), 'S'.repeat(42).concat('A')] as const;
    const policy = parsePolicy(`privacy: { secureAggregation: { peers: { north: ${north} } } }`, 'p.yaml');
    expect(strangersIn(policy, [{ name: 'north', publicKey: north }])).toBeUndefined();
    for (const stranger of [
      { name: 'north', publicKey: south },
      { name: 'south', publicKey: south },
    ])
      expect(strangersIn(policy, [stranger])).toMatch(`"${stranger.name}" (key ${south})`);
    expect(
      strangersIn(parsePolicy('privacy: { secureAggregation: true }', 'p.yaml'), [
        { name: 'x', publicKey: south },
      ]),
    ).toBe(undefined);
  });

  test('privacy: what a federation offers is held against what is required', () => {
    const rule =
      'privacy: { differentialPrivacy: { minNoiseMultiplier: 1 }, budget: { epsilon: 3, delta: 1e-5 } }';
    const offers = (noiseMultiplier: number) => ({
      ...federation,
      privacy: {
        differentialPrivacy: { unit: 'record' as const, clippingNorm: 1, noiseMultiplier },
        budget: { epsilon: 8, delta: 1e-5 },
      },
    });
    expect(verdictOn(rule)).toMatchObject({ state: 'unknown' });
    expect(verdictOn(rule, { federation })).toMatchObject({
      code: 'FED_POLICY_PRIVACY',
      detail: expect.stringContaining(
        'differential privacy and a budget of epsilon 3 at delta 0.00001 is required',
      ),
    });
    expect(verdictOn(rule, { federation: offers(0.9) })).toMatchObject({ code: 'FED_POLICY_PRIVACY' });
    expect(verdictOn(rule, { federation: offers(1) })).toMatchObject({
      state: 'ok',
      detail: expect.stringContaining('this site stops at epsilon 3'),
    });
  });

  test('privacy: noise that the coordinator adds is enough only where the policy says so', () => {
    const offers = (noise: 'coordinator' | 'site', clippingNorm = 2) => ({
      federation: {
        ...federation,
        privacy: {
          differentialPrivacy: { unit: 'site' as const, noise, clippingNorm, noiseMultiplier: 3 },
          budget: { epsilon: 8, delta: 1e-5 },
        },
      },
    });
    for (const rule of [
      'privacy: { differentialPrivacy: true }',
      'privacy: { differentialPrivacy: { noise: site } }',
      'privacy: { budget: { epsilon: 3, delta: 1e-5 } }',
    ]) {
      expect(verdictOn(rule, offers('coordinator'))).toMatchObject({
        code: 'FED_POLICY_PRIVACY',
        detail: expect.stringMatching(/sees this site’s update without it.*noise: coordinator/),
      });
      expect(verdictOn(rule, offers('site'))).toMatchObject({
        state: 'ok',
        detail: expect.stringMatching(
          /^this site is protected as a whole, by noise on its update before it leaves/,
        ),
      });
    }
    const trusting = 'privacy: { differentialPrivacy: { noise: coordinator, maxClippingNorm: 2 } }';
    expect(verdictOn(trusting, offers('coordinator'))).toMatchObject({
      state: 'ok',
      detail: expect.stringContaining(
        'by noise that the coordinator adds: noise multiplier 3, clipping norm 2',
      ),
    });
    expect(verdictOn(trusting, offers('site')).state).toBe('ok');
    expect(verdictOn(trusting, offers('coordinator', 2.1)).code).toBe('FED_POLICY_PRIVACY');
  });

  test('maxBytesPerDay: a model and an update have to fit into a day', () => {
    // 10 MiB each way: 20 a round.
    expect(verdictOn('maxBytesPerDay: 20 MiB', { federation })).toMatchObject({
      state: 'ok',
      detail: '20 MiB, about 1 round a day',
    });
    expect(verdictOn('maxBytesPerDay: 19 MiB', { federation })).toMatchObject({ code: 'FED_POLICY_BYTES' });
  });

  test('hours: outside of them is later, not refused', () => {
    expect(verdictOn('hours: "20:00-06:00"')).toMatchObject({
      state: 'later',
      detail: '20:00-06:00; closed until 2026-03-02 20:00',
    });
    expect(verdictOn('hours: "08:00-18:00"').state).toBe('ok');
  });

  test('engines: an engine that was asked for has to be listed, auto chooses among them', () => {
    expect(verdictOn('engines: [wasm]', { engine: 'auto' }).state).toBe('ok');
    expect(verdictOn('engines: [wasm]', { engine: 'cpu' })).toMatchObject({ code: 'FED_POLICY_ENGINE' });
  });

  test('maxMemory: a system that does not tell memory can not keep it', () => {
    expect(verdictOn('maxMemory: 1 GiB', { canWatchMemory: false })).toMatchObject({
      code: 'FED_POLICY_MEMORY',
    });
  });
});
