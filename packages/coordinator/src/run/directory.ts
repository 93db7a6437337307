/** A run's folder: where each thing lies in it, and who has it open. */
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ResolvedFederation } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import { newSecret } from '../members/secrets.ts';
import { writeFileAtomic } from './atomic-file.ts';
import { takeLock } from './lock.ts';

export interface RunPaths {
  readonly root: string;
  readonly federation: string;
  readonly log: string;
  /** Signed: up to where the log was on the disk. */
  readonly head: string;
  readonly key: string;
  readonly admin: string;
  readonly metrics: string;
  readonly lock: string;
  readonly checkpoints: string;
  readonly spool: string;
  checkpoint(round: number): string;
  roundSpool(round: number): string;
}

export interface RunDirectory {
  readonly paths: RunPaths;
  /** Lets `tributary status` and the like in; made once, kept with mode 0600. */
  readonly adminCredential: string;
  /** Removes the updates of rounds that are over: all but those of `keepRound`. */
  clearSpool(keepRound?: number): Promise<void>;
  close(): void;
}

export function runPaths(root: string): RunPaths {
  const checkpoints = join(root, 'checkpoints');
  const spool = join(root, 'spool');
  const label = (round: number) => `round-${String(round).padStart(4, '0')}`;
  return {
    root,
    federation: join(root, 'federation.json'),
    log: join(root, 'log.jsonl'),
    head: join(root, 'log.head'),
    key: join(root, 'log.key'),
    admin: join(root, 'admin.key'),
    metrics: join(root, 'metrics.jsonl'),
    lock: join(root, 'coordinator.lock'),
    checkpoints,
    spool,
    checkpoint: (round) => join(checkpoints, `${label(round)}.safetensors`),
    roundSpool: (round) => join(spool, label(round)),
  };
}

/**
 * Opens (or makes) the run directory for this process alone and checks that it belongs to `federation`.
 *
 * @throws CoordinatorError FED_RUN_LOCKED, FED_RUN_CONFIG_CHANGED, FED_RUN_STORAGE
 */
export async function openRunDirectory(root: string, federation: ResolvedFederation): Promise<RunDirectory> {
  const paths = runPaths(root);
  for (const folder of [root, paths.checkpoints, paths.spool]) mkdirSync(folder, { recursive: true });
  const unlock = takeLock(paths.lock);
  try {
    if (existsSync(paths.federation)) checkSame(paths.federation, federation);
    // Each time, for what may change between starts: where sites dial, for one.
    await writeFileAtomic(paths.federation, [Buffer.from(`${JSON.stringify(federation, undefined, 2)}\n`)]);
    if (!existsSync(paths.admin))
      await writeFileAtomic(paths.admin, [Buffer.from(newSecret())], { mode: 0o600 });
    return {
      paths,
      adminCredential: readFileSync(paths.admin, 'utf8').trim(),
      async clearSpool(keepRound) {
        const keep = keepRound === undefined ? undefined : paths.roundSpool(keepRound);
        const over = foldersIn(paths.spool).filter((folder) => folder !== keep);
        await Promise.all(over.map((folder) => rm(folder, { recursive: true, force: true })));
      },
      close: unlock,
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

function checkSame(path: string, federation: ResolvedFederation): void {
  const kept = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  if (kept['digest'] === federation.digest) return;
  const now = federation as unknown as Record<string, unknown>;
  const free = new Set(['server', 'invites', 'runDir', 'digest']);
  const changed = [...new Set([...Object.keys(kept), ...Object.keys(now)])].filter(
    (key) => !free.has(key) && JSON.stringify(kept[key]) !== JSON.stringify(now[key]),
  );
  throw new CoordinatorError(
    'FED_RUN_CONFIG_CHANGED',
    `${path} was started with another configuration (${changed.join(', ') || 'another digest'} differ); change it back to go on with that run, or choose another runDir`,
  );
}

function foldersIn(path: string): string[] {
  return readdirSync(path).map((name) => join(path, name));
}
