/** Walking JSON of unknown shape. */
import { ModelError } from './errors.ts';

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Calls `visit` with every object in `json`, outer before inner, and the key under which it (or the array that holds
 * it) is found, '' for the outermost. Throws FED_MODEL_LIMIT beyond `maxDepth` levels.
 */
export function visitRecords(
  json: unknown,
  visit: (record: Record<string, unknown>, key: string) => void,
  maxDepth = Number.POSITIVE_INFINITY,
): void {
  const walk = (value: unknown, key: string, depth: number): void => {
    if (depth > maxDepth) {
      throw new ModelError('FED_MODEL_LIMIT', `The topology is nested deeper than ${maxDepth} levels.`);
    }
    if (Array.isArray(value)) {
      for (const item of value) walk(item, key, depth + 1);
    } else if (isRecord(value)) {
      visit(value, key);
      for (const [name, item] of Object.entries(value)) walk(item, name, depth + 1);
    }
  };
  walk(json, '', 0);
}
