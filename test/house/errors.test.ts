/** docs/errors.md is the list of codes that a reader can trust: it equals the code's own, both ways. */
import { readFileSync } from 'node:fs';
import { BACKEND_ERROR_CODES } from '@tributary/backend-onnxruntime';
import { COORDINATOR_ERROR_CODES } from '@tributary/coordinator';
import { ENGINE_ERROR_CODES } from '@tributary/engine';
import { MODEL_ERROR_CODES } from '@tributary/models';
import { PRIVACY_ERROR_CODES } from '@tributary/privacy';
import { PROTOCOL_ERROR_CODES } from '@tributary/shared-protocol';
import { WORKER_ERROR_CODES } from '@tributary/worker';
import { CLI_ERROR_CODES } from 'tributary';
import { describe, expect, test } from 'vitest';

const inCode: string[] = [
  ...PROTOCOL_ERROR_CODES,
  ...BACKEND_ERROR_CODES,
  ...COORDINATOR_ERROR_CODES,
  ...ENGINE_ERROR_CODES,
  ...MODEL_ERROR_CODES,
  ...PRIVACY_ERROR_CODES,
  ...WORKER_ERROR_CODES,
  ...CLI_ERROR_CODES,
];
const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
const inDocs = [...page.matchAll(/^\| `(FED_[A-Z0-9_]+)` \|/gm)].map((match) => match[1]!);

describe('docs/errors.md', () => {
  test('lists every code of the code, and no other', () => {
    expect([...inDocs].sort()).toEqual([...new Set(inCode)].sort());
  });

  test('lists each code once', () => {
    expect(new Set(inDocs).size).toBe(inDocs.length);
  });
});
