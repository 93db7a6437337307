/**
 * Finished work waiting for the coordinator's answer. An update is a file and a small JSON beside it; the JSON is
 * written last, so that it exists only for updates that are whole. What was left half done is swept away on opening.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { syncDirectory, writeFileAtomic } from './atomic-file.ts';

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const shared = {
  version: z.literal(1),
  round: z.int().min(0),
  /** The global model that the work is relative to. */
  base: digest,
  numExamples: z.number(),
  metrics: z.record(z.string(), z.number()),
};
const sidecarSchema = z.discriminatedUnion('task', [
  z.strictObject({
    ...shared,
    task: z.literal('train'),
    update: digest,
    bytes: z.int().min(0),
    /** What the plan told of the cohort: held against the site's policy once more before it is sent. */
    cohortSize: z.int().min(1).optional(),
    minUpdates: z.int().min(1).optional(),
  }),
  z.strictObject({ ...shared, task: z.literal('evaluate') }),
]);
type Sidecar = z.infer<typeof sidecarSchema>;
export type SpooledUpdate = Extract<Sidecar, { task: 'train' }>;
export type SpooledEvaluation = Extract<Sidecar, { task: 'evaluate' }>;

export interface WorkKey {
  readonly task: 'train' | 'evaluate';
  readonly round: number;
  /** Digest of the global model. */
  readonly base: string;
}

export interface Spool {
  /** Oldest round first. */
  readonly entries: readonly (SpooledUpdate | SpooledEvaluation)[];
  find(key: WorkKey): SpooledUpdate | SpooledEvaluation | undefined;
  /** Where an update's file lies; the trainer renames its finished file to here. */
  updatePath(key: WorkKey): string;
  /** Keeps the update whose file is at `updatePath(key)`, and reads it once for its digest. Durable once resolved. */
  addUpdate(key: WorkKey, result: WorkResult, told?: CohortTold): Promise<SpooledUpdate>;
  addEvaluation(key: WorkKey, result: WorkResult): Promise<SpooledEvaluation>;
  /** Forgets an entry and its file; no error when it is gone already. */
  remove(key: WorkKey): Promise<void>;
}

export interface WorkResult {
  readonly numExamples: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** What a plan says of the updates that this one is averaged with. */
export interface CohortTold {
  readonly cohortSize?: number | undefined;
  readonly minUpdates?: number | undefined;
}

/** Opens the spool folder: whole entries are back, everything else in it is removed. */
export async function openSpool(directory: string): Promise<Spool> {
  const entries = new Map<string, SpooledUpdate | SpooledEvaluation>();
  const files = await readdir(directory);
  for (const file of files.filter((name) => name.endsWith('.json')).sort()) {
    const sidecar = await readSidecar(join(directory, file));
    if (sidecar !== undefined && file === `${stem(sidecar)}.json` && (await isWhole(directory, sidecar))) {
      entries.set(stem(sidecar), sidecar);
    }
  }
  for (const file of files) {
    const entry = entries.get(file.slice(0, file.indexOf('.')));
    const wanted = file.endsWith('.json') || (file.endsWith('.update') && entry?.task === 'train');
    if (entry === undefined || !wanted) await rm(join(directory, file), { recursive: true, force: true });
  }

  const keep = async <S extends Sidecar>(sidecar: S): Promise<S> => {
    await writeFileAtomic(join(directory, `${stem(sidecar)}.json`), `${JSON.stringify(sidecar)}\n`);
    entries.set(stem(sidecar), sidecar);
    return sidecar;
  };
  return {
    get entries() {
      return [...entries.values()].sort((a, b) => a.round - b.round || (a.task === 'train' ? -1 : 1));
    },
    find: (key) => entries.get(stem(key)),
    updatePath: (key) => join(directory, `${stem(key)}.update`),
    async addUpdate(key, { numExamples, metrics }, { cohortSize, minUpdates } = {}) {
      const path = join(directory, `${stem(key)}.update`);
      const { digest: update, bytes } = await digestOfFile(path);
      const { round, base } = key;
      return keep({
        version: 1,
        task: 'train',
        round,
        base,
        numExamples,
        metrics: { ...metrics },
        update,
        bytes,
        ...(cohortSize === undefined ? {} : { cohortSize }),
        ...(minUpdates === undefined ? {} : { minUpdates }),
      });
    },
    addEvaluation(key, { numExamples, metrics }) {
      const { round, base } = key;
      return keep({ version: 1, task: 'evaluate', round, base, numExamples, metrics: { ...metrics } });
    },
    async remove(key) {
      entries.delete(stem(key));
      // The sidecar first: an update without one is swept away, a sidecar without an update would be a lie.
      await rm(join(directory, `${stem(key)}.json`), { force: true });
      await syncDirectory(directory);
      await rm(join(directory, `${stem(key)}.update`), { force: true });
    },
  };
}

function stem({ task, round, base }: { task: string; round: number; base: string }): string {
  return `${task}-${String(round).padStart(6, '0')}-${base}`;
}

async function readSidecar(path: string): Promise<Sidecar | undefined> {
  try {
    const parsed = sidecarSchema.safeParse(JSON.parse(await readFile(path, 'utf8')));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

async function isWhole(directory: string, sidecar: Sidecar): Promise<boolean> {
  if (sidecar.task === 'evaluate') return true;
  const found = await stat(join(directory, `${stem(sidecar)}.update`)).catch(() => undefined);
  return found?.size === sidecar.bytes;
}

async function digestOfFile(path: string): Promise<{ digest: string; bytes: number }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const piece of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(piece);
    bytes += piece.length;
  }
  return { digest: hash.digest('hex'), bytes };
}
