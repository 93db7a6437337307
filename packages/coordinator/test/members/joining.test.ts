import { RemoteError } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import { startRun } from '../federation.ts';

async function refusal(joining: Promise<unknown>): Promise<RemoteError> {
  const error = await joining.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof RemoteError) return error;
  throw new Error(`expected a refusal, not ${String(error)}`);
}

describe('joining', () => {
  it('takes an invite once, and says so the second time', async () => {
    const run = await startRun();
    const invite = run.coordinator.invite();
    await run.join('a', { invite });
    expect(await refusal(run.join('b', { invite }))).toMatchObject({
      code: 'FED_INVITE_USED',
      message: expect.stringContaining('ask the lead'),
    });
  });

  it('takes an invite as often as it was made for', async () => {
    const run = await startRun();
    const invite = run.coordinator.invite({ uses: 2 });
    await run.join('a', { invite });
    await run.join('b', { invite });
    expect(await refusal(run.join('c', { invite }))).toMatchObject({ code: 'FED_INVITE_USED' });
  });

  it('refuses a forged, an expired and a missing invite, each by its own code', async () => {
    let clock = Date.now();
    const run = await startRun({}, { now: () => clock });
    const url = run.coordinator.url;
    expect(await refusal(run.join('a', { url, secret: 'guessed', credential: 'x' }))).toMatchObject({
      code: 'FED_INVITE_UNKNOWN',
    });
    expect(await refusal(run.join('a', { url, credential: 'x' }))).toMatchObject({
      code: 'FED_JOIN_CREDENTIAL',
    });
    const invite = run.coordinator.invite({ expiresMs: 1000 });
    clock += 1001;
    expect(await refusal(run.join('a', { invite }))).toMatchObject({
      code: 'FED_INVITE_EXPIRED',
      message: expect.stringContaining('expired at 20'),
    });
  });

  it('refuses a clock that is off by an hour and names both clocks', async () => {
    const now = Date.UTC(2026, 0, 2, 3, 4, 5);
    const run = await startRun({}, { now: () => now });
    const error = await refusal(run.join('a', { clockMs: now + 3_600_000 }));
    expect(error.code).toBe('FED_JOIN_CLOCK');
    expect(error.message).toContain('60 minutes');
    expect(error.message).toContain('the site says 2026-01-02T04:04:05.000Z');
    expect(error.message).toContain('the coordinator 2026-01-02T03:04:05.000Z');
  });

  it('refuses another major version of the protocol', async () => {
    const run = await startRun();
    expect(await refusal(run.join('a', { protocol: { major: 1, minor: 0 } }))).toMatchObject({
      code: 'FED_PROTOCOL_VERSION',
    });
  });

  it('refuses a second site of the same name, and keeps its invite good', async () => {
    const run = await startRun();
    await run.join('a');
    const invite = run.coordinator.invite();
    expect(await refusal(run.join('a', { invite }))).toMatchObject({ code: 'FED_JOIN_NAME_TAKEN' });
    expect(await refusal(run.join('a', { credential: 'stolen' }))).toMatchObject({
      code: 'FED_JOIN_NAME_TAKEN',
    });
    expect((await run.join('b', { invite })).welcome.clientId).toBeTruthy();
  });

  it('lets a site with its key replace its old link, also when it repeats its first hello', async () => {
    const run = await startRun();
    const invite = run.coordinator.invite();
    const first = await run.join('a', { invite, credential: 'of its own making' });
    const again = await run.join('a', { invite, credential: 'of its own making' });
    expect(again.welcome.clientId).toBe(first.welcome.clientId);
    expect(await first.channel.closed).toContain('new link');
    expect(run.coordinator.status().clients).toMatchObject([{ name: 'a', connected: true }]);
  });

  it.each(['', ' a', 'a/b', 'x'.repeat(65), 'line\nbreak'])('refuses %j as a name', async (name) => {
    const run = await startRun();
    expect(await refusal(run.join(name))).toMatchObject({ code: 'FED_JOIN_NAME' });
  });

  it('knows its members and its spent invites after a restart', async () => {
    const run = await startRun();
    const invite = run.coordinator.invite();
    const { credential, welcome } = await run.join('a', { invite });
    await run.coordinator.close();
    const later = await startRun({}, { runDir: run.runDir });
    expect((await later.join('a', { credential })).welcome.clientId).toBe(welcome.clientId);
    const url = later.coordinator.url;
    const { secret } = JSON.parse(Buffer.from(invite.slice(6), 'base64url').subarray(6).toString()) as {
      secret: string;
    };
    expect(await refusal(later.join('b', { url, secret, credential: 'new' }))).toMatchObject({
      code: 'FED_INVITE_USED',
    });
  });

  it('hears nobody before an accepted hello, and no admin without the credential', async () => {
    const run = await startRun();
    const site = await run.join('a');
    const hello = {
      type: 'hello',
      protocol: { major: 2, minor: 1 },
      software: 'test',
      role: 'admin',
      name: 'x',
      clockMs: Date.now(),
    } as const;
    await expect(site.channel.call({ type: 'get-status' }, 'status')).rejects.toMatchObject({
      code: 'FED_PROTOCOL_MESSAGE_UNEXPECTED',
    });
    const { createChannel } = await import('@tributary/shared-protocol');
    const channel = createChannel(await run.transport.connect(run.coordinator.url));
    await expect(channel.call({ type: 'get-status' }, 'status')).rejects.toMatchObject({
      code: 'FED_PROTOCOL_MESSAGE_UNEXPECTED',
    });
    await expect(channel.call({ ...hello, credential: 'no' }, 'welcome')).rejects.toMatchObject({
      code: 'FED_JOIN_FORBIDDEN',
    });
    await channel.call({ ...hello, credential: run.coordinator.adminCredential }, 'welcome');
    expect((await channel.call({ type: 'get-status' }, 'status')).status).toMatchObject({
      clients: [{ name: 'a' }],
    });
    expect((await channel.call({ type: 'invite', uses: 1, expiresMs: 1000 }, 'invited')).invite).toMatch(
      /^trib1\./,
    );
  });
});
