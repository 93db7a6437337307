/**
 * What is looked at before a site says that it is ready: each check has a result and, when it isn't `ok`, what to do.
 * The connection's own checks (address, protocol, clock) are made while dialling; those here need no link.
 */
import { opendir, readdir, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { FederationView } from '@tributary/shared-protocol';
import sharp from 'sharp';
import type { PreflightStep } from './events.ts';

/** Clocks further apart than this are refused: expiry times, deadlines and logs would contradict each other. */
export const MAX_CLOCK_DIFFERENCE_MS = 5 * 60 * 1000;
/** The global model, the update and the update being written. */
const MODELS_ON_DISK = 3;
const IMAGE_NAME = /\.(png|jpe?g|bmp|ppm|tiff?|webp)$/i;
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
  const { classes } = federation;
  let found: string[];
  try {
    found = await foldersOf(await trainFolder(dataDir));
  } catch (error) {
    const detail = `can't read ${dataDir}: ${(error as Error).message}`;
    const advice = 'give the folder that holds train/<class>/ (or <class>/) with --data';
    return { name: 'data', state: 'fail', detail, advice };
  }
  const unknown = found.filter((name) => !classes.includes(name));
  const missing = classes.filter((name) => !found.includes(name));
  const says = `the federation's classes are ${list(classes)}`;
  if (unknown.length > 0) {
    const detail = `${list(unknown)} ${unknown.length === 1 ? 'is no class' : 'are no classes'} of this federation; ${says}`;
    const rename = missing.length > 0 ? ` (no folder yet for ${list(missing)})` : '';
    const advice = `rename or move away ${list(unknown)}${rename}; names count letter by letter`;
    return { name: 'data', state: 'fail', detail, advice };
  }
  if (missing.length === classes.length) {
    const detail = `no class folders in ${dataDir}; ${says}`;
    return { name: 'data', state: 'fail', detail, advice: `put images into train/${classes[0]}/ and so on` };
  }
  const empty: string[] = [];
  for (const name of found) {
    if ((await firstImages(join(await trainFolder(dataDir), name), 1)).length === 0) empty.push(name);
  }
  const bare = classes.filter((name) => missing.includes(name) || empty.includes(name));
  if (bare.length === classes.length) {
    const detail = `no images in any class folder of ${dataDir}`;
    const advice = 'PNG, JPEG, BMP, PPM, TIFF and WebP files are read, in folders below too';
    return { name: 'data', state: 'fail', detail, advice };
  }
  if (bare.length > 0) {
    const detail = `no images here of ${list(bare)}, ${bare.length} of ${classes.length} classes`;
    const advice = 'fine if this site has none; otherwise check the folder names';
    return { name: 'data', state: 'warn', detail, advice };
  }
  return ok('data', `${classes.length} classes, folders agree with the federation's`);
}

async function checkImages({ federation, dataDir }: PreflightOptions): Promise<PreflightStep> {
  const { classes, training, input } = federation;
  const perClass = Math.max(1, Math.ceil(training.batchSize / classes.length));
  const root = await trainFolder(dataDir);
  const files: string[] = [];
  for (const name of classes) {
    files.push(...(await firstImages(join(root, name), perClass).catch(() => [])));
  }
  const batch = files.slice(0, training.batchSize);
  const unreadable: string[] = [];
  for (const file of batch) {
    try {
      // limitInputPixels: a picture that unpacks to gigabytes is refused before it is unpacked.
      await sharp(file, { limitInputPixels: 2 ** 28, failOn: 'error' })
        .resize(input.width, input.height, { fit: 'fill' })
        .raw()
        .toBuffer();
    } catch (error) {
      unreadable.push(`${file} (${(error as Error).message.split('\n')[0]})`);
    }
  }
  if (unreadable.length === 0) return ok('images', `${batch.length} images of a first batch decoded`);
  const detail = `${unreadable.length} of the first ${batch.length} images can't be read: ${list(unreadable.slice(0, 3))}`;
  const advice = 'replace these files; the others are used without them';
  return { name: 'images', state: unreadable.length === batch.length ? 'fail' : 'warn', detail, advice };
}

/** `train` inside the data folder, or the folder itself when it has none. */
async function trainFolder(dataDir: string): Promise<string> {
  return (await foldersOf(dataDir)).includes('train') ? join(dataDir, 'train') : dataDir;
}

async function foldersOf(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true });
  return entries
    .filter((entry) => (entry.isDirectory() || entry.isSymbolicLink()) && !entry.name.startsWith('.'))
    .map((entry) => entry.name)
    .sort();
}

/** The first `count` image files in a folder as the system lists them, without reading all of it. */
async function firstImages(path: string, count: number): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of await opendir(path)) {
    if (found.length >= count) break;
    const full = join(path, entry.name);
    if (entry.isDirectory()) found.push(...(await firstImages(full, count - found.length)));
    else if (IMAGE_NAME.test(entry.name)) found.push(full);
  }
  return found;
}

function list(names: readonly string[]): string {
  return names.length > 12
    ? `${names.slice(0, 12).join(', ')} and ${names.length - 12} more`
    : names.join(', ');
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toLocaleString('en', { maximumFractionDigits: 1 })} MiB`;
}
