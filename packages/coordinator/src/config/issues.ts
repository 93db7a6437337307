/** Turns zod's issues into lines that name the key, the value found and what would be right, with a near spelling. */
import type { z } from 'zod';
import type { ConfigIssue } from '../errors.ts';

/** Every mistake of `error`, in the order found. `input` is the value that was checked against `schema`. */
export function describeIssues(error: z.ZodError, schema: z.ZodType, input: unknown): ConfigIssue[] {
  return error.issues.flatMap((issue) => describe(issue, schema, input, []));
}

function describe(
  issue: z.core.$ZodIssue,
  schema: z.ZodType,
  input: unknown,
  above: readonly PropertyKey[],
): ConfigIssue[] {
  const path = [...above, ...issue.path];
  const value = valueAt(input, path);
  const found = value === undefined ? undefined : short(value);
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = keysAt(schema as unknown as Definition, path, input);
      return issue.keys.map((key) => ({
        path: dotted([...path, key]),
        value: short(valueAt(input, [...path, key])),
        message: `there is no such key${hint(key, known) || (known.length > 0 ? `; keys here are ${known.join(', ')}` : '')}`,
      }));
    }
    case 'invalid_value': {
      const values = issue.values.map((v) => JSON.stringify(v));
      const near = typeof value === 'string' ? hint(value, issue.values.map(String)) : '';
      return [
        {
          path: dotted(path),
          value: found,
          message: `expected ${values.length === 1 ? '' : 'one of '}${values.join(', ')}${near}`,
        },
      ];
    }
    case 'invalid_union': {
      if (issue.discriminator !== undefined) {
        // The path of the issue ends in the discriminator itself.
        const key = path;
        const names = unionNames(
          schema as unknown as Definition,
          path.slice(0, -1),
          input,
          issue.discriminator,
        );
        const actual = valueAt(input, key);
        return [
          {
            path: dotted(key),
            value: actual === undefined ? undefined : short(actual),
            message: `expected one of ${names.map((n) => `"${n}"`).join(', ')}${typeof actual === 'string' ? hint(actual, names) : ''}`,
          },
        ];
      }
      const options = issue.errors.flat().map((e) => e.message.replace(/^Invalid input: /, ''));
      const message = issue.message === 'Invalid input' ? [...new Set(options)].join(', or ') : issue.message;
      return [{ path: dotted(path), value: found, message }];
    }
    case 'invalid_type':
      return [
        {
          path: dotted(path),
          value: found,
          message:
            value === undefined
              ? `is missing; expected ${article(issue.expected)}`
              : (custom(issue.message) ?? `expected ${article(issue.expected)}`),
        },
      ];
    case 'too_small':
      return [
        {
          path: dotted(path),
          value: found,
          message:
            custom(issue.message) ??
            `expected ${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`,
        },
      ];
    case 'too_big':
      return [
        {
          path: dotted(path),
          value: found,
          message:
            custom(issue.message) ?? `expected ${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}`,
        },
      ];
    default:
      return [{ path: dotted(path), value: found, message: issue.message }];
  }
}

/** The candidate closest to `word` within two edits (or a third of its length), as a question, or ''. */
function hint(word: string, candidates: readonly string[]): string {
  const ranked = candidates
    .map((candidate) => ({ candidate, edits: editDistance(word.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits);
  const best = ranked[0];
  return best && best.edits <= Math.max(2, Math.floor(word.length / 3))
    ? `; did you mean "${best.candidate}"?`
    : '';
}

/** Levenshtein distance with adjacent transpositions counted as one edit. */
function editDistance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) => [i, ...new Array<number>(b.length).fill(0)]);
  for (let j = 0; j <= b.length; j++) rows[0]![j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let edits = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, rows[i - 1]![j - 1]! + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        edits = Math.min(edits, rows[i - 2]![j - 2]! + 1);
      rows[i]![j] = edits;
    }
  }
  return rows[a.length]![b.length]!;
}

function dotted(path: readonly PropertyKey[]): string {
  return path
    .map((key, i) => (typeof key === 'number' ? `[${key}]` : `${i > 0 ? '.' : ''}${String(key)}`))
    .join('');
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, key) =>
      typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[key] : undefined,
    input,
  );
}

function short(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function article(type: string): string {
  const name = { int: 'whole number', record: 'object' }[type] ?? type;
  return `${/^[aeiou]/.test(name) ? 'an' : 'a'} ${name}`;
}

/** zod's own texts start with "Too" or "Invalid"; anything else was written in the schema. */
function custom(message: string): string | undefined {
  return /^(Too|Invalid) /.test(message) ? undefined : message;
}

// --- a walk through a schema's definition, for the keys that would be right ---

interface Definition {
  readonly _zod: {
    readonly def: {
      readonly type: string;
      readonly innerType?: Definition;
      readonly shape?: Readonly<Record<string, Definition>>;
      readonly element?: Definition;
      readonly options?: readonly Definition[];
      readonly discriminator?: string;
      readonly values?: readonly unknown[];
    };
  };
}

function unwrap(schema: Definition): Definition {
  return schema._zod.def.innerType ? unwrap(schema._zod.def.innerType) : schema;
}

function schemaAt(schema: Definition, path: readonly PropertyKey[], input: unknown): Definition | undefined {
  let here: Definition | undefined = pick(unwrap(schema), input);
  let value = input;
  for (const key of path) {
    value = valueAt(value, [key]);
    const def: Definition['_zod']['def'] | undefined = here?._zod.def;
    const next: Definition | undefined = def?.shape?.[String(key)] ?? def?.element;
    here = next && pick(unwrap(next), value);
  }
  return here;
}

/** Of a discriminated union, the option that the value names. */
function pick(schema: Definition, value: unknown): Definition {
  const { options, discriminator } = schema._zod.def;
  if (!options || discriminator === undefined) return schema;
  const name = valueAt(value, [discriminator]);
  const named = options.find((option) => namesOf(option, discriminator).includes(name));
  return named === undefined ? schema : pick(named, value);
}

/** What the discriminator may be for this option, which may be a union itself. */
function namesOf({ _zod: { def } }: Definition, discriminator: string): readonly unknown[] {
  const { shape, options = [] } = def;
  return shape?.[discriminator]?._zod.def.values ?? options.flatMap((one) => namesOf(one, discriminator));
}

function keysAt(schema: Definition, path: readonly PropertyKey[], input: unknown): string[] {
  return Object.keys(schemaAt(schema, path, input)?._zod.def.shape ?? {});
}

function unionNames(
  schema: Definition,
  path: readonly PropertyKey[],
  input: unknown,
  discriminator: string,
): string[] {
  const options = schemaAt(schema, path, input)?._zod.def.options ?? [];
  return [...new Set(options.flatMap((option) => namesOf(option, discriminator).map(String)))];
}
