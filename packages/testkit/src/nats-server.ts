/** A real nats-server of a test's own: on free ports, with its files in a folder that goes away with it. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export interface NatsServer {
  readonly host: string;
  readonly port: number;
  readonly pid: number;
  /** Waits until it is gone. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** Starts it again on the same port, with the same files. */
  restart(): Promise<void>;
}

export interface NatsServerOptions {
  /** Lines of nats-server's own configuration besides `listen`. */
  readonly config?: string;
  /** Files that the configuration names, relative to the server's folder, by name. */
  readonly files?: Readonly<Record<string, string>>;
  /** @default a free one */
  readonly port?: number;
}

/** Why the tests with a NATS server can't run here, or undefined. */
export function natsServerMissing(): string | undefined {
  const { error, stdout } = spawnSync('nats-server', ['--version'], { encoding: 'utf8' });
  return error === undefined && stdout.includes('v2.')
    ? undefined
    : 'nats-server is not installed (Debian: apt-get install nats-server)';
}

/** Starts a server and resolves once it takes connections; rejects with what it printed when it does not. */
export async function startNatsServer(options: NatsServerOptions = {}): Promise<NatsServer> {
  const folder = mkdtempSync(join(tmpdir(), 'tributary-nats-'));
  for (const [name, text] of Object.entries(options.files ?? {})) writeFileSync(join(folder, name), text);
  const configFile = join(folder, 'server.conf');
  let running = await launch(folder, configFile, options.port ?? -1, options.config);
  const { port } = running;
  return {
    host: '127.0.0.1',
    port,
    get pid() {
      return running.child.pid ?? 0;
    },
    async stop(signal = 'SIGKILL') {
      running.child.kill(signal);
      await running.exited;
      if (signal === 'SIGKILL' || signal === 'SIGTERM') rmSync(folder, { recursive: true, force: true });
    },
    async restart() {
      running.child.kill('SIGKILL');
      await running.exited;
      running = await launch(folder, configFile, port, options.config);
    },
  };
}

async function launch(folder: string, configFile: string, port: number, config = '') {
  writeFileSync(configFile, `listen: "127.0.0.1:${port}"\n${config}\n`);
  const child = spawn('nats-server', ['-c', configFile], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const said: string[] = [];
  const actual = await new Promise<number>((resolve, reject) => {
    let seen = port;
    createInterface({ input: child.stderr }).on('line', (line) => {
      said.push(line);
      const at = /Listening for client connections on .*:(\d+)/.exec(line);
      if (at !== null) seen = Number(at[1]);
      if (line.includes('Server is ready')) resolve(seen);
    });
    child.once('error', reject);
    void exited.then(() => reject(new Error(`nats-server ended:\n${said.join('\n')}`)));
  });
  return { child, exited, port: actual };
}
