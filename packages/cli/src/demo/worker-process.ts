/** A site of the demo: a real child process that runs `tributary join`, its events kept in a log file. */
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface WorkerProcessOptions {
  readonly name: string;
  readonly invite: string;
  readonly dataDir: string;
  readonly stateDir: string;
  readonly logFile: string;
  readonly engine: string;
  /** Its key for a NATS server. */
  readonly natsKey: string | undefined;
}

export interface WorkerProcess {
  readonly name: string;
  readonly pid: number;
  /** Resolves with the exit code and the last thing it said was wrong. Never rejects. */
  readonly ended: Promise<{ readonly code: number; readonly complaint: string | undefined }>;
  /** Asks it to leave, and ends it when it has not after a moment. */
  stop(): Promise<void>;
}

/** Long enough to say goodbye and to close the trainer. */
const STOP_GRACE_MS = 4000;

/** Starts the process with this process's own flags, so that it runs from the same files (sources or built). */
export function startWorkerProcess(options: WorkerProcessOptions): WorkerProcess {
  const { name, invite, dataDir, stateDir, logFile, engine, natsKey } = options;
  const main = fileURLToPath(
    new URL(`../main.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url),
  );
  const flags = [
    '--data',
    dataDir,
    '--name',
    name,
    '--state-dir',
    stateDir,
    '--engine',
    engine,
    '--threads',
    '1',
    // The sites share this machine's cores: more threads would only wait for one another.
    '--image-threads',
    '0',
    ...(natsKey === undefined ? [] : ['--nats-credentials', natsKey]),
    '--json',
  ];
  const child = spawn(process.execPath, [...process.execArgv, main, 'join', invite, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: Ctrl-C reaches the demo alone, which then ends its sites in order.
    detached: true,
  });
  const log = createWriteStream(logFile, { flags: 'a' });
  let complaint: string | undefined;
  const note = (line: string) => {
    log.write(`${line}\n`);
    complaint = complaintIn(line) ?? complaint;
  };
  createInterface({ input: child.stdout }).on('line', note);
  createInterface({ input: child.stderr }).on('line', note);
  const ended = new Promise<{ code: number; complaint: string | undefined }>((resolve) => {
    child.on('error', (error) => resolve({ code: 1, complaint: error.message }));
    child.on('close', (code) => {
      log.end();
      resolve({ code: code ?? 1, complaint });
    });
  });
  return {
    name,
    pid: child.pid ?? 0,
    ended,
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_GRACE_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** What an event says is wrong, if it says so. */
function complaintIn(line: string): string | undefined {
  try {
    const event = JSON.parse(line) as Record<string, unknown>;
    if (event['type'] === 'error') return String(event['message']);
    if (event['type'] === 'failed' || event['type'] === 'trainer-crashed') return String(event['reason']);
    return undefined;
  } catch {
    return line.trim() === '' ? undefined : line;
  }
}
