/**
 * Changing a site's key. The new one is on the disk before anybody hears of it, the coordinator records the change
 * before it answers, and only then does the new key take the old one's place: broken off anywhere, the same call goes on.
 */
import {
  type Channel,
  type Counterpart,
  challengeCoordinator,
  createChannel,
  errorCode,
  rekeyStatement,
  type SigningKey,
  sayHello,
  type Transport,
} from '@tributary/shared-protocol';
import { WorkerError } from '../errors.ts';
import { type Dialler, dialCoordinator } from './dial.ts';
import { type Credential, findStateDir, openStateDir, type StateDir, stateHome } from './state-dir.ts';

export interface RotateKeyOptions {
  /** @default the only folder under the state home, or the one of `name` */
  readonly stateDir?: string;
  /** This site's name in the run, where several were joined from here. */
  readonly name?: string;
  readonly transport: Transport;
  /** @default Date.now */
  readonly now?: () => number;
  readonly signal?: AbortSignal;
}

export interface RotatedKey {
  readonly name: string;
  readonly runId: string;
  /** Base64url. */
  readonly publicKey: string;
  readonly former: string;
  /** Where the private key is. */
  readonly path: string;
}

/** What a coordinator says to a key that it does not know: it may have the new one already. */
const UNKNOWN_KEY = ['FED_JOIN_CREDENTIAL', 'FED_JOIN_NAME_TAKEN'];

/**
 * Gives the site of a state folder another key, which the running coordinator records. The agent must not be running.
 *
 * Rejects with FED_WORKER_STATE_LOCKED, FED_WORKER_NO_CREDENTIAL, FED_WORKER_KEY, what connecting rejects with, and the
 * coordinator's refusal (a RemoteError).
 */
export async function rotateKey(options: RotateKeyOptions): Promise<RotatedKey> {
  const path = options.stateDir ?? (await findStateDir(stateHome(), options.name));
  const state = await openStateDir(path);
  try {
    const credential = await state.readCredential();
    if (!credential?.confirmed)
      throw new WorkerError(
        'FED_WORKER_NO_CREDENTIAL',
        `no run was joined from ${path}; its first join makes a key`,
      );
    return await change(state, credential, options);
  } finally {
    await state.release();
  }
}

async function change(
  state: StateDir,
  credential: Credential,
  options: RotateKeyOptions,
): Promise<RotatedKey> {
  const { key: present, path } = await state.openKey({ create: false, changing: true });
  const next = await state.openNextKey();
  const done: RotatedKey = {
    name: credential.name,
    runId: credential.runId,
    publicKey: next.publicKey,
    former: present.publicKey,
    path,
  };
  try {
    await greet(present, state, credential, options, async (channel, { runId, session }) => {
      const parts = { name: credential.name, former: present.publicKey, next: next.publicKey };
      const confirmation = next.sign(rekeyStatement({ runId, session }, parts));
      await channel.call({ type: 'rekey', publicKey: next.publicKey, confirmation }, 'ok');
    });
  } catch (error) {
    if (!UNKNOWN_KEY.includes(errorCode(error) ?? '')) throw error;
    // A change that was broken off after the coordinator had recorded it: the new key is the one that it knows.
    await greet(next, state, credential, options, async () => undefined).catch(() => {
      throw error;
    });
  }
  await state.adoptNextKey(next);
  return done;
}

/** Says hello with `key`, does `work`, and closes the link. */
async function greet(
  key: SigningKey,
  state: StateDir,
  credential: Credential,
  { transport, now = Date.now, signal = new AbortController().signal }: RotateKeyOptions,
  work: (channel: Channel, counterpart: Counterpart) => Promise<void>,
): Promise<void> {
  const dialler: Dialler = {
    credential,
    state,
    signal,
    options: { transport },
    emit: () => undefined,
    // Of the site's policy `join` knows, and it has let this coordinator in before.
    guard: { checkCoordinator: () => undefined },
  };
  const channel = createChannel(await dialCoordinator(dialler));
  const { fingerprint, name, publicKey } = dialler.credential;
  const waiting = { signal };
  try {
    const counterpart = await challengeCoordinator(channel, { publicKey, fingerprint, ...waiting });
    await sayHello(channel, counterpart, { key, name, software: 'tributary', now, ...waiting });
    await work(channel, counterpart);
  } finally {
    await channel.close('the key was changed');
  }
}
