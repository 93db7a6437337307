import pc from 'picocolors';
import { describe, expect, test } from 'vitest';
import { CliError } from '../../src/errors.ts';
import { errorBlock, errorRecord } from '../../src/terminal/error-block.ts';

const options = { colours: pc.createColors(false), verbose: false };
const error = new CliError('FED_CLI_FILE_MISSING', 'There is no folder /x.', {
  where: '--data',
  todo: 'Check the path.',
});

describe('error block', () => {
  test('says what, where, what to do and the code, without a stack trace', () => {
    expect(errorBlock(error, options)).toBe(
      [
        '✗ There is no folder /x.',
        '  where   --data',
        '  to do   Check the path.',
        '  code    FED_CLI_FILE_MISSING (docs/errors.md)',
      ].join('\n'),
    );
  });

  test('verbose: the stack of the error and of its causes', () => {
    const block = errorBlock(new Error('outer', { cause: new Error('inner') }), {
      ...options,
      verbose: true,
    });
    expect(block).toMatch(/Error: outer\n\s+at /);
    expect(block).toMatch(/Error: inner\n\s+at /);
  });

  test('an error without a code points to --verbose; anything thrown has a block', () => {
    expect(errorBlock(new Error('odd'), options)).toContain('--verbose');
    expect(errorBlock('text', options)).toContain('✗ text');
  });

  test('errorRecord: the same facts for --json', () => {
    expect(errorRecord(error)).toEqual({
      type: 'error',
      code: 'FED_CLI_FILE_MISSING',
      message: 'There is no folder /x.',
      where: '--data',
      todo: 'Check the path.',
    });
  });
});
