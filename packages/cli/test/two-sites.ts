/** A federation of two sites, east and west, for tests with real processes: images of zeros and ones, and what trains on them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DigitFile, openDigits, writeDigits } from '../src/demo/digits.ts';
import { splitDigits } from '../src/demo/split.ts';
import { type CliProcess, ROOT, startWith } from './support.ts';

/** Writes `perDigit` images of each digit under `dir`, as east/, west/ and test/, or where `place` has each. */
export async function writeTwoSites(
  dir: string,
  perDigit: number,
  place: (path: string) => string = (path) => path,
): Promise<DigitFile[]> {
  const digits = await openDigits([ROOT]);
  const split = splitDigits({
    seed: 1,
    sites: ['east', 'west'],
    counts: digits.counts,
    digits: [0, 1],
    perDigit,
    concentration: 5,
  });
  const files = split.files.map((file) => ({ ...file, path: place(file.path) }));
  await writeDigits({ dir, files, digits: async () => digits });
  return files;
}

/** Writes tributary.config.json: three rounds of a small network, with `changes` over it. */
export function writeTwoSitesConfig(dir: string, changes: Record<string, unknown> = {}): void {
  const config = {
    name: 'ward',
    model: 'image-cnn-small',
    input: { height: 28, width: 28, channels: 1 },
    classes: ['0', '1'],
    rounds: 3,
    cohort: { quorum: 2 },
    deadlines: { heartbeatSeconds: 0.5 },
    ...changes,
  };
  writeFileSync(join(dir, 'tributary.config.json'), JSON.stringify(config));
}

export interface Household {
  /** Starts a command in the folder; its workers' state is kept there too. */
  begin(...argv: string[]): CliProcess;
  /** Kills what still runs, and waits for it. */
  end(): Promise<void>;
}

/** Keeps account of the processes of a test that is played in `dir`. */
export function openHousehold(dir: string): Household {
  const processes: CliProcess[] = [];
  return {
    begin(...argv) {
      const process = startWith({ TRIBUTARY_HOME: join(dir, 'state') }, dir, ...argv);
      processes.push(process);
      return process;
    },
    async end() {
      for (const process of processes) process.kill('SIGKILL');
      await Promise.all(processes.map((process) => process.ended));
    },
  };
}
