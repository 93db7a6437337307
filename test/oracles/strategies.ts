/**
 * The strategies against an independent float64 implementation: each case gives the weights that the sites came back
 * with, round after round, and the new global weights. A case runs as a round does: configuration, updates as frames
 * in files, the fold, the strategy's own state carried on. Cases of a strategy that there is not yet are listed.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  ConfigError,
  checkConfig,
  createFold,
  createStrategy,
  type FederationConfig,
  resolveFederation,
  type StreamingStrategy,
} from '@tributary/coordinator';
import { encodeFrame, type Tensor } from '@tributary/shared-protocol';
import { z } from 'zod';
import type { Score, Subject } from './score.ts';

const numbers = z.array(z.number());
const form = z.object({
  about: z.string().optional(),
  cases: z.array(
    z.object({
      name: z.string(),
      strategy: z.string(),
      options: z.record(z.string(), z.unknown()),
      initial: numbers,
      rounds: z.array(
        z.object({
          updates: z.array(z.object({ nodeId: z.string(), numExamples: z.number(), weights: numbers })),
          expected: numbers,
        }),
      ),
      tolerance: z.number(),
    }),
  ),
});
type Case = z.infer<typeof form>['cases'][number];

export const strategies: Subject = async (oracle, score) => {
  const { cases } = form.parse(oracle);
  for (const one of cases) {
    if (!isBuilt(one.strategy)) score.skip(`${one.strategy}: ${one.name}`);
    else await play(one, score).catch((error: unknown) => score.error(one.name, error));
  }
};

function configOf(strategy: object): FederationConfig {
  const plan = strategy as FederationConfig['strategy'];
  return { name: 'oracle', model: 'flat', classes: ['a', 'b'], strategy: plan };
}

/** Whether the configuration knows a strategy of this name, whatever its options. */
function isBuilt(name: string): boolean {
  try {
    checkConfig(configOf({ name }));
    return true;
  } catch (error) {
    if (error instanceof ConfigError) return !error.issues.some(({ path }) => path === 'strategy.name');
    throw error;
  }
}

async function play(
  { name, strategy: strategyName, options, initial, rounds, tolerance }: Case,
  score: Score,
) {
  const global = Float32Array.from(initial);
  const weights = [flat(global)];
  const artifact = { name: 'flat', topology: '{}', weights, frozenWeights: [] };
  const federation = resolveFederation(configOf({ name: strategyName, ...options }), artifact);
  const strategy = createStrategy(federation);
  let state = strategy.init(weights);
  const reached: number[] = [];
  for (const { updates } of rounds) {
    const sent = updates.map(({ nodeId, numExamples, weights: local }) => ({
      name: nodeId,
      numExamples,
      tensor: flat(Float32Array.from(local, (weight, i) => weight - global[i]!)),
    }));
    const mean = await fold(strategy, sent);
    state = strategy.aggregateTrain(state, [global], mean);
    reached.push(...global);
  }
  score.numbers(
    name,
    reached,
    rounds.flatMap(({ expected }) => expected),
    tolerance,
  );
}

async function fold(
  strategy: StreamingStrategy,
  updates: readonly { name: string; numExamples: number; tensor: Tensor }[],
) {
  const dir = await mkdtemp(join(tmpdir(), 'tributary-strategies-'));
  try {
    const { name, shape } = updates[0]!.tensor;
    const sums = createFold([{ name, shape }], strategy);
    for (const update of updates) {
      const path = join(dir, update.name);
      const frame = encodeFrame([update.tensor]);
      await writeFile(path, frame);
      const facts = { name: update.name, numExamples: update.numExamples, metrics: {} };
      const incoming = sums.begin(facts, frame.byteLength);
      incoming.write(frame);
      await incoming.finish(path);
    }
    return sums.mean();
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function flat(data: Float32Array): Tensor {
  return { name: 'w', dtype: 'float32', shape: [data.length], data };
}
