import { defineConfig } from 'vitest/config';

// Tests run from the sources: the first condition below is the first entry of every package's `exports`. No "import"
// here: it would reach Node's own require(), which would then be given the ESM half of packages that have two.
const conditions = ['@tributary/source', 'node'];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ['packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: 'scripts/transpile.mjs',
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    // A busy machine may take long to read the digits; no time decides a test.
    hookTimeout: 120_000,
  },
});
