import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', '..');
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tributary-oracles-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function run(folder: string) {
  const argv = [
    '--conditions=@tributary/source',
    '--import',
    'tsx',
    join(import.meta.dirname, 'run.ts'),
    folder,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { cwd: root, encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

const grayscale = (gray: number) => JSON.stringify({ grayscale: { rgb: [255, 0, 0], gray: [gray] } });

describe('oracle runner', () => {
  it('passes the fixtures, which SciPy, numpy and Pillow computed', () => {
    const { status, output } = run(join(import.meta.dirname, 'fixtures'));
    expect(output).toMatch(/image-data-generator\.json\s+\d{3,}\s+0\s/);
    expect(status).toBe(0);
  });

  it('exits non-zero on a miss and says which', () => {
    // (19595 · 255 + 32768) >> 16 = 76
    writeFileSync(join(dir, 'image-data-generator.json'), grayscale(77));
    const { status, output } = run(dir);
    expect(status).toBe(1);
    expect(output).toContain('grayscale: value 0 is 76, expected 77');
  });

  it('lists a subject that is not built, and lets it fail nothing', () => {
    writeFileSync(join(dir, 'image-data-generator.json'), grayscale(76));
    writeFileSync(join(dir, 'from-the-future.json'), '{}');
    const { status, output } = run(dir);
    expect(output).toMatch(/from-the-future\.json\s+not built yet/);
    expect(status).toBe(0);
  });

  it('exits non-zero when a file is malformed, empty or of another form', () => {
    for (const text of ['{"grayscale":', '{}', '[]', '{"affine": [{"variant": "keras9"}]}']) {
      writeFileSync(join(dir, 'image-data-generator.json'), text);
      const { status, output } = run(dir);
      expect(output).toContain('malformed');
      expect(status).toBe(1);
    }
  });

  it('exits non-zero when the folder is absent or holds no oracle', () => {
    expect(run(join(dir, 'nowhere')).status).toBe(1);
    expect(run(dir).status).toBe(1);
  });
});
