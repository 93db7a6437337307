/**
 * A site's folders, checked against the federation's classes. Either `train/<class>/…` with an optional
 * `test/<class>/…`, or the class folders themselves; a validation split then holds some of each class out for testing.
 */
import { access, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { WorkerError } from '../errors.ts';
import { KERAS_EXTENSIONS, listFolders, listImages, takeSubset } from '../images/listing.ts';
import { closest } from './spelling.ts';

/** What the worker reads: Keras's kinds and WebP. */
const EXTENSIONS = [...KERAS_EXTENSIONS, 'webp'] as const;
/** A file of this name in an empty class folder says that the site has no such images and knows it. */
const NONE_FILE = '.none';

export interface Example {
  /** Absolute, or relative to the working directory, as dataDir was. */
  file: string;
  /** Index of the class. */
  label: number;
}

export interface Layout {
  train: Example[];
  test: Example[];
}

/**
 * Returns the site's examples in Keras's order, class by class; nothing is decoded.
 * @param validationSplit share of each class, its first files, held out when there is no test folder; in (0, 1)
 * @throws WorkerError FED_DATA_FOLDER_MISSING, FED_DATA_LAYOUT, FED_DATA_CLASSES_DIFFER or FED_DATA_CLASS_EMPTY
 */
export async function readLayout(
  dataDir: string,
  classes: readonly string[],
  validationSplit?: number,
): Promise<Layout> {
  if (!(await isFolder(dataDir))) {
    throw new WorkerError(
      'FED_DATA_FOLDER_MISSING',
      `${dataDir}: there is no such folder. It should hold train/<class>/ and test/<class>/, or one folder a class.`,
    );
  }
  const trainDir = join(dataDir, 'train');
  const testDir = join(dataDir, 'test');
  const parted = !classes.includes('train') && (await isFolder(trainDir));
  const root = parted ? trainDir : dataDir;
  await checkClasses(root, classes, true);
  const listed = await listClasses(root, classes);
  await checkEmpty(root, classes, listed);

  if (parted && (await isFolder(testDir))) {
    await checkClasses(testDir, classes, false);
    return { train: examples(root, listed), test: examples(testDir, await listClasses(testDir, classes)) };
  }
  if (validationSplit === undefined) return { train: examples(root, listed), test: [] };
  const part = (subset: 'training' | 'validation') =>
    examples(
      root,
      listed.map((files) => takeSubset(files, validationSplit, subset)),
    );
  return { train: part('training'), test: part('validation') };
}

/**
 * Returns a folder's images as test examples only, for an evaluation in one place: its class folders, or those in its
 * `test` folder. A class may be missing. Throws as readLayout does.
 */
export async function readTestLayout(dataDir: string, classes: readonly string[]): Promise<Layout> {
  if (!(await isFolder(dataDir))) {
    throw new WorkerError(
      'FED_DATA_FOLDER_MISSING',
      `${dataDir}: there is no such folder. It should hold test images, one folder a class.`,
    );
  }
  const inside = join(dataDir, 'test');
  const root = !classes.includes('test') && (await isFolder(inside)) ? inside : dataDir;
  await checkClasses(root, classes, false);
  const test = examples(root, await listClasses(root, classes));
  if (test.length === 0) {
    throw new WorkerError('FED_DATA_CLASS_EMPTY', `${root}: there are no images in its class folders`);
  }
  return { train: [], test };
}

async function checkClasses(root: string, classes: readonly string[], all: boolean): Promise<void> {
  const here = (await listFolders(root)).filter((name) => !name.startsWith('.') && name !== '__MACOSX');
  if (here.length === 0 && all) {
    throw new WorkerError(
      'FED_DATA_LAYOUT',
      `${root}: there are no class folders. The federation's classes are ${quoted(classes)}: make a folder for each ` +
        'and put its images in it.',
    );
  }
  const missing = all ? classes.filter((name) => !here.includes(name)) : [];
  const unexpected = here.filter((name) => !classes.includes(name));
  if (missing.length === 0 && unexpected.length === 0) return;
  const renames = unexpected.flatMap((name) => {
    const meant = closest(name, all ? missing : classes);
    return meant === undefined ? [] : [`rename '${name}' to '${meant}'?`];
  });
  const parts = [
    missing.length > 0 ? `missing: ${quoted(missing)}` : '',
    unexpected.length > 0 ? `unexpected: ${quoted(unexpected)}` : '',
    renames.join(' '),
    missing.length > renames.length
      ? `(A class of which this site has no images is an empty folder with a file named ${NONE_FILE} in it.)`
      : '',
  ];
  throw new WorkerError(
    'FED_DATA_CLASSES_DIFFER',
    `${root}: the class folders are not the federation's ${quoted(classes)}. ${parts.filter(Boolean).join('; ')}`,
  );
}

async function checkEmpty(
  root: string,
  classes: readonly string[],
  listed: readonly string[][],
): Promise<void> {
  const empty: string[] = [];
  for (const [label, name] of classes.entries()) {
    if (listed[label]!.length > 0) continue;
    const meant = await access(join(root, name, NONE_FILE)).then(
      () => true,
      () => false,
    );
    if (!meant) empty.push(name);
  }
  if (empty.length > 0 || listed.every((files) => files.length === 0)) {
    const which = empty.length > 0 ? empty : classes;
    throw new WorkerError(
      'FED_DATA_CLASS_EMPTY',
      `${root}: there are no images (${EXTENSIONS.join(', ')}) in the class folder${which.length > 1 ? 's' : ''} ` +
        `${quoted(which)}. Add some; or, if this site has none of a class but has others, put an empty file named ` +
        `${NONE_FILE} into that folder.`,
    );
  }
}

async function listClasses(root: string, classes: readonly string[]): Promise<string[][]> {
  const listed: string[][] = [];
  for (const name of classes) {
    const files = (await isFolder(join(root, name)))
      ? await listImages(root, name, { extensions: EXTENSIONS })
      : [];
    // macOS leaves these beside the images on foreign disks; they are no images.
    listed.push(files.filter((file) => !file.slice(file.lastIndexOf('/') + 1).startsWith('._')));
  }
  return listed;
}

function examples(root: string, listed: readonly string[][]): Example[] {
  return listed.flatMap((files, label) => files.map((file) => ({ file: join(root, file), label })));
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(', ');
}
