/** Real nats-servers from the folders that `nats-config` writes, on ports that are free with all their neighbours. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

export interface RunningServer {
  /** Asks its monitor, e.g. `routez`. */
  ask(what: string): Promise<Record<string, unknown>>;
  /** Resolves with the first line of its log that fits. */
  line(pattern: RegExp): Promise<string>;
  kill(): Promise<void>;
}

/** Ports of a server, above the one that nodes dial: routes, leaf nodes, monitor. */
const NEIGHBOURS = [0, 2000, 3200, 4000] as const;

/** Starts the server of a folder, and resolves once it takes connections. */
export async function startServerIn(folder: string, port: number): Promise<RunningServer> {
  const child: ChildProcess = spawn('nats-server', ['-c', 'nats-server.conf'], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const said: string[] = [];
  const waiting = new Set<() => void>();
  createInterface({ input: child.stderr! }).on('line', (line) => {
    said.push(line);
    for (const look of waiting) look();
  });
  const server: RunningServer = {
    async ask(what) {
      const answer = await fetch(`http://127.0.0.1:${port + NEIGHBOURS[3]}/${what}`);
      return (await answer.json()) as Record<string, unknown>;
    },
    line(pattern) {
      return new Promise((resolve, reject) => {
        const look = (): void => {
          const found = said.find((line) => pattern.test(line));
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
        void exited.then(() => reject(new Error(`nats-server ended:\n${said.join('\n')}`)));
      });
    },
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
  await server.line(/Server is ready/);
  return server;
}

/** Polls a monitor: what it tells of its neighbours is in no log of ours. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(50);
}

/** The key of the user with this title in a server's configuration. */
export function nodeIn(config: string, title: string): string {
  const node = new RegExp(`# ${title}\\n\\s*\\{ nkey: (U[A-Z2-7]{55})`).exec(config)?.[1];
  if (node === undefined) throw new Error(`the configuration has no user "${title}"`);
  return node;
}

/** Those of `names` that a node is connected to. */
export async function serversOf(
  node: string,
  servers: ReadonlyMap<string, RunningServer>,
  names: readonly string[],
): Promise<string[]> {
  const found: string[] = [];
  for (const name of names) {
    const { connections } = await servers.get(name)!.ask('connz?auth=1');
    const users = (connections as { authorized_user?: string }[]).map((one) => one.authorized_user);
    if (users.includes(node)) found.push(name);
  }
  return found;
}

/** TLS of a client of its own: names of certificates are the transport's business. */
export function plainTls(caFile: string): { ca: string; checkServerIdentity: () => undefined } {
  return { ca: readFileSync(caFile, 'utf8'), checkServerIdentity: () => undefined };
}

/** Ports to dial, each with its neighbours free at this moment. */
export async function freePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  for (let port = 20_000 + (process.pid % 5000); found.length < count; port++) {
    const free = await Promise.all(NEIGHBOURS.map((above) => isFree(port + above)));
    if (free.every(Boolean)) found.push(port);
  }
  return found;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '0.0.0.0', () => server.close(() => resolve(true)));
  });
}
