/** The augmentation pipeline against Keras, SciPy and Pillow: the sections of image-data-generator.json one by one. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import {
  affineMatrix,
  centreBox,
  convertColour,
  type DataFormat,
  type FillMode,
  ImageDataGenerator,
  type ImageDataGeneratorOptions,
  type Interpolation,
  Mt19937,
  type RandomTransform,
  resize,
  scaleBrightness,
  shiftChannels,
  sizeOf,
  type Variant,
} from '@tributary/worker/images';
import { z } from 'zod';
import type { Score, Subject } from './score.ts';

/** Values are float32 rounded to 5 decimals; 1e-4 of 255 is what the specification asks for. */
const PIXELS = 1e-4;
/** Draws are given with 12 decimals. */
const DRAWS = 1e-11;

const numbers = z.array(z.number());
const shape3 = z.tuple([z.number(), z.number(), z.number()]);
const image = z.object({ shape: shape3, layout: z.enum(['channels_last', 'channels_first']), data: numbers });
const params = z.record(z.string(), z.union([z.number(), z.boolean(), z.null()]));
const options = z.record(z.string(), z.unknown());

const form = z.object({
  images: z.record(z.string(), image).default({}),
  affine: z
    .array(
      z.object({
        variant: z.enum(['keras3', 'classic']),
        image: z.string(),
        params,
        fillMode: z.enum(['nearest', 'constant', 'reflect', 'wrap']),
        cval: z.number(),
        order: z.number(),
        matrix: numbers.optional(),
        offset: numbers.optional(),
        output: numbers,
      }),
    )
    .default([]),
  border: z
    .object({
      input: numbers,
      cval: z.number(),
      order: z.number(),
      rows: z.array(z.tuple([z.enum(['nearest', 'constant', 'reflect', 'wrap']), z.number(), z.number()])),
    })
    .optional(),
  colour: z
    .object({
      channelShiftInput: z.object({ shape: shape3, data: numbers }),
      brightnessInputs: z.record(z.string(), numbers),
      shape: shape3,
      cases: z.array(
        z.discriminatedUnion('op', [
          z.object({ op: z.literal('channelShift'), intensity: z.number(), output: numbers }),
          z.object({
            op: z.literal('brightness'),
            variant: z.enum(['keras3', 'classic']).default('keras3'),
            input: z.string(),
            factor: z.number(),
            output: numbers,
          }),
        ]),
      ),
    })
    .optional(),
  applyTransform: z
    .array(z.object({ image: z.string(), options: options.default({}), params, output: numbers }).loose())
    .default([]),
  standardize: z
    .object({
      dataset: z.object({ shape: z.tuple([z.number(), z.number(), z.number(), z.number()]), data: numbers }),
      sample: z.number(),
      cases: z.array(
        z.object({
          options,
          output: numbers,
          mean: numbers.optional(),
          std: numbers.optional(),
          zcaMatrix: numbers.optional(),
        }),
      ),
    })
    .optional(),
  random: z
    .object({
      streams: z
        .array(
          z.object({
            seed: z.number(),
            random: numbers,
            permutation10: numbers,
            choicePlusMinus: numbers,
            choice5: numbers,
          }),
        )
        .default([]),
      transforms: z.array(z.object({ options, shape: shape3, seed: z.number(), params })).default([]),
    })
    .optional(),
  resize: z
    .object({
      input: z.object({ shape: numbers, data: numbers }),
      cases: z.array(
        z.object({
          interpolation: z.enum(['nearest', 'bilinear', 'bicubic']),
          targetSize: z.tuple([z.number(), z.number()]),
          keepAspectRatio: z.boolean().default(false),
          output: numbers,
        }),
      ),
    })
    .optional(),
  grayscale: z.object({ rgb: numbers, gray: numbers }).optional(),
  directory: z
    .object({
      tree: z.array(z.string()),
      cases: z.array(
        z.object({
          validationSplit: z.number(),
          subset: z.enum(['training', 'validation']).nullable(),
          classes: z.array(z.string()).nullable(),
          shuffle: z.boolean(),
          seed: z.number().nullable(),
          batchSize: z.number(),
          classIndices: z.record(z.string(), z.number()),
          filenames: z.array(z.string()),
          labels: numbers,
          batchesTwoEpochs: z.array(numbers),
        }),
      ),
    })
    .optional(),
});
type Form = z.infer<typeof form>;

export const imageDataGenerator: Subject = async (_, score, text) => {
  const parsed = form.safeParse(JSON.parse(keepFloats(text)));
  if (!parsed.success) throw new Error(z.prettifyError(parsed.error).split('\n').slice(0, 4).join(' '));
  const oracle = parsed.data;
  affine(oracle, score);
  border(oracle, score);
  colour(oracle, score);
  applyTransform(oracle, score);
  standardize(oracle, score);
  random(oracle, score);
  resizing(oracle, score);
  await directory(oracle, score);
};

function affine({ images, affine: cases }: Form, score: Score): void {
  cases.forEach((one, i) => {
    const name = `affine ${i} (${one.variant} ${one.image} ${one.fillMode})`;
    attempt(name, score, () => {
      const { data, shape, layout } = pick(images, one.image);
      const { variant, fillMode, cval, order } = one;
      const transform = toTransform(one.params);
      const generator = new ImageDataGenerator({
        variant,
        fillMode,
        cval,
        interpolationOrder: order,
        dataFormat: layout,
      });
      const { height, width } = sizeOf(shape, layout);
      const found = affineMatrix(transform, height, width, variant) ?? [1, 0, 0, 1, 0, 0];
      if (one.matrix) score.numbers(`${name} matrix`, found.slice(0, 4), one.matrix, PIXELS);
      if (one.offset) score.numbers(`${name} offset`, found.slice(4), one.offset, PIXELS);
      const out = generator.applyTransform({ data: Float32Array.from(data), shape }, transform);
      score.numbers(name, out.data, one.output, PIXELS);
    });
  });
}

/** A row of pixels read at single coordinates: a shift of an image one row high, at its first column. */
function border({ border: section }: Form, score: Score): void {
  for (const [fillMode, coordinate, value] of section?.rows ?? []) {
    const { input, cval, order } = section!;
    attempt(`border ${fillMode} ${coordinate}`, score, (name) => {
      const sampled = sampleRow(input, coordinate, fillMode, cval, order);
      score.numbers(name, [sampled], [value], PIXELS);
    });
  }
}

function colour({ colour: section }: Form, score: Score): void {
  section?.cases.forEach((one, i) => {
    attempt(`colour ${i} (${one.op})`, score, (name) => {
      if (one.op === 'channelShift') {
        const data = Float32Array.from(section.channelShiftInput.data);
        shiftChannels(data, one.intensity);
        score.numbers(name, data, one.output, PIXELS);
      } else {
        const data = Float32Array.from(pick(section.brightnessInputs, one.input));
        const size = sizeOf(section.shape, 'channels_last');
        scaleBrightness(data, one.factor, size, 'channels_last', one.variant);
        score.numbers(name, data, one.output, PIXELS);
      }
    });
  });
}

function applyTransform({ images, applyTransform: cases }: Form, score: Score): void {
  cases.forEach((one, i) => {
    attempt(`applyTransform ${i} (${one.image})`, score, (name) => {
      const { data, shape, layout } = pick(images, one.image);
      const { variant, fillMode, cval, order } = one as Record<string, unknown>;
      const generator = new ImageDataGenerator({
        dataFormat: layout as DataFormat,
        ...toOptions(one.options),
        ...(variant !== undefined && { variant: variant as Variant }),
        ...(fillMode !== undefined && { fillMode: fillMode as FillMode }),
        ...(cval !== undefined && { cval: cval as number }),
        ...(order !== undefined && { interpolationOrder: order as number }),
      });
      const out = generator.applyTransform({ data: Float32Array.from(data), shape }, toTransform(one.params));
      score.numbers(name, out.data, one.output, PIXELS);
    });
  });
}

function standardize({ standardize: section }: Form, score: Score): void {
  section?.cases.forEach((one, i) => {
    attempt(`standardize ${i} (${Object.keys(one.options).join(', ')})`, score, (name) => {
      const { shape, data } = section.dataset;
      const generator = new ImageDataGenerator(toOptions(one.options));
      generator.fit({ data: Float32Array.from(data), shape });
      const { mean, std, zcaMatrix } = generator.statistics;
      if (one.mean) score.numbers(`${name} mean`, mean ?? [], one.mean, PIXELS);
      if (one.std) score.numbers(`${name} std`, std ?? [], one.std, PIXELS);
      if (one.zcaMatrix) score.numbers(`${name} zcaMatrix`, zcaMatrix ?? [], one.zcaMatrix, PIXELS);
      const [, ...single] = shape;
      const length = single[0] * single[1] * single[2];
      const sample = Float32Array.from(data.slice(section.sample * length, (section.sample + 1) * length));
      const out = generator.standardize({ data: sample, shape: single });
      score.numbers(name, out.data, one.output, PIXELS);
    });
  });
}

function random({ random: section }: Form, score: Score): void {
  for (const stream of section?.streams ?? []) {
    const fresh = () => new Mt19937(stream.seed);
    const many = <T>(length: number, draw: (random: Mt19937) => T) => {
      const generator = fresh();
      return Array.from({ length }, () => draw(generator));
    };
    const name = `stream ${stream.seed}`;
    score.numbers(
      `${name} random`,
      many(stream.random.length, (r) => r.random()),
      stream.random,
      DRAWS,
    );
    score.same(
      `${name} permutation`,
      [...fresh().permutation(stream.permutation10.length)],
      stream.permutation10,
    );
    const signs = many(stream.choicePlusMinus.length, (r) => r.pick([-1, 1]));
    score.same(`${name} choice of signs`, signs, stream.choicePlusMinus);
    score.same(
      `${name} choice of 5`,
      many(stream.choice5.length, (r) => r.choice(5)),
      stream.choice5,
    );
  }
  section?.transforms.forEach((one, i) => {
    attempt(`transform ${i} (seed ${one.seed})`, score, (name) => {
      const drawn = new ImageDataGenerator(toOptions(one.options)).getRandomTransform(one.shape, one.seed);
      const expected = Object.entries(one.params);
      const actual = expected.map(([key]) => toNumber(drawn[camel(key) as keyof RandomTransform]));
      score.numbers(
        name,
        actual,
        expected.map(([, value]) => toNumber(value)),
        DRAWS,
      );
    });
  });
}

function resizing({ resize: section, grayscale }: Form, score: Score): void {
  section?.cases.forEach((one, i) => {
    attempt(`resize ${i} (${one.interpolation} to ${one.targetSize.join('x')})`, score, (name) => {
      const [height = 0, width = 0, channels = 1] = section.input.shape;
      const raster = { data: Uint8Array.from(section.input.data), height, width, channels };
      const [toHeight, toWidth] = one.targetSize;
      const box = one.keepAspectRatio ? centreBox(raster, toHeight, toWidth) : undefined;
      const out = resize(raster, toHeight, toWidth, one.interpolation as Interpolation, box);
      score.numbers(name, out.data, one.output, 0);
    });
  });
  if (!grayscale) return;
  const data = Uint8Array.from(grayscale.rgb);
  const grey = convertColour({ data, height: 1, width: data.length / 3, channels: 3 }, 'grayscale');
  score.numbers('grayscale', grey.data, grayscale.gray, 0);
}

async function directory({ directory: section }: Form, score: Score): Promise<void> {
  if (!section) return;
  const root = await mkdtemp(join(tmpdir(), 'tributary-oracle-'));
  try {
    for (const path of section.tree) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), '');
    }
    for (const [i, one] of section.cases.entries()) {
      const { validationSplit, subset, classes, shuffle, seed, batchSize } = one;
      const name = `directory ${i}`;
      const generator = new ImageDataGenerator({ validationSplit });
      const flow = await generator.flowFromDirectory(root, { subset, classes, shuffle, seed, batchSize });
      score.same(`${name} classIndices`, flow.classIndices, one.classIndices);
      score.same(`${name} filenames`, flow.filenames, one.filenames);
      score.same(`${name} labels`, [...flow.classes], one.labels);
      const batches = one.batchesTwoEpochs.map(() => [...flow.nextIndices()]);
      score.same(`${name} batches`, batches, one.batchesTwoEpochs);
    }
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function sampleRow(input: number[], at: number, fillMode: FillMode, cval: number, order: number): number {
  // classic's ty moves columns and no centre matters to a pure shift: output column 0 reads coordinate ty.
  const generator = new ImageDataGenerator({ variant: 'classic', fillMode, cval, interpolationOrder: order });
  const image = { data: Float32Array.from(input), shape: [1, input.length, 1] as const };
  return generator.applyTransform(image, { ty: at }).data[0]!;
}

function attempt(name: string, score: Score, run: (name: string) => void): void {
  try {
    run(name);
  } catch (error) {
    score.error(name, error);
  }
}

function pick<T>(from: Record<string, T>, key: string): T {
  const value = from[key];
  if (value === undefined) throw new Error(`the oracle has no input '${key}'`);
  return value;
}

/** Python's 2.0 is a range and its 2 a choice; JSON in JavaScript has one number for both, so the text is marked. */
function keepFloats(text: string): string {
  return text
    .replaceAll(
      /("(?:width_shift_range|height_shift_range|widthShiftRange|heightShiftRange)"\s*:\s*)(-?\d+\.0*(?:e\+?\d+)?)(?=\s*[,}])/gi,
      '$1{"uniform":$2}',
    )
    .replaceAll(/("uniform":-?\d+)\.(?=})/g, '$1.0');
}

function toOptions(given: Record<string, unknown>): ImageDataGeneratorOptions {
  const renamed = Object.entries(given).map(([key, value]) => [camel(key), value]);
  return Object.fromEntries(renamed) as ImageDataGeneratorOptions;
}

function toTransform(given: z.infer<typeof params>): RandomTransform {
  const identity = new ImageDataGenerator().getRandomTransform([1, 1, 1], 0);
  const renamed = Object.entries(given).map(([key, value]) => [camel(key), value]);
  return { ...identity, flipHorizontal: false, flipVertical: false, ...Object.fromEntries(renamed) };
}

/** rotation_range to rotationRange; names that are camelCase already stay. */
function camel(name: string): string {
  return name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** For comparing draws: absent is a number that no draw gives. */
function toNumber(value: number | boolean | null | undefined): number {
  return value === null || value === undefined ? -12345 : Number(value);
}
