/** The native binding that this backend reaches into is the one that it was written for. */
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
  it('loads, compiles and runs in one synchronous call', () => {
    const runtime = new Runtime({ device: 'cpu', threads: 1, spin: false, arena: true });
    const graph = sum();
    const session = runtime.createSession({ model: modelOf(graph), parallel: false, gpuOutputs: [] });
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
    const compile = () => runtime.createSession({ model: modelOf(sum()), parallel: false, gpuOutputs: [] });
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
