import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { AFFINE_SOURCE_SHA256 } from '../src/kernels/affine.ts';
import { JPEG_SOURCE_SHA256 } from '../src/kernels/jpeg.ts';

it.each([
  ['affine', AFFINE_SOURCE_SHA256],
  ['jpeg', JPEG_SOURCE_SHA256],
])(
  'the compiled kernel is of the present source (else run `node scripts/kernels.mjs`): %s',
  (name, digest) => {
    const source = readFileSync(new URL(`../kernels/${name}.ts`, import.meta.url));
    expect(createHash('sha256').update(source).digest('hex')).toBe(digest);
  },
);
