/** A share of noise is sized by what a plan tells of the cohort: with others than that the site does not mask. */
import {
  createSigningKey,
  type FederationView,
  privacySchema,
  secureAggregationSchema,
} from '@tributary/shared-protocol';
import { expect, test } from 'vitest';
import { createGuard } from '../../src/policy/guard.ts';
import { federationView } from '../agent/scripted-coordinator.ts';

const privacy: FederationView['privacy'] = {
  secureAggregation: secureAggregationSchema.parse({}),
  differentialPrivacy: { unit: 'site', noise: 'distributed', clippingNorm: 1, noiseMultiplier: 2 },
  budget: { epsilon: 8, delta: 1e-5 },
};

function guardOf(view: FederationView) {
  const guard = createGuard({
    loaded: { rules: {}, file: undefined },
    ledger: () => {
      throw new Error('nothing is counted here');
    },
    privacyLedger: () => ({ entries: [], add: () => undefined }),
    noised: () => new Map(),
    now: Date.now,
    emit: () => undefined,
    engine: 'auto',
    canWatchMemory: true,
    hasSpooled: () => false,
  });
  guard.checkFederation(view, { minor: 2 });
  return guard;
}

const others = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ name: `site-${i}`, publicKey: createSigningKey().publicKey }));

test('masks with no more sites than the plan told of, and signs no sum of fewer than it told', () => {
  const guard = guardOf({ ...federationView(), privacy });
  const told = { cohortSize: 10, minUpdates: 6 };
  expect(guard.checkMaskingCohort(others(9), told)).toBe(6);
  expect(() => guard.checkMaskingCohort(others(10), told)).toThrow(
    /told of 10 sites.*and 11 are to be summed/,
  );
  // Without shares there is nothing that they were sized by.
  const { differentialPrivacy: _, budget: __, ...masks } = privacy!;
  const plain = guardOf({ ...federationView(), privacy: masks });
  expect(plain.checkMaskingCohort(others(20), told)).toBe(3);
});

test('a federation with shares of noise and without masks is none', () => {
  const { secureAggregation: _, ...bare } = privacy!;
  expect(privacySchema.safeParse(bare).error?.issues).toMatchObject([
    { path: ['differentialPrivacy', 'noise'], message: expect.stringMatching(/a share of the noise only/) },
  ]);
});
