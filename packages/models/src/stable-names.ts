/**
 * Layers without a name get one from a counter of the process, so the same code gives other names the second time.
 * Weights travel by name and the topology's digest is in every record, so generated names are replaced by ones that
 * depend on the model alone: class and place, such as `dense_2`.
 */
import { isRecord } from './json.ts';

/** What TensorFlow.js generates: conv2d_Conv2D3 (a layer), model1 (a container), input1 (an input). */
const GENERATED_LAYER = /^([a-z][a-z0-9_]*)_[A-Z][A-Za-z0-9]*?\d+(_input)?$/;
const GENERATED_OTHER = /^(sequential|model|functional|input)_?\d+$/;

/** Returns the topology (a copy) with generated names replaced; names that someone chose stay. */
export function withStableNames(topology: unknown): unknown {
  const chosen = new Set<string>();
  const generated: string[] = [];
  collectNames(topology, chosen, generated);
  const renamed = new Map<string, string>();
  const counts = new Map<string, number>();
  for (const name of generated) {
    const base = GENERATED_LAYER.exec(name)?.[1] ?? GENERATED_OTHER.exec(name)?.[1] ?? name;
    let stable: string;
    do {
      const count = (counts.get(base) ?? 0) + 1;
      counts.set(base, count);
      stable = `${base}_${count}`;
    } while (chosen.has(stable));
    renamed.set(name, stable);
  }
  return rename(topology, renamed);
}

function collectNames(value: unknown, chosen: Set<string>, generated: string[]): void {
  if (Array.isArray(value)) {
    for (const item of value) collectNames(item, chosen, generated);
  } else if (isRecord(value)) {
    const name = value['name'];
    if (typeof name === 'string') {
      if (!GENERATED_LAYER.test(name) && !GENERATED_OTHER.test(name)) chosen.add(name);
      else if (!generated.includes(name)) generated.push(name);
    }
    for (const item of Object.values(value)) collectNames(item, chosen, generated);
  }
}

function rename(value: unknown, names: ReadonlyMap<string, string>): unknown {
  if (typeof value === 'string') return names.get(value) ?? value;
  if (Array.isArray(value)) return value.map((item) => rename(item, names));
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, rename(item, names)]));
}
