/**
 * Noise, masks, keys and shares come from node:crypto. A generator whose state can be found out from what it has given
 * makes all of them known (DISCO 1074; Flower 7522), and no statistic of theirs would show it: hence a rule on sources.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../../packages');
/** What draws numbers that can be foretold: JavaScript's own, TensorFlow.js's, and those of this repository. */
const FORESEEABLE =
  /Math\.random|\b(?:withSeededRandom|seededRandom|seedrandom|alea|Mt19937|mulberry32)\b|\btf\.(?:rand|multinomial|truncatedNormal)|\b(?:random(?:Uniform|Normal|Gamma|StandardNormal)|truncatedNormal)\(/;

/** Who uses such a generator, and what for. Nothing of this hides anything. */
const ALLOWED: Readonly<Record<string, string>> = {
  'cli/src/demo/split.ts': 'which digits a site of the demo gets',
  'engine/src/index.ts': 'exports the seeded generator',
  'engine/src/seeded-random.ts': 'the seeded generator: first weights, dropout layers',
  'engine/src/speed.ts': 'matrices whose product is timed',
  'models/src/artifact.ts': 'first weights',
  'models/src/layers.ts': 'first weights',
  'worker/src/agent/backoff.ts': 'how long to wait before dialling again',
  'worker/src/data/shard.ts': 'augmentation',
  'worker/src/images/batch-order.ts': 'the order of images where nothing is private',
  'worker/src/images/image-data-generator.ts': 'augmentation',
  'worker/src/images/index.ts': 'exports the generator of augmentation',
  'worker/src/images/mt19937.ts': 'the generator of augmentation',
  'worker/src/images/random-transform.ts': 'augmentation',
  'worker/src/trainer/train.ts': 'dropout layers where nothing is private',
};

const sources = readdirSync(root).flatMap((name) =>
  readdirSync(join(root, name, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && name !== 'testkit')
    .map((file) => ({
      path: `${name}/src/${file}`,
      text: readFileSync(join(root, name, 'src', file), 'utf8'),
    })),
);
const inPrivacy = sources.filter(({ path }) => path.startsWith('privacy/src/'));

describe('random numbers', () => {
  test('DISCO 1074: that can be foretold are used where they hide nothing, and nowhere else', () => {
    const users = sources.filter(({ text }) => FORESEEABLE.test(text)).map(({ path }) => path);
    expect(users.sort()).toEqual(Object.keys(ALLOWED).sort());
  });

  test('of the privacy package are of node:crypto: it imports nothing but Node and itself', () => {
    expect(inPrivacy.length).toBeGreaterThan(30);
    const foreign = inPrivacy.flatMap(({ path, text }) =>
      [...text.matchAll(/\b(?:from\s|import\s|import\()\s*'([^']+)'/g)]
        .map(([, specifier]) => specifier!)
        .filter((specifier) => !/^(?:\.|node:)/.test(specifier))
        .map((specifier) => `${path}: ${specifier}`),
    );
    expect(foreign).toEqual([]);
    const drawing = inPrivacy.filter(({ text }) => /\brandom(?:Bytes|FillSync|Int)\b/.test(text));
    expect(drawing.length).toBeGreaterThan(3);
    for (const { path, text } of drawing)
      expect(text, path).toMatch(/import \{[^}]*\brandom\w+[^}]*\} from 'node:crypto'/);
  });
});
