/**
 * What secure aggregation costs a site and the coordinator, beside the same update as a plain sum and beside the
 * keystream of its masks alone. Each part is measured in a process of its own: one site, or the coordinator, whose peers
 * are made up around it. The keystream is measured as Node gives it, with memory left to the garbage collector, and, what
 * is harder to keep up with, with its memory given back at once, as a site does it.
 */
import { parseArgs } from 'node:util';
import { startParty } from './processes.ts';
import type { SecaggMeasure, SecaggPart } from './secagg-party.ts';

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      sites: { type: 'string', default: '10,100' },
      parameters: { type: 'string', default: '1000000,25000000' },
      turns: { type: 'string', default: '3' },
    },
  });
  const turns = Number(values.turns);
  console.log(`Secure aggregation, complete graph, nobody drops out; the least of ${turns} turns\n`);
  for (const parameters of values.parameters.split(',').map(Number))
    for (const sites of values.sites.split(',').map(Number)) {
      const measured = await measureAll(sites, parameters, turns);
      print(sites, parameters, measured);
    }
}

type Measures = Readonly<Record<SecaggPart, SecaggMeasure>>;

async function measureAll(sites: number, parameters: number, turns: number): Promise<Measures> {
  const parts: SecaggPart[] = [
    'plain site',
    'site',
    'plain coordinator',
    'coordinator',
    'keystream',
    'released keystream',
  ];
  const runs = new Map(parts.map((part) => [part, [] as SecaggMeasure[]]));
  // In turns, so that a busy minute of the machine is nobody's alone.
  for (let turn = 0; turn < turns; turn++)
    for (const part of parts) {
      const party = await startParty('secagg-party', { part, sites, parameters });
      runs.get(part)!.push(await party.next<SecaggMeasure>('measured'));
      await party.stop();
    }
  return Object.fromEntries(
    parts.map((part) => [
      part,
      { ...runs.get(part)![0]!, ...least(runs.get(part)!, ['seconds', 'peakBytes', 'baseBytes']) },
    ]),
  ) as Measures;
}

/** What others do on the machine only adds. */
function least(runs: readonly SecaggMeasure[], keys: readonly (keyof SecaggMeasure)[]) {
  return Object.fromEntries(keys.map((key) => [key, Math.min(...runs.map((run) => run[key]))]));
}

function print(sites: number, parameters: number, measured: Measures): void {
  const keystream = measured.keystream.seconds;
  const released = measured['released keystream'].seconds;
  const seconds = (value: number) => `${value.toFixed(3)} s`;
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  const times = (value: number) => `${value.toFixed(2)} ×`;
  console.log(
    `${sites} sites, ${parameters} parameters (${mib(parameters * 4)}), ${measured.site.bits} bits a value`,
  );
  console.log(
    `  keystream of ${sites} masks alone  ${seconds(keystream)}, with its memory given back ${seconds(released)}`,
  );
  for (const part of ['site', 'coordinator'] as const) {
    const [secure, plain] = [measured[part], measured[`plain ${part}`]];
    const over = (one: SecaggMeasure) => (one.peakBytes - one.baseBytes) / (parameters * 4);
    console.log(
      `  ${part.padEnd(12)} ${seconds(secure.seconds)}, plain ${seconds(plain.seconds)}: ${times(secure.seconds / plain.seconds)} the plain round, ${times(secure.seconds / keystream)} the keystream (${times(secure.seconds / released)} with its memory given back), ${times((secure.seconds - plain.seconds) / keystream)} it for what secrecy adds`,
    );
    console.log(
      `  ${''.padEnd(12)} peak ${mib(secure.peakBytes)}, plain ${mib(plain.peakBytes)}; over the process before the round ${times(over(secure))} the update, plain ${times(over(plain))}`,
    );
  }
  const { uploadBytes, packedBytes } = measured.site;
  const allowed = packedBytes + 150 * (sites - 1);
  console.log(
    `  upload       ${uploadBytes} bytes a site; packed update ${packedBytes} + 150 a peer = ${allowed}: ${(100 * (uploadBytes / allowed - 1)).toFixed(2)} %\n`,
  );
}
