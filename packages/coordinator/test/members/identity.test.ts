import {
  challengeCoordinator,
  createChannel,
  createMessageSigner,
  createSigningKey,
  decodeInvite,
  type Message,
  type MessageOf,
  sayHello,
} from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import { verifyRun } from '../../src/index.ts';
import { adds, records, startRun, type TestRun } from '../federation.ts';

/** A link whose other end has proven itself, before any hello. */
async function dial(run: TestRun) {
  const { fingerprint, publicKey, secret } = decodeInvite(run.coordinator.invite());
  const channel = createChannel(await run.transport.connect(run.coordinator.url));
  return { channel, secret, counterpart: await challengeCoordinator(channel, { fingerprint, publicKey }) };
}

const REPORT = {
  trainExamples: 1,
  testExamples: 0,
  trainExamplesByClass: [],
  unreadable: 0,
  engine: 'script',
};

describe('a site’s key', () => {
  it('is enrolled by the invite, and is what the site is known by afterwards', async () => {
    const run = await startRun();
    const site = await run.join('a');
    expect(records(run)).toContainEqual(
      expect.objectContaining({ type: 'joined', name: 'a', key: site.key.publicKey }),
    );
    expect(JSON.stringify(records(run))).not.toContain('credential');
  });

  it('must be held, not only shown', async () => {
    const run = await startRun();
    const victim = await run.join('a');
    const { channel, counterpart } = await dial(run);
    const thief = { ...createSigningKey(), publicKey: victim.key.publicKey };
    const hello = { name: 'a', software: 'test', now: Date.now };
    await expect(sayHello(channel, counterpart, { ...hello, key: thief })).rejects.toMatchObject({
      code: 'FED_JOIN_SIGNATURE',
    });
  });

  it('signs for one link only: a hello that was overheard is worth nothing on another', async () => {
    const run = await startRun();
    const { key } = await run.join('a');
    const first = await dial(run);
    let overheard: Message | undefined;
    const spy = {
      ...first.channel,
      async call(message: Message, expected: never) {
        overheard = message;
        return await first.channel.call(message, expected);
      },
    } as typeof first.channel;
    await sayHello(spy, first.counterpart, { name: 'a', software: 'test', now: Date.now, key });
    const second = await dial(run);
    await expect(second.channel.call(overheard as Message, 'welcome')).rejects.toMatchObject({
      code: 'FED_JOIN_SIGNATURE',
    });
  });

  it('belongs to one site', async () => {
    const run = await startRun();
    const { credential } = await run.join('a');
    const invite = run.coordinator.invite();
    await expect(run.join('b', { invite, credential })).rejects.toMatchObject({ code: 'FED_JOIN_KEY_TAKEN' });
  });

  it('is asked for: a hello before the challenge, and one without a key, are refused', async () => {
    const run = await startRun();
    const hello: MessageOf<'hello'> = {
      type: 'hello',
      protocol: { major: 2, minor: 1 },
      software: 'test',
      role: 'worker',
      name: 'a',
      clockMs: Date.now(),
    };
    const raw = createChannel(await run.transport.connect(run.coordinator.url));
    await expect(raw.call(hello, 'welcome')).rejects.toMatchObject({
      code: 'FED_PROTOCOL_MESSAGE_UNEXPECTED',
    });
    const { channel } = await dial(run);
    await expect(channel.call(hello, 'welcome')).rejects.toMatchObject({ code: 'FED_JOIN_SIGNATURE' });
  });
});

describe('a signed message', () => {
  async function joined(options: { now?: () => number } = {}) {
    const run = await startRun({}, options);
    const { channel, counterpart, secret } = await dial(run);
    const key = createSigningKey();
    const now = options.now ?? Date.now;
    await sayHello(channel, counterpart, { name: 'a', software: 'test', now, key, secret });
    const scope = { runId: counterpart.runId, session: counterpart.session };
    const signer = (more: object = {}) => createMessageSigner({ key, now, ...scope, ...more });
    // What the tests sign themselves goes out as it is.
    channel.signWith((message) => message as Message);
    const ready = { type: 'ready', site: REPORT } as const;
    return { run, channel, signer, ready };
  }

  it('counts once: sent again, it is refused, and the link is closed', async () => {
    const { channel, signer, ready } = await joined();
    const message = signer()(ready);
    await channel.call(message, 'ok');
    await expect(channel.call(message, 'ok')).rejects.toMatchObject({ code: 'FED_SIGNATURE_REPLAYED' });
    expect(await channel.closed).toContain('not signed as it should be');
  });

  it.each([
    ['of another session', { session: 'a session that never was' }],
    ['of another run', { runId: 'another-run' }],
    ['with another key', { key: createSigningKey() }],
  ])('%s is refused', async (_what, more) => {
    const { channel, signer, ready } = await joined();
    await expect(channel.call(signer(more)(ready), 'ok')).rejects.toMatchObject({
      code: 'FED_SIGNATURE_INVALID',
    });
  });

  it('whose content was changed on the way is refused', async () => {
    const { channel, signer, ready } = await joined();
    const message = signer()(ready) as MessageOf<'ready'>;
    const changed = { ...message, site: { ...message.site, trainExamples: 2 } };
    await expect(channel.call(changed, 'ok')).rejects.toMatchObject({ code: 'FED_SIGNATURE_INVALID' });
  });

  it('of six minutes ago is refused, one of four minutes ago is not', async () => {
    let clock = Date.now();
    const { channel, signer, ready } = await joined({ now: () => clock });
    const sign = signer();
    const [first, second] = [sign(ready), sign(ready)];
    clock += 4 * 60_000;
    await channel.call(first, 'ok');
    clock += 2 * 60_000;
    await expect(channel.call(second, 'ok')).rejects.toMatchObject({
      code: 'FED_SIGNATURE_CLOCK',
      message: expect.stringContaining('360 s ago'),
    });
  });

  it('is kept with the update that it offers, so that the log proves where each update came from', async () => {
    const run = await startRun({ rounds: 1, evaluation: { sites: false } });
    for (const name of ['a', 'b']) await run.join(name, { train: adds(1) });
    await run.coordinator.run();
    await run.coordinator.close();
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true, signedUpdates: 2 });
  });
});
