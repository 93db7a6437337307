/** `tributary doctor`: what this machine can train on, what would be chosen, and what to install for the rest. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import type { EngineReport, Speed } from '@tributary/engine';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { exitCode } from '../exit-codes.ts';
import { formatBytes } from '../terminal/numbers.ts';
import { wrap } from '../terminal/text.ts';

export function doctorCommand(context: CliContext, setExit: (code: number) => void): Command {
  return new Command('doctor')
    .description('what this machine can train on, and what to install for more')
    .option('--no-speed', 'leave out the three seconds in which the chosen engine is measured')
    .action(async (flags: { readonly speed: boolean }, command: Command) => {
      const { inspectEngines, loadEngine, measureSpeed } = await import('@tributary/engine');
      const engines = await inspectEngines();
      const machine = {
        node: process.versions.node,
        platform: `${process.platform} ${process.arch}`,
        processor: cpus()[0]?.model.trim() || 'unknown',
        instructions: instructionSet(),
        cores: availableParallelism(),
        memoryBytes: totalmem(),
      };
      const chosen = engines.find((engine) => engine.chosen);
      if (chosen === undefined) setExit(exitCode('engine'));
      let speed: Speed | undefined;
      if (flags.speed && chosen !== undefined) {
        await loadEngine({ prefer: chosen.name });
        speed = await measureSpeed();
      }
      if (command.optsWithGlobals()['json'])
        return printJson(context, { type: 'doctor', machine, engines, ...(speed && { speed }) });

      const { bold, dim, green } = context.colours;
      print(
        context,
        `\n  Node ${machine.node}, ${machine.platform}, ${machine.cores} cores, ${formatBytes(machine.memoryBytes)} of memory`,
      );
      print(context, dim(`  ${machine.processor}, ${machine.instructions}\n`));
      for (const engine of engines) printEngine(context, engine);
      if (speed !== undefined) {
        const { gigaflops, size } = speed;
        print(
          context,
          `\n  ${chosen!.name} multiplies ${size} x ${size} matrices at ${formatGigaflops(gigaflops)} GFLOP/s here`,
        );
      }
      print(
        context,
        chosen === undefined
          ? '\n  No engine works here.'
          : `\n  ${green('→')} ${bold(chosen.name)} would be chosen; ${dim('join --engine NAME takes another one')}\n`,
      );
    });
}

/** The widest vector instructions that the processor says it has. */
function instructionSet(): string {
  if (process.arch === 'arm64') return 'NEON';
  let flags: readonly string[] = [];
  try {
    flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(' ') ?? [];
  } catch {
    // Only Linux has the file.
  }
  const widest = VECTOR_INSTRUCTIONS.find(([flag]) => flags.includes(flag));
  return widest?.[1] ?? 'unknown vector instructions';
}

const VECTOR_INSTRUCTIONS = [
  ['avx512f', 'AVX-512'],
  ['avx2', 'AVX2'],
  ['avx', 'AVX'],
  ['sse4_2', 'SSE4.2'],
] as const;

function formatGigaflops(value: number): string {
  return value < 10 ? value.toFixed(1) : value.toFixed(0);
}

function printEngine(context: CliContext, engine: EngineReport): void {
  const { bold, dim, green, yellow } = context.colours;
  const mark = { ready: green('✓'), absent: dim('·'), failed: yellow('!') }[engine.state];
  const width = Math.min(context.stdout.columns ?? 100, 100) - 18;
  const [first = '', ...rest] = wrap(engine.detail, width);
  const name = engine.name.padEnd(11);
  print(context, `  ${mark} ${engine.chosen ? bold(name) : name}   ${first}`);
  for (const line of rest) print(context, `                  ${line}`);
  if (engine.install !== undefined) {
    for (const line of wrap(`to have it: ${engine.install}`, width))
      print(context, `                  ${dim(line)}`);
  }
}
