/**
 * What a site keeps of one run: its key, where its coordinator is, the global models, finished updates. One folder a run and name, held
 * by one agent at a time; everything in it may be left by a process that was killed at any moment.
 */
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import {
  crashPoint,
  createSigningKey,
  type FederationView,
  federationViewSchema,
  keyFingerprint,
  readSigningKey,
  type SigningKey,
} from '@tributary/shared-protocol';
import { z } from 'zod';
import { WorkerError } from '../errors.ts';
import { readText, writeFileAtomic } from './atomic-file.ts';
import { acquireLock, type Lock } from './lock.ts';

const credentialSchema = z.strictObject({
  version: z.literal(2),
  url: z.string(),
  fingerprint: z.string().optional(),
  runId: z.string(),
  name: z.string(),
  /** The run's, from the invite, else from the first `challenged`: whoever can't prove it is not the coordinator. */
  publicKey: z.string().optional(),
  /** Whether a `welcome` has been read: from then on the invite's secret is not shown again. */
  confirmed: z.boolean(),
});
/** How a site finds its coordinator again and knows it. What convinces that one is the key in `node.key`. */
export type Credential = z.infer<typeof credentialSchema>;

const RECORDS_FILE = 'records.jsonl';
const FEDERATION_FILE = 'federation.json';
const keptSchema = z.strictObject({
  version: z.literal(1),
  minor: z.int().min(0),
  federation: federationViewSchema,
});

export interface StateDir {
  readonly path: string;
  readonly modelsDir: string;
  readonly spoolDir: string;
  /** Scratch space of the trainer process. */
  readonly workDir: string;
  /** The site's copy of the log's lines that concern it. */
  readonly recordsFile: string;
  /** What the site's policy counts. */
  readonly ledgerFile: string;
  /** What was spent of the records' privacy; made on the first update of a private federation. */
  readonly privacyLedgerFile: string;
  /** The keys of the other sites, where updates are summed under masks; and the sums that this site has signed. */
  readonly peersFile: string;
  readonly signedSumsFile: string;
  readCredential(): Promise<Credential | undefined>;
  writeCredential(credential: Credential): Promise<void>;
  /**
   * This site's key in this run; with `create`, made when there is none, and durable before it is returned.
   *
   * @throws WorkerError FED_WORKER_KEY when it is missing or unreadable; or when a change of it was broken off, unless
   *   `changing` says that this is to go on with that
   */
  openKey(options: { readonly create: boolean; readonly changing?: boolean }): Promise<NodeKey>;
  /** The key that is to take that one's place, made when there is none yet. */
  openNextKey(): Promise<SigningKey>;
  /** Puts the next key in the place of the present one. */
  adoptNextKey(next: SigningKey): Promise<void>;
  /** Keeps what the coordinator said of the federation, for `tributary policy check`. */
  writeFederation(federation: FederationView, protocol: { readonly minor: number }): Promise<void>;
  /** Lets another agent in. */
  release(): Promise<void>;
}

export interface NodeKey {
  readonly key: SigningKey;
  readonly path: string;
  /** Made by this call. */
  readonly made: boolean;
}

/** Returns TRIBUTARY_HOME, or `tributary` under the user's state folder. */
export function stateHome(env: NodeJS.ProcessEnv = process.env): string {
  const own = env['TRIBUTARY_HOME'];
  if (own !== undefined && own !== '') return resolve(own);
  const base =
    process.platform === 'win32'
      ? (env['LOCALAPPDATA'] ?? join(homedir(), 'AppData', 'Local'))
      : process.platform === 'darwin'
        ? join(homedir(), 'Library', 'Application Support')
        : (env['XDG_STATE_HOME'] ?? join(homedir(), '.local', 'state'));
  return join(base, 'tributary');
}

/** Returns the folder of one site in one run under `home`; the name is made safe for a file system. */
export function siteStateDir(home: string, runId: string, name: string): string {
  return join(home, 'sites', fileName(runId), fileName(name));
}

/**
 * Returns the only folder under `home` that belongs to `name` (or, without a name, the only one of all). Throws
 * FED_WORKER_NO_CREDENTIAL when there is none, or when several runs would fit.
 */
export async function findStateDir(home: string, name?: string): Promise<string> {
  const found: string[] = [];
  for (const run of await entriesOf(join(home, 'sites'))) {
    for (const site of await entriesOf(join(home, 'sites', run))) {
      if (name === undefined || site === fileName(name)) found.push(join(home, 'sites', run, site));
    }
  }
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  throw new WorkerError(
    'FED_WORKER_NO_CREDENTIAL',
    found.length === 0
      ? `no run was joined from here (looked in ${join(home, 'sites')}); join with an invite from the coordinator`
      : `${found.length} runs were joined from here; say which with the invite or the state folder: ${found.join(', ')}`,
  );
}

/**
 * Opens a state folder, makes what is missing, and holds it until `release`. Errors: FED_WORKER_STATE_LOCKED when
 * another agent has it, FED_WORKER_STATE_UNUSABLE when it can't be made or written.
 */
export async function openStateDir(path: string): Promise<StateDir> {
  const [modelsDir, spoolDir, workDir] = [join(path, 'models'), join(path, 'spool'), join(path, 'work')];
  let lock: Lock;
  try {
    for (const directory of [modelsDir, spoolDir, workDir]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
    lock = await acquireLock(path);
    for (const directory of [path, workDir]) await sweepTemporaries(directory);
  } catch (error) {
    if (error instanceof WorkerError) throw error;
    throw new WorkerError(
      'FED_WORKER_STATE_UNUSABLE',
      `can't use the state folder ${path}: ${(error as Error).message}; free it or name another (TRIBUTARY_HOME)`,
      { cause: error },
    );
  }
  const credentialPath = join(path, 'credential.json');
  const keyPath = join(path, 'node.key');
  const nextKeyPath = join(path, 'node.key.next');
  return {
    path,
    modelsDir,
    spoolDir,
    workDir,
    recordsFile: join(path, RECORDS_FILE),
    ledgerFile: join(path, 'policy-ledger.json'),
    privacyLedgerFile: join(path, 'privacy-ledger.jsonl'),
    peersFile: join(path, 'peers.json'),
    signedSumsFile: join(path, 'signed-sums.jsonl'),
    async readCredential() {
      const text = await readText(credentialPath);
      if (text === undefined) return undefined;
      const parsed = credentialSchema.safeParse(parseJson(text));
      if (parsed.success) return parsed.data;
      throw new WorkerError(
        'FED_WORKER_STATE_UNUSABLE',
        `${credentialPath} is not a credential of this version; move it away and join with a new invite`,
      );
    },
    writeCredential: (credential) =>
      writeFileAtomic(credentialPath, `${JSON.stringify(credential, undefined, 2)}\n`, 0o600),
    async openKey({ create, changing = false }) {
      if (!changing && (await readText(nextKeyPath)) !== undefined) {
        throw new WorkerError(
          'FED_WORKER_KEY',
          `${nextKeyPath} is there: a change of key was broken off; \`tributary rotate key\` goes on with it`,
        );
      }
      const pem = await readText(keyPath);
      if (pem !== undefined) return { key: parseKey(pem, keyPath), path: keyPath, made: false };
      if (!create) {
        throw new WorkerError(
          'FED_WORKER_KEY',
          `${keyPath} is gone, and with it what this site is known by; restore it from a copy, or ask the lead to revoke this site and to invite it under another name`,
        );
      }
      const key = createSigningKey();
      await writeFileAtomic(keyPath, key.pem, 0o600);
      crashPoint('agent:after-key');
      return { key, path: keyPath, made: true };
    },
    async openNextKey() {
      const pem = await readText(nextKeyPath);
      if (pem !== undefined) return parseKey(pem, nextKeyPath);
      const key = createSigningKey();
      await writeFileAtomic(nextKeyPath, key.pem, 0o600);
      return key;
    },
    async adoptNextKey(next) {
      await writeFileAtomic(keyPath, next.pem, 0o600);
      await rm(nextKeyPath, { force: true });
    },
    writeFederation: (federation, { minor }) =>
      writeFileAtomic(join(path, FEDERATION_FILE), `${JSON.stringify({ version: 1, minor, federation })}\n`),
    release: () => lock.release(),
  };
}

/** How a key is shown to the person at the site. */
export function describeKey({ key, path, made }: NodeKey): string {
  return `${path}, ${made ? 'made now, ' : ''}fingerprint ${keyFingerprint(key.publicKey)}`;
}

/** What a state folder knows of the run that was joined from it. */
export interface SiteFacts {
  readonly url: string;
  readonly fingerprint: string | undefined;
  readonly name: string;
  /** Base64url of the run's key; undefined before the first link when the invite had none. */
  readonly publicKey: string | undefined;
  /** The site's copy of the log, which need not be there. */
  readonly recordsFile: string;
  /** Undefined when no coordinator has let this site in yet. */
  readonly federation: FederationView | undefined;
  /** Minor of the protocol that was spoken. */
  readonly minor: number | undefined;
}

/** Reads a state folder without holding it, or undefined when no run was joined from it. Shows no secret. */
export async function readSiteFacts(path: string): Promise<SiteFacts | undefined> {
  const credential = credentialSchema.safeParse(await readJson(join(path, 'credential.json')));
  if (!credential.success) return undefined;
  const kept = keptSchema.safeParse(await readJson(join(path, FEDERATION_FILE)));
  const { url, fingerprint, name, publicKey } = credential.data;
  const { federation, minor } = kept.data ?? {};
  return { url, fingerprint, name, publicKey, recordsFile: join(path, RECORDS_FILE), federation, minor };
}

/** Removes what a killed agent was about to put in a file's place, and what it had masked with keys that are gone. */
async function sweepTemporaries(directory: string): Promise<void> {
  for (const file of await entriesOf(directory)) {
    if (/\.\d+\.tmp$|\.masked$/.test(file)) await rm(join(directory, file), { force: true });
  }
}

/** Removes all but `keep` from a folder of global models; an unfinished fetch of a kept one stays too. */
export async function pruneModels(modelsDir: string, keep: ReadonlySet<string>): Promise<void> {
  for (const entry of await entriesOf(modelsDir)) {
    const digest = entry.slice(0, 64);
    if (!keep.has(digest)) await rm(join(modelsDir, entry), { force: true });
  }
}

function fileName(text: string): string {
  const safe = encodeURIComponent(text).replaceAll('*', '%2A');
  return safe === '.' || safe === '..' || safe === '' ? `_${safe}` : safe;
}

async function entriesOf(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function parseKey(pem: string, path: string): SigningKey {
  try {
    return readSigningKey(pem);
  } catch (error) {
    throw new WorkerError(
      'FED_WORKER_KEY',
      `${path} is ${(error as Error).message}; restore it from a copy, or ask the lead to revoke this site and to invite it under another name`,
      { cause: error },
    );
  }
}

async function readJson(path: string): Promise<unknown> {
  return parseJson(await readFile(path, 'utf8').catch(() => ''));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
