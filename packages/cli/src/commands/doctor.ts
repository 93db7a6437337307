/** `tributary doctor`: what this machine can train on, what would be chosen, and what to install for the rest. */
import { availableParallelism, totalmem } from 'node:os';
import { type EngineReport, inspectEngines } from '@tributary/engine';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { exitCode } from '../exit-codes.ts';
import { formatBytes } from '../terminal/numbers.ts';
import { wrap } from '../terminal/text.ts';

export function doctorCommand(context: CliContext, setExit: (code: number) => void): Command {
  return new Command('doctor')
    .description('what this machine can train on, and what to install for more')
    .action(async (_options: unknown, command: Command) => {
      const engines = await inspectEngines();
      const machine = {
        node: process.versions.node,
        platform: `${process.platform} ${process.arch}`,
        cores: availableParallelism(),
        memoryBytes: totalmem(),
      };
      if (!engines.some((engine) => engine.chosen)) setExit(exitCode('engine'));
      if (command.optsWithGlobals()['json']) return printJson(context, { type: 'doctor', machine, engines });

      const { bold, dim, green } = context.colours;
      print(
        context,
        `\n  Node ${machine.node}, ${machine.platform}, ${machine.cores} cores, ${formatBytes(machine.memoryBytes)} of memory\n`,
      );
      for (const engine of engines) printEngine(context, engine);
      const chosen = engines.find((engine) => engine.chosen);
      print(
        context,
        chosen === undefined
          ? '\n  No engine works here.'
          : `\n  ${green('→')} ${bold(chosen.name)} would be chosen; ${dim('join --engine NAME takes another one')}\n`,
      );
    });
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
