/**
 * What is looked at before a site says that it is ready: each check has a result and, when it isn't `ok`, what to do.
 * The connection's own checks (address, protocol, clock) are made while dialling; those here need no link.
 */
import { statfs } from 'node:fs/promises';
import { errorCode, type FederationView } from '@tributary/shared-protocol';
import { readLayout } from '../data/layout.ts';
import { loadImage } from '../images/decode.ts';
import type { PreflightStep } from './events.ts';

/** Clocks further apart than this are refused: expiry times, deadlines and logs would contradict each other. */
export const MAX_CLOCK_DIFFERENCE_MS = 5 * 60 * 1000;
/** The global model, the update and the update being written. */
const MODELS_ON_DISK = 3;
const MIB = 1024 * 1024;

export interface PreflightOptions {
  readonly federation: FederationView;
  readonly dataDir: string;
  readonly stateDir: string;
}

/**
 * Yields the checks that need no coordinator, in order: disk, data, images. A step that fails ends it: what comes
 * after would only repeat the same fault.
 */
export async function* preflight(options: PreflightOptions): AsyncGenerator<PreflightStep> {
  for (const check of [checkDisk, checkFolders, checkImages]) {
    const step = await check(options);
    yield step;
    if (step.state === 'fail') return;
  }
}

/** Returns the clock's step; `differenceMs` is the coordinator's clock minus ours. */
export function clockStep(differenceMs: number): PreflightStep {
  const seconds = (Math.abs(differenceMs) / 1000).toFixed(1);
  const side = differenceMs > 0 ? 'behind' : 'ahead of';
  const detail =
    Math.abs(differenceMs) < 1000
      ? 'equal to the coordinator’s within a second'
      : `${seconds} s ${side} the coordinator’s`;
  if (Math.abs(differenceMs) > MAX_CLOCK_DIFFERENCE_MS) {
    const advice = 'set this machine’s clock (or the coordinator’s): at most 5 minutes apart; NTP does it';
    return { name: 'clock', state: 'fail', detail, advice };
  }
  return Math.abs(differenceMs) > 30_000
    ? { name: 'clock', state: 'warn', detail, advice: 'let NTP set the clock before it drifts further' }
    : ok('clock', detail);
}

/** A step that found nothing wrong. */
export function ok(name: PreflightStep['name'], detail: string): PreflightStep {
  return { name, state: 'ok', detail, advice: undefined };
}

async function checkDisk({ federation, stateDir }: PreflightOptions): Promise<PreflightStep> {
  const { bavail, bsize } = await statfs(stateDir);
  const free = bavail * bsize;
  if (federation.modelBytes === undefined) return ok('disk', `${mib(free)} free for models and updates`);
  const needed = federation.modelBytes * MODELS_ON_DISK;
  const detail = `${mib(free)} free, ${mib(needed)} needed for models and updates, in ${stateDir}`;
  if (free >= needed) return ok('disk', detail);
  const advice = 'free some space, or point TRIBUTARY_HOME at a larger disk';
  return { name: 'disk', state: 'fail', detail, advice };
}

async function checkFolders({ federation, dataDir }: PreflightOptions): Promise<PreflightStep> {
  const { classes, training } = federation;
  try {
    const { train, test } = await readLayout(dataDir, classes, training.validationSplit);
    const detail = `${classes.length} classes as in the federation; ${train.length} files to train on, ${test.length} to test on`;
    return ok('data', detail);
  } catch (error) {
    if (!errorCode(error)?.startsWith('FED_DATA_')) throw error;
    const advice = 'mend the folders (names count letter by letter), then give the same command again';
    return { name: 'data', state: 'fail', detail: (error as Error).message, advice };
  }
}

async function checkImages({ federation, dataDir }: PreflightOptions): Promise<PreflightStep> {
  const { classes, training, input } = federation;
  const { train } = await readLayout(dataDir, classes, training.validationSplit);
  // Every so many, so that each class has its share of the batch.
  const stride = Math.max(1, train.length / training.batchSize);
  const batch = Array.from({ length: Math.min(train.length, training.batchSize) }, (_, i) => {
    return train[Math.floor(i * stride)]?.file ?? '';
  });
  const unreadable: string[] = [];
  for (const file of batch) {
    try {
      await loadImage(file, { targetSize: [input.height, input.width], interpolation: input.interpolation });
    } catch (error) {
      if (!errorCode(error)?.startsWith('FED_IMAGE_')) throw error;
      unreadable.push((error as Error).message);
    }
  }
  if (unreadable.length === 0) return ok('images', `a batch of ${batch.length} images decoded`);
  const shown = unreadable.slice(0, 3).join('; ');
  const detail = `${unreadable.length} of a batch of ${batch.length} images can't be read: ${shown}`;
  const advice = 'replace or remove these files; a few are left out, many end the attempt';
  return { name: 'images', state: unreadable.length === batch.length ? 'fail' : 'warn', detail, advice };
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toLocaleString('en', { maximumFractionDigits: 1 })} MiB`;
}
