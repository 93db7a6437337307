import { readFileSync } from 'node:fs';
import { COORDINATOR_ERROR_CODES } from '@tributary/coordinator';
import { ENGINE_ERROR_CODES } from '@tributary/engine';
import { MODEL_ERROR_CODES } from '@tributary/models';
import { PRIVACY_ERROR_CODES } from '@tributary/privacy';
import { PROTOCOL_ERROR_CODES } from '@tributary/shared-protocol';
import { WORKER_ERROR_CODES } from '@tributary/worker';
import { describe, expect, test } from 'vitest';
import { CLI_ERROR_CODES, CliError } from '../src/errors.ts';
import { EXIT_CODES, exitCode, exitCodeOf } from '../src/exit-codes.ts';

const doc = readFileSync(new URL('../../../docs/cli.md', import.meta.url), 'utf8');

describe('exit codes', () => {
  test('docs/cli.md: its table is the code’s, row by row', () => {
    const rows = [...doc.matchAll(/^\| (\d+) \| `(\w+)` \| (.+) \|$/gm)].map(([, code, name, meaning]) => ({
      code: Number(code),
      name,
      meaning,
    }));
    expect(rows).toEqual(EXIT_CODES.map((row) => ({ ...row })));
  });

  test('exitCodeOf: the longest prefix of the error’s code decides', () => {
    const of = (code: string) => exitCodeOf(Object.assign(new Error('x'), { code }));
    expect(of('FED_WORKER_NO_CREDENTIAL')).toBe(exitCode('refused'));
    expect(of('FED_WORKER_STATE_LOCKED')).toBe(exitCode('storage'));
    expect(of('FED_PROTOCOL_FRAME_TRUNCATED')).toBe(exitCode('network'));
    expect(of('FED_PROTOCOL_VERSION')).toBe(exitCode('refused'));
    expect(exitCodeOf(new CliError('FED_CLI_RUN_FAILED', 'x'))).toBe(exitCode('run'));
  });

  test('exitCodeOf: every code of every package has an exit of its kind', () => {
    const codes = [
      ...CLI_ERROR_CODES,
      ...COORDINATOR_ERROR_CODES,
      ...ENGINE_ERROR_CODES,
      ...MODEL_ERROR_CODES,
      ...PRIVACY_ERROR_CODES,
      ...PROTOCOL_ERROR_CODES,
      ...WORKER_ERROR_CODES,
    ];
    const unexpected = codes.filter((code) => exitCodeOf(Object.assign(new Error('x'), { code })) === 1);
    // That one is the wire's word for a fault that the other end did not foresee.
    expect(unexpected).toEqual(['FED_INTERNAL']);
  });

  test('exitCodeOf: an error without a code is unexpected, whatever was thrown', () => {
    expect(exitCodeOf(new Error('x'))).toBe(1);
    expect(exitCodeOf('x')).toBe(1);
    expect(exitCodeOf(undefined)).toBe(1);
  });

  test('the numbers and the names differ from each other', () => {
    expect(new Set(EXIT_CODES.map((row) => row.code)).size).toBe(EXIT_CODES.length);
    expect(new Set(EXIT_CODES.map((row) => row.name)).size).toBe(EXIT_CODES.length);
  });
});
