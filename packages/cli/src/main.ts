/** The process behind `tributary`: real streams, real signals. Everything else is in program.ts. */
import { expectLargeBuffers } from '@tributary/shared-protocol';
import { createContext } from './context.ts';
import { exitCode } from './exit-codes.ts';
import { runCli } from './program.ts';

expectLargeBuffers();
const argv = process.argv.slice(2);
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (interrupted.signal.aborted) process.exit(exitCode('interrupted'));
    interrupted.abort(new Error(`stopped by ${signal}`));
  });
}
// A reader that has seen enough (`| head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

const context = createContext({
  cwd: process.cwd(),
  env: argv.includes('--no-color') ? { ...process.env, NO_COLOR: '1' } : process.env,
  stdout: process.stdout,
  stderr: process.stderr,
  signal: interrupted.signal,
});
process.exitCode = await runCli(argv, context);
