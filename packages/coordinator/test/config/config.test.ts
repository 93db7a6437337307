import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError, checkConfig, loadFederation, resolveFederation, withRecipe } from '../../src/index.ts';
import { artifact, baseConfig, temporaryDir, tensor } from '../federation.ts';

const minimal = { name: 'demo', model: 'image-cnn', classes: ['cat', 'dog'] };

function mistakes(config: unknown): readonly { path: string; value: string | undefined; message: string }[] {
  try {
    checkConfig(config, 'tributary.config.ts');
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
  return [];
}

describe('the configuration', () => {
  it('needs a name, a model and classes, and fills in the rest', () => {
    expect(checkConfig(minimal)).toMatchObject({
      seed: 1,
      rounds: 10,
      cohort: { size: 'all', quorum: 2, target: 1 },
      strategy: { name: 'fed-avg' },
      server: { port: 7700, tls: true },
      invites: { uses: 1 },
    });
    expect(mistakes({}).map((m) => m.path)).toEqual(['name', 'model', 'classes']);
  });

  it.each([
    [{ ...minimal, rouds: 3 }, 'rouds', '3', 'did you mean "rounds"?'],
    [
      { ...minimal, training: { optimizer: { name: 'sgd', learningRate: 1, momentun: 0 } } },
      'training.optimizer.momentun',
      '0',
      'did you mean "momentum"?',
    ],
    [
      { ...minimal, training: { optimizer: { name: 'adma', learningRate: 1 } } },
      'training.optimizer.name',
      '"adma"',
      'did you mean "adam"?',
    ],
    [
      { ...minimal, training: { optimizer: { name: 'adam', learningRate: 'fast' } } },
      'training.optimizer.learningRate',
      '"fast"',
      'expected a number',
    ],
    [{ ...minimal, strategy: { name: 'fedavg' } }, 'strategy.name', '"fedavg"', 'did you mean "fed-avg"?'],
    [{ ...minimal, rounds: 0 }, 'rounds', '0', 'expected at least 1'],
    [{ ...minimal, cohort: { size: 2.5 } }, 'cohort.size', '2.5', 'must be whole'],
    [{ ...minimal, cohort: { target: 1.5 } }, 'cohort.target', '1.5', 'expected at most 1'],
    [{ ...minimal, model: 3 }, 'model', '3', 'expected the name of a model'],
    [{ ...minimal, classes: ['cat', 'cat'] }, 'classes', '["cat","cat"]', '"cat" is there twice'],
    [
      { ...minimal, training: { classWeights: { cow: 2 } } },
      'training.classWeights.cow',
      '2',
      'not one of the classes cat, dog',
    ],
    [{ ...minimal, training: { epochs: 1, steps: 2 } }, 'training.steps', '2', 'epochs or steps'],
    [{ ...minimal, input: { height: 10, width: 10, channels: 2 } }, 'input.channels', '2', 'expected'],
    [
      { ...minimal, augmentation: { filMode: 'wrap' } },
      'augmentation.filMode',
      '"wrap"',
      'did you mean "fillMode"?',
    ],
    [
      { ...minimal, augmentation: { fillMode: 'wrpa' } },
      'augmentation.fillMode',
      '"wrpa"',
      'did you mean "wrap"?',
    ],
  ])('names the key, the value and what would be right: %j', (config, path, value, message) => {
    expect(mistakes(config)).toEqual([{ path, value, message: expect.stringContaining(message) }]);
  });

  it('reports all mistakes at once, with the file', () => {
    expect(() => checkConfig({ ...minimal, rouds: 1, seed: -1 }, 'a.yaml')).toThrow(
      /^a\.yaml: 2 mistakes\n {2}seed = -1: .*\n {2}rouds = 1: /,
    );
  });
});

describe('loadFederation', () => {
  it('reads .ts (with defineFederation, wherever the file lies), .yaml and .json alike', async () => {
    const dir = temporaryDir();
    writeFileSync(join(dir, 'c.json'), JSON.stringify(minimal));
    writeFileSync(join(dir, 'c.yaml'), 'name: demo\nmodel: image-cnn\nclasses: [cat, dog]\n');
    writeFileSync(
      join(dir, 'c.ts'),
      `import { defineFederation } from 'tributary';\nconst classes: string[] = ['cat', 'dog'];\nexport default defineFederation({ name: 'demo', model: 'image-cnn', classes });\n`,
    );
    for (const file of ['c.json', 'c.yaml', 'c.ts'])
      expect(await loadFederation(join(dir, file))).toEqual(minimal);
  });

  it('says which file is missing, unreadable or of no known kind', async () => {
    const dir = temporaryDir();
    mkdirSync(join(dir, 'folder.json'));
    writeFileSync(join(dir, 'bad.json'), '{');
    writeFileSync(join(dir, 'c.toml'), '');
    for (const file of ['none.ts', 'none.json', 'bad.json', 'c.toml', 'folder.json']) {
      await expect(loadFederation(join(dir, file))).rejects.toMatchObject({
        code: 'FED_CONFIG_UNREADABLE',
        message: expect.stringContaining(file),
      });
    }
  });
});

describe('resolveFederation', () => {
  it('has a digest that changes with the training and not with the address', () => {
    const one = resolveFederation(baseConfig, artifact);
    expect(one.digest).toMatch(/^[0-9a-f]{64}$/);
    expect(JSON.parse(JSON.stringify(one))).toEqual(one);
    expect(resolveFederation({ ...baseConfig, server: { port: 1 }, runDir: 'x' }, artifact).digest).toBe(
      one.digest,
    );
    expect(resolveFederation({ ...baseConfig, seed: 2 }, artifact).digest).not.toBe(one.digest);
    expect(resolveFederation(baseConfig, { ...artifact, topology: '{}' }).digest).not.toBe(one.digest);
  });

  it('lays the configuration over the recipe, key by key', () => {
    const recipe = {
      input: { height: 28, width: 28, channels: 1 as const },
      training: {
        optimizer: { name: 'adam' as const, learningRate: 0.01 },
        loss: 'binaryCrossentropy',
        epochs: 10,
      },
    };
    const merged = withRecipe({ ...baseConfig, input: { height: 14 }, training: { steps: 5 } }, recipe);
    const { input, training } = resolveFederation(merged, artifact);
    expect(input).toMatchObject({ height: 14, width: 28, channels: 1 });
    expect(training).toMatchObject({ loss: 'binaryCrossentropy', steps: 5 });
    expect(training.epochs).toBeUndefined();
  });

  it('refuses a model whose weights are all frozen or of the same name', () => {
    expect(() =>
      resolveFederation(baseConfig, { ...artifact, frozenWeights: ['dense/kernel', 'dense/bias'] }),
    ).toThrow('every weight of the model is frozen');
    expect(() =>
      resolveFederation(baseConfig, { ...artifact, weights: [tensor('w', [1]), tensor('w', [2])] }),
    ).toThrow('same name');
  });
});
