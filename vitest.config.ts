import { defineConfig } from 'vitest/config';

// Tests run from the sources: the condition below is the first entry of every package's `exports`.
const conditions = ['@tributary/source', 'node', 'import', 'default'];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ['packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
  },
});
