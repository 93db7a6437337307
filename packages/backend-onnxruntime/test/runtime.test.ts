/** The native binding that this backend reaches into is the one that it was written for. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { external } from '../src/graph.ts';
import { add } from '../src/ops.ts';
import { inputName, modelOf, outputName, plan } from '../src/plan.ts';
import { Runtime } from '../src/runtime.ts';

const sum = () =>
  plan([
    add(external(Float32Array.of(1, 2), [2], 'float32'), external(Float32Array.of(3, 4), [2], 'float32')),
  ]);

describe('runtime', () => {
  // On Windows it is the system that collects. Elsewhere the library keeps an identifier and what it has not sent yet
  // below XDG_CACHE_HOME, or in the current folder where it can't.
  it.skipIf(process.platform === 'win32')('leaves nothing on disk that would be told to its makers', () => {
    const home = mkdtempSync(join(tmpdir(), 'tributary-ort-'));
    const main = fileURLToPath(new URL('./runtime-process.ts', import.meta.url));
    const flags = ['--conditions=@tributary/source', '--import', import.meta.resolve('tsx')];
    // Nothing says that this is a test: then it would be silent by itself.
    const env = { PATH: process.env['PATH'] ?? '', HOME: home, XDG_CACHE_HOME: join(home, 'cache') };
    const child = spawnSync(process.execPath, [...flags, main], { cwd: home, env, encoding: 'utf8' });
    expect(child.status, child.stderr).toBe(0);
    expect(readdirSync(home)).toEqual([]);
    rmSync(home, { recursive: true });
  });

  it('loads, compiles and runs in one synchronous call', () => {
    const runtime = new Runtime({ device: 'cpu', threads: 1, spin: false, arena: true });
    const graph = sum();
    const session = runtime.createSession({ model: modelOf(graph, 'cpu'), parallel: false, gpuOutputs: [] });
    const feeds = Object.fromEntries(
      graph.externals.map((value, i) => [
        inputName(i),
        runtime.tensor(value.source!, value.dtype, value.shape),
      ]),
    );
    const result = session.run(feeds, [outputName(0)]);
    expect([...(result[outputName(0)]!.data as Float32Array)]).toEqual([4, 6]); // 1 + 3, 2 + 4
    session.dispose();
  });

  it('cuda without its library: says what to do', () => {
    const runtime = new Runtime({ device: 'cuda', threads: 1, spin: false, arena: true });
    const compile = () =>
      runtime.createSession({ model: modelOf(sum(), 'cpu'), parallel: false, gpuOutputs: [] });
    expect(compile).toThrow(expect.objectContaining({ code: 'FED_ORT_DEVICE' }));
    expect(compile).toThrow(/CUDA 12/);
  });

  it('a model that is none: throws instead of ending the process', () => {
    const runtime = new Runtime({ device: 'cpu', threads: 1, spin: false, arena: true });
    expect(() =>
      runtime.createSession({ model: Uint8Array.of(1, 2, 3), parallel: false, gpuOutputs: [] }),
    ).toThrow(expect.objectContaining({ code: 'FED_ORT_COMPILE' }));
  });
});
