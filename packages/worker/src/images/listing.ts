/** The image files of a folder in Keras's order: classes, walk, extensions and the split of each class. */
import { readdir, stat } from 'node:fs/promises';
import { basename, join, relative, sep } from 'node:path';

/** Compared with the end of the lower-case name, as Keras does. */
export const KERAS_EXTENSIONS = ['png', 'jpg', 'jpeg', 'bmp', 'ppm', 'tif', 'tiff'] as const;

export interface ListOptions {
  /** @default KERAS_EXTENSIONS */
  extensions?: readonly string[];
  /** Go into folders that are symbolic links. @default false */
  followLinks?: boolean;
}

/** Orders by Unicode code point, as Python's sort does: `10 < 2 < B < a`. */
export function byCodePoint(a: string, b: string): number {
  const [left, right] = [[...a], [...b]];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = left[i]!.codePointAt(0)! - right[i]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

/** Returns the names of a folder's subfolders (links to folders count), in code point order. */
export async function listFolders(directory: string): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const folder = entry.isSymbolicLink()
      ? await stat(join(directory, entry.name)).then(
          (info) => info.isDirectory(),
          () => false,
        )
      : entry.isDirectory();
    if (folder) names.push(entry.name);
  }
  return names.sort(byCodePoint);
}

/** Returns the image files below `directory/name`, as `name/…` with forward slashes: folders by path, then names. */
export async function listImages(
  directory: string,
  name: string,
  { extensions = KERAS_EXTENSIONS, followLinks = false }: ListOptions = {},
): Promise<string[]> {
  const root = join(directory, name);
  const folders = await walk(root, followLinks, new Set());
  folders.sort((a, b) => byCodePoint(a.path, b.path));
  const found: string[] = [];
  for (const { path, files } of folders) {
    for (const file of files.sort(byCodePoint)) {
      const lower = file.toLowerCase();
      if (!extensions.some((extension) => lower.endsWith(extension))) continue;
      const inside = relative(root, join(path, file)).split(sep).join('/');
      found.push(`${basename(name)}/${inside}`);
    }
  }
  return found;
}

/** Returns the part of a class's files that a subset has: validation is the first floor(share · n), training the rest. */
export function takeSubset<T>(
  files: readonly T[],
  validationSplit: number,
  subset: 'training' | 'validation' | null,
): T[] {
  const split = Math.trunc(validationSplit * files.length);
  if (subset === 'validation') return files.slice(0, split);
  return subset === 'training' ? files.slice(split) : files.slice();
}

async function walk(
  path: string,
  followLinks: boolean,
  above: ReadonlySet<string>,
): Promise<{ path: string; files: string[] }[]> {
  const files: string[] = [];
  const folders: string[] = [];
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) folders.push(join(path, entry.name));
    else if (!entry.isSymbolicLink()) files.push(entry.name);
    else {
      const info = await stat(join(path, entry.name)).catch(() => undefined);
      if (!info?.isDirectory()) files.push(entry.name);
      else if (followLinks) folders.push(join(path, entry.name));
    }
  }
  const found = [{ path, files }];
  const { dev, ino } = await stat(path);
  const here = `${dev}:${ino}`;
  // A link to a folder above would never end.
  if (above.has(here)) return [];
  const chain = new Set([...above, here]);
  for (const folder of folders) found.push(...(await walk(folder, followLinks, chain)));
  return found;
}
