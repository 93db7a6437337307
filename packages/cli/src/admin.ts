/** Talking to a running coordinator as its operator: the credential in the run directory lets one in. */
import { existsSync, readFileSync } from 'node:fs';
import {
  createChannel,
  errorCode,
  type Message,
  type MessageOf,
  type MessageType,
  PROTOCOL_VERSION,
} from '@tributary/shared-protocol';
import { CliError } from './errors.ts';
import { type Run, readEvents } from './runs.ts';
import { dialingTransport } from './transports.ts';

/** The answer to one admin message. Throws FED_CLI_NOT_RUNNING when no coordinator answers for this run. */
export async function askCoordinator<T extends MessageType>(
  run: Run,
  message: Message,
  expect: T,
): Promise<MessageOf<T>> {
  const address = readEvents(run).findLast((event) => event.type === 'listening');
  const open = existsSync(run.paths.lock);
  if (address === undefined || !open || !existsSync(run.paths.admin)) throw notRunning(run);
  const { url, fingerprint } = address;
  const transport = dialingTransport(run.federation.server.nats);
  let link: Awaited<ReturnType<typeof transport.connect>>;
  try {
    link = await transport.connect(url, fingerprint === undefined ? {} : { fingerprint });
  } catch (error) {
    if (errorCode(error) !== 'FED_TRANSPORT_UNREACHABLE') throw error;
    throw notRunning(run, error);
  }
  const channel = createChannel(link);
  try {
    await channel.call(
      {
        type: 'hello',
        protocol: PROTOCOL_VERSION,
        software: 'tributary',
        role: 'admin',
        name: 'admin',
        credential: readFileSync(run.paths.admin, 'utf8').trim(),
        clockMs: Date.now(),
      },
      'welcome',
    );
    return await channel.call(message, expect);
  } finally {
    await channel.close();
  }
}

function notRunning(run: Run, cause?: unknown): CliError {
  return new CliError('FED_CLI_NOT_RUNNING', `No coordinator is running for ${run.dir}.`, {
    todo: 'Start it, on the machine that holds the run: tributary coordinator',
    ...(cause === undefined ? {} : { cause }),
  });
}
