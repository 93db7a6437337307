import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createMessageSigner,
  createSigningKey,
  type KeyChange,
  rekeyStatement,
} from '@tributary/shared-protocol';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { openPeers, type Peer } from '../../src/agent/peers.ts';

const RUN = 'run-1';
let path: string;
const met: string[] = [];

beforeEach(() => {
  const dir = mkdtempSync(join(tmpdir(), 'peers-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  path = join(dir, 'peers.json');
  met.length = 0;
});

const pinned = () => JSON.parse(readFileSync(path, 'utf8')) as object;
const open = () => openPeers(path, RUN, ({ name }) => met.push(name));

describe('openPeers', () => {
  test('pins who is met, tells of it once, and knows them again after a restart', async () => {
    const [north, south] = [createSigningKey().publicKey, createSigningKey().publicKey];
    const cohort = [peer('north', north), peer('south', south)];
    const peers = await open();
    for (const known of [() => peers, () => peers, open]) {
      await (await known()).pin(cohort);
      expect(pinned()).toEqual({ north, south });
      expect(met).toEqual(['north', 'south']);
    }
  });

  test('takes another key for one of them only with its signature for each change', async () => {
    const keys = [createSigningKey(), createSigningKey(), createSigningKey(), createSigningKey()] as const;
    const [first, second, third, stranger] = keys;
    const peers = await open();
    await peers.pin([peer('north', first.publicKey)]);
    const changes = [changeOf('north', first, second), changeOf('north', second, third)];
    const refused: readonly Peer[] = [
      peer('north', third.publicKey),
      peer('north', third.publicKey, [changes[1]!]),
      peer('north', second.publicKey, changes),
      peer('north', stranger.publicKey, changes),
      peer('north', stranger.publicKey, [{ ...changes[0]!, key: stranger.publicKey }]),
      peer('north', third.publicKey, [changes[0]!, { ...changes[1]!, session: 'x'.repeat(32) }]),
      peer('north', second.publicKey, [changeOf('south', first, second)]),
      peer('north', second.publicKey, [changeOf('north', first, second, 'run-2')]),
    ];
    for (const one of refused)
      await expect(peers.pin([one])).rejects.toMatchObject({
        code: 'FED_WORKER_PEER',
        message: expect.stringMatching(/site "north".*Ask that site/),
      });
    expect(pinned()).toEqual({ north: first.publicKey });
    await peers.pin([peer('north', third.publicKey, changes)]);
    expect(pinned()).toEqual({ north: third.publicKey });
    // What was its key once is not its key any more.
    await expect(peers.pin([peer('north', first.publicKey)])).rejects.toMatchObject({
      code: 'FED_WORKER_PEER',
    });
  });

  test('does not begin anew over a file that it can not read', async () => {
    writeFileSync(path, '{"north": 5');
    await expect(open()).rejects.toMatchObject({ code: 'FED_WORKER_STATE_UNUSABLE' });
  });
});

type Key = ReturnType<typeof createSigningKey>;

function peer(name: string, publicKey: string, changes?: readonly KeyChange[]): Peer {
  return { name, publicKey, changes };
}

/** What the log keeps of a change of key. */
function changeOf(name: string, before: Key, after: Key, runId = RUN): KeyChange {
  const scope = { runId, session: 's'.repeat(32) };
  const confirmation = after.sign(
    rekeyStatement(scope, { name, former: before.publicKey, next: after.publicKey }),
  );
  const sign = createMessageSigner({ ...scope, key: before, now: () => 7 });
  const message = sign({ type: 'rekey', publicKey: after.publicKey, confirmation });
  if (message.type !== 'rekey') throw new TypeError('not what was given to be signed');
  return {
    former: before.publicKey,
    key: after.publicKey,
    session: scope.session,
    ...message.signed,
    confirmation,
  };
}
