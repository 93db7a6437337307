import { encodeFrame, type Message, type MessageOf } from '@tributary/shared-protocol';
import type { ScriptedJob, ScriptedUpdate } from '@tributary/testkit';
import { describe, expect, it } from 'vitest';
import { readCheckpoint, verifyRunLog } from '../../src/index.ts';
import { adds, artifact, startRun, tensor } from '../federation.ts';

const shapes = artifact.weights.map(({ name, shape }) => ({ name, shape }));
const kernel = tensor('dense/kernel', [1, 1, 1, 1], [2, 2]);
const bias = tensor('dense/bias', [1]);
const fine = { numExamples: 10, tensors: [kernel, bias] };
const oneRound = { rounds: 1, cohort: { quorum: 2, target: 0.6 }, evaluation: { sites: false } };

/** One round with two honest sites and one that offers `bad`. The honest two suffice (0.6 of 3). */
async function playWith(
  bad: (job: ScriptedJob) => ScriptedUpdate,
  onChunk?: (message: MessageOf<'chunk'>, body: Uint8Array) => { message: Message; body: Uint8Array },
) {
  const run = await startRun({ ...oneRound, deadlines: { rejoinSeconds: 5, extensions: 0 } });
  let refused: () => void = () => {};
  const heard = new Promise<void>((resolve) => {
    refused = resolve;
  });
  // The honest ones wait for the refusal, so that the round is open when it is pronounced.
  const honest = async (job: ScriptedJob) => {
    await heard;
    return adds(1)(job);
  };
  const site = await run.join('bad', { train: bad, ...(onChunk ? { onChunk } : {}) });
  await run.join('a', { train: honest });
  await run.join('b', { train: honest });
  const running = run.coordinator.run();
  const refusal = await run.event('update-refused', (e) => e.name === 'bad');
  refused();
  const summary = await running;
  const log = verifyRunLog(`${run.runDir}/log.jsonl`, run.coordinator.logPublicKey);
  expect(log.find((r) => r.type === 'update-refused')).toMatchObject({ name: 'bad', code: refusal.code });
  const { tensors } = readCheckpoint(summary.lastCheckpoint, shapes);
  expect(tensors.map((t) => [...t.data])).toEqual([[2, 3, 4, 5], [1]]);
  return { refusal, site };
}

describe('an update', () => {
  it.each<[string, Partial<ScriptedUpdate> & { tensors?: ScriptedUpdate['tensors'] }, string]>([
    ['of no examples', { numExamples: 0 }, 'FED_UPDATE_EXAMPLES'],
    ['of half an example', { numExamples: 1.5 }, 'FED_UPDATE_EXAMPLES'],
    ['of too many examples', { numExamples: 2 ** 29 }, 'FED_UPDATE_EXAMPLES'],
    ['for a round to come', { round: 2 }, 'FED_UPDATE_ROUND'],
    ['for a round long gone', { round: 0 }, 'FED_UPDATE_STALE'],
    ['relative to another model', { base: '0'.repeat(64) }, 'FED_UPDATE_BASE'],
    ['that declares too few bytes', { ref: { bytes: 3 } }, 'FED_UPDATE_SIZE'],
    ['that declares too many bytes', { ref: { bytes: 2 ** 32 } }, 'FED_UPDATE_SIZE'],
    [
      'with too many metrics',
      { metrics: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`m${i}`, 1])) },
      'FED_UPDATE_METRICS',
    ],
  ])('%s is refused before a byte of it is asked for', async (_what, change, code) => {
    const { refusal, site } = await playWith(() => ({ ...fine, ...change }));
    expect(refusal.code).toBe(code);
    expect(site.receipts).toMatchObject([{ decision: 'refused', code, reason: expect.any(String) }]);
  });

  it.each<[string, Partial<ScriptedUpdate>, string]>([
    ['a missing tensor', { tensors: [kernel, tensor('other', [1])] }, 'FED_UPDATE_MANIFEST'],
    ['a tensor too many', { tensors: [kernel, bias, tensor('more', [1])] }, 'FED_UPDATE_MANIFEST'],
    ['another shape', { tensors: [tensor('dense/kernel', [1, 1, 1, 1], [4]), bias] }, 'FED_UPDATE_MANIFEST'],
    ['another order', { tensors: [bias, kernel] }, 'FED_UPDATE_MANIFEST'],
    [
      'another dtype',
      { tensors: [{ ...kernel, dtype: 'int32', data: new Int32Array(4) }, bias] },
      'FED_UPDATE_MANIFEST',
    ],
    ['NaN', { tensors: [kernel, tensor('dense/bias', [Number.NaN])] }, 'FED_UPDATE_NON_FINITE'],
    [
      'an infinity',
      { tensors: [kernel, tensor('dense/bias', [Number.NEGATIVE_INFINITY])] },
      'FED_UPDATE_NON_FINITE',
    ],
    ['a value beyond the range', { tensors: [kernel, tensor('dense/bias', [1e30])] }, 'FED_UPDATE_RANGE'],
    ['bytes that are no frame', { frame: new Uint8Array(500) }, 'FED_PROTOCOL_FRAME_MALFORMED'],
    ['another digest than declared', { ref: { digest: 'a'.repeat(64) } }, 'FED_PROTOCOL_BLOB_DIGEST'],
  ])('with %s is refused, with the reason', async (_what, change, code) => {
    const serve = encodeFrame(fine.tensors);
    const { refusal, site } = await playWith(
      () => ({ ...fine, ...change }),
      // Serves honest bytes under the digest that was lied about.
      change.ref
        ? ({ digest, index }) => ({ message: { type: 'chunk-data', digest, index }, body: serve })
        : undefined,
    );
    expect(refusal.code).toBe(code);
    expect(await site.until('verdict')).toMatchObject({ accepted: false, code, reason: refusal.reason });
  });

  it('whose chunk is not the one asked for is refused', async () => {
    const { refusal } = await playWith(
      () => fine,
      (message, body) => ({
        message: { type: 'chunk-data', digest: message.digest, index: message.index + 1 },
        body,
      }),
    );
    expect(refusal.code).toBe('FED_PROTOCOL_CHUNK');
  });

  it('offered twice is taken once; another one from the same site is refused', async () => {
    const run = await startRun({ rounds: 1, evaluation: { sites: false } });
    const a = await run.join('a');
    const b = await run.join('b');
    const running = run.coordinator.run();
    const { model } = await a.until('plan');
    expect(await a.offer(1, model.digest, fine)).toMatchObject({ decision: 'send' });
    expect(await a.until('verdict')).toMatchObject({ accepted: true });
    expect(await a.offer(1, model.digest, fine)).toMatchObject({ decision: 'have' });
    const other = { ...fine, tensors: [kernel, tensor('dense/bias', [2])] };
    expect(await a.offer(1, model.digest, other)).toMatchObject({
      decision: 'refused',
      code: 'FED_UPDATE_DUPLICATE',
    });
    await b.offer(1, model.digest, fine);
    await running;
    const commit = run.events.find((e) => e.type === 'committed');
    expect(commit).toMatchObject({ updates: 2, numExamples: 20 });
    // After the commit: what went in is had, what did not is late.
    expect(await a.offer(1, model.digest, fine)).toMatchObject({ decision: 'have' });
    expect(await a.offer(1, model.digest, { ...other, numExamples: 9 })).toMatchObject({
      decision: 'refused',
      code: 'FED_UPDATE_LATE',
    });
  });

  it('from a site outside the cohort is refused', async () => {
    const run = await startRun({ rounds: 1, cohort: { quorum: 2, size: 2 }, evaluation: { sites: false } });
    const sites = [await run.join('a'), await run.join('b'), await run.join('c')];
    const running = run.coordinator.run();
    const { cohort } = await run.event('round-started');
    expect(cohort).toHaveLength(2);
    const chosen = sites.filter((s) => cohort.includes(s.name));
    const { model } = await chosen[0]!.until('plan');
    const left = sites.find((s) => !cohort.includes(s.name))!;
    expect(await left.offer(1, model.digest, fine)).toMatchObject({
      decision: 'refused',
      code: 'FED_UPDATE_UNINVITED',
    });
    for (const site of chosen) await site.offer(1, model.digest, fine);
    expect(await running).toMatchObject({ reason: 'rounds' });
  });
});
