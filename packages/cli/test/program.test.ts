import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { coloursFor } from '../src/context.ts';
import { run } from './support.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-cli-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const fresh = () => mkdtempSync(join(dir, 'x-'));

describe('usage', () => {
  test('an unknown command is exit 2, names the nearest one, and shows no stack trace', async () => {
    const { code, err, out } = await run(dir, 'coordinatr');
    expect(code).toBe(2);
    expect(err).toContain('Did you mean coordinator?');
    expect(err).toContain('FED_CLI_USAGE');
    expect(err).not.toMatch(/\n\s+at /);
    expect(out).toBe('');
  });

  test.each([
    [['coordinator', '--port', '70000'], 'from 0 to 65535'],
    [['join', 'x', '--data', '.', '--engine', 'gpu'], 'auto, tensorflow, webgpu, onnxruntime, wasm, cpu'],
    [['join', 'x'], '--data'],
    [['export', '--out', 'x', '--round', 'first'], 'best, last'],
    [['export', '--out', 'x', '--format', 'onnx'], 'layers-model, safetensors'],
    [['predict'], 'model'],
    [['status', '--jsn'], '--json'],
    [['init', 'config.yaml'], '.ts'],
  ])('%j: exit 2, and says what would be right', async (argv, hint) => {
    const { code, err } = await run(dir, ...argv);
    expect(code).toBe(2);
    expect(err.replaceAll(/\s+/g, ' ')).toContain(hint);
  });

  test('--json: an error is one JSON object on stdout, and stderr stays empty', async () => {
    const { code, out, err } = await run(dir, 'status', 'nowhere', '--json');
    expect(code).toBe(3);
    expect(JSON.parse(out)).toMatchObject({ type: 'error', code: 'FED_CLI_RUN_NOT_FOUND' });
    expect(err).toBe('');
  });

  test('--help and --version are exit 0', async () => {
    expect(await run(dir, '--help')).toMatchObject({ code: 0, err: '' });
    expect((await run(dir, '--version')).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test.each([
    [['join', 'trib1.x', '--data', 'nowhere'], 'FED_CLI_FILE_MISSING'],
    [['evaluate', '--data', 'nowhere'], 'FED_CLI_FILE_MISSING'],
    [['predict', 'run', 'nowhere.png'], 'FED_CLI_FILE_MISSING'],
  ])('%j: a path that is not there is a clear error', async (argv, errorCode) => {
    const { code, err } = await run(dir, ...argv);
    expect(code).toBe(2);
    expect(err).toContain(errorCode);
    expect(err).toContain(join(dir, 'nowhere'));
  });
});

describe('colours', () => {
  test('NO_COLOR wins over a terminal and FORCE_COLOR; a pipe has none; FORCE_COLOR colours a pipe', () => {
    const terminal = { isTTY: true, write: () => true };
    const pipe = { write: () => true };
    const coloured = (stream: typeof terminal | typeof pipe, env: Record<string, string>) =>
      coloursFor(stream, env).red('x') !== 'x';
    expect(coloured(terminal, {})).toBe(true);
    expect(coloured(terminal, { NO_COLOR: '1', FORCE_COLOR: '1' })).toBe(false);
    expect(coloured(terminal, { TERM: 'dumb' })).toBe(false);
    expect(coloured(pipe, {})).toBe(false);
    expect(coloured(pipe, { FORCE_COLOR: '1' })).toBe(true);
    // An empty NO_COLOR says nothing (no-color.org).
    expect(coloured(terminal, { NO_COLOR: '' })).toBe(true);
  });
});

describe('init', () => {
  test('writes a configuration that the coordinator takes, and leaves one that is there alone', async () => {
    const cwd = fresh();
    expect(await run(cwd, 'init')).toMatchObject({ code: 0 });
    const path = join(cwd, 'tributary.config.ts');
    const resolved = await run(cwd, 'coordinator', '--print-config');
    expect(resolved.code).toBe(0);
    expect(JSON.parse(resolved.out)).toMatchObject({
      name: 'my-federation',
      classes: ['cats', 'dogs'],
      model: 'image-cnn',
      rounds: 10,
    });

    writeFileSync(path, '// mine');
    const again = await run(cwd, 'init');
    expect(again.code).toBe(2);
    expect(again.err).toContain('FED_CLI_FILE_EXISTS');
    expect(readFileSync(path, 'utf8')).toBe('// mine');
  });
});

describe('coordinator', () => {
  const config = { name: 'two', model: 'image-cnn-small', classes: ['a', 'b'] };
  const write = (value: unknown) => {
    const cwd = fresh();
    writeFileSync(join(cwd, 'tributary.config.json'), JSON.stringify(value));
    return cwd;
  };

  test('without a configuration it says how to get one', async () => {
    const { code, err } = await run(fresh(), 'coordinator');
    expect(code).toBe(3);
    expect(err).toContain('tributary init');
  });

  test('a typo in the configuration names the key and the nearest one', async () => {
    const { code, err } = await run(write({ ...config, rouns: 3 }), 'coordinator');
    expect(code).toBe(3);
    expect(err).toContain('rouns');
    expect(err).toContain('did you mean "rounds"?');
  });

  test('--print-config: the recipe of the model, under what the configuration and the flags say', async () => {
    const cwd = write({ ...config, augmentation: { rotationRange: 3 }, training: { frozenLayers: [] } });
    const { out } = await run(cwd, 'coordinator', '--print-config', '--rounds', '2', '--port', '0');
    const resolved = JSON.parse(out) as Record<string, Record<string, unknown>>;
    expect(resolved['rounds']).toBe(2);
    expect(resolved['server']!['port']).toBe(0);
    expect(resolved['augmentation']).toMatchObject({ rotationRange: 3, zoomRange: 0.1 });
    expect(resolved['input']).toMatchObject({ height: 28, width: 28, channels: 1 });
    expect(resolved['training']!['loss']).toBe('binaryCrossentropy');
  });

  test('--print-config: the digest is the same in every process and place', async () => {
    const digestOf = async (cwd: string) =>
      (JSON.parse((await run(cwd, 'coordinator', '--print-config')).out) as { digest: string }).digest;
    expect(await digestOf(write(config))).toBe(await digestOf(write(config)));
  });

  test('a model that is neither shipped nor a file, and a frozen layer that is not there, are named', async () => {
    const nowhere = await run(write({ ...config, model: 'image-cn' }), 'coordinator', '--print-config');
    expect(nowhere.code).toBe(3);
    expect(nowhere.err).toContain('image-cnn-small');
    const frozen = await run(
      write({ ...config, training: { frozenLayers: ['conv9'] } }),
      'coordinator',
      '--print-config',
    );
    expect(frozen.code).toBe(3);
    expect(frozen.err).toContain('conv9');
  });

  test('a builder in the configuration gets TensorFlow.js, the input, the classes and the seed', async () => {
    const cwd = fresh();
    writeFileSync(
      join(cwd, 'tributary.config.ts'),
      `import { defineFederation } from 'tributary';
       export default defineFederation({
         name: 'own', classes: ['a', 'b', 'c'], input: { height: 4, width: 4, channels: 1 },
         model: ({ tf, input, numClasses }: any) => tf.sequential({ layers: [
           tf.layers.flatten({ inputShape: [input.height, input.width, input.channels] }),
           tf.layers.dense({ units: numClasses, activation: 'softmax', name: 'out' }),
         ] }),
       });`,
    );
    const { code, out, err } = await run(cwd, 'coordinator', '--print-config');
    expect(err).toBe('');
    expect(code).toBe(0);
    // 4 x 4 pixels flattened to 16, 3 classes.
    expect(JSON.parse(out)).toMatchObject({
      tensors: [{ shape: [16, 3] }, { shape: [3] }],
      training: { loss: 'categoricalCrossentropy' },
    });
  });
});

describe('doctor', () => {
  test('--json: the machine and every engine, one of them chosen', async () => {
    const { code, out } = await run(dir, 'doctor', '--json');
    expect(code).toBe(0);
    const report = JSON.parse(out) as {
      machine: { processor: string; instructions: string };
      engines: { name: string; chosen: boolean }[];
      speed: { gigaflops: number; size: number; products: number };
    };
    expect(report.engines.map((engine) => engine.name)).toEqual([
      'tensorflow',
      'webgpu',
      'onnxruntime',
      'wasm',
      'cpu',
    ]);
    expect(report.engines.filter((engine) => engine.chosen).length).toBe(1);
    expect(report.machine.instructions).toMatch(/AVX|SSE|NEON|unknown/);
    expect(report.speed.gigaflops).toBeGreaterThan(0.01);
    expect(report.speed.products).toBeGreaterThan(0);
  });

  test('--no-speed: says what there is and measures nothing', async () => {
    const { code, out } = await run(dir, 'doctor', '--no-speed');
    expect(code).toBe(0);
    expect(out).toMatch(/would be chosen/);
    expect(out).not.toMatch(/GFLOP/);
  });
});
