/**
 * The how-to pages, carried out: a lead and two sites follow docs/how-to from `init` to `export`, each in a folder of
 * its own, with the pages' own command lines; what stays up is a real process. Smaller images and fewer rounds are all that differs.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { COORDINATOR_ERROR_CODES, configSchema } from '@tributary/coordinator';
import { PROTOCOL_ERROR_CODES } from '@tributary/shared-protocol';
import { WORKER_ERROR_CODES } from '@tributary/worker';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commandsIn, readPage, wordsOf } from './documents.ts';
import { type Captured, type CliProcess, ROOT, run, startWith } from './support.ts';
import { writeTwoSites } from './two-sites.ts';

const LEAD = readPage('docs/how-to/lead.md');
const SITE = readPage('docs/how-to/site.md');

const dir = mkdtempSync(join(tmpdir(), 'tributary-how-to-'));
const lead = join(dir, 'lead');
const runDir = join(lead, 'runs', 'pair');
const processes: CliProcess[] = [];
const carriedOut = new Set<string>();

/** Carries out a command line of the pages in `folder`, whose worker state is kept there too. */
function follow(folder: string, line: string, { invite = '', more = [] as string[] } = {}): CliProcess {
  carriedOut.add(line);
  const argv = wordsOf(line).map((word) => (word.startsWith('trib1') ? invite : word));
  const process = startWith(
    { TRIBUTARY_ROOT: ROOT, TRIBUTARY_HOME: join(folder, 'state') },
    folder,
    ...argv,
    ...more,
  );
  processes.push(process);
  return process;
}

async function done(process: CliProcess): Promise<Captured> {
  const end = await process.ended;
  expect(end.code, `${end.out.slice(-1000)}\n${end.err}`).toBe(0);
  return end;
}

/** What stands in the pages for something of the run, and what it is in this one. */
const PLACES = new Map([['RUN', runDir]]);

/** Carries out a line that only asks or writes, without a process of its own. */
async function ask(folder: string, line: string, ...more: string[]): Promise<Captured> {
  carriedOut.add(line);
  const end = await run(folder, ...wordsOf(line).map((word) => PLACES.get(word) ?? word), ...more);
  expect(end).toMatchObject({ code: 0, err: '' });
  return end;
}

const lastOf = ({ out }: Captured) => JSON.parse(out.trim().split('\n').at(-1)!) as Record<string, unknown>;

/** Replaces what must be there once. */
function edited(text: string, changes: readonly (readonly [from: string, to: string])[]): string {
  return changes.reduce((all, [from, to]) => {
    expect(all.split(from).length, `${from} is in it once`).toBe(2);
    return all.replace(from, to);
  }, text);
}

beforeAll(async () => {
  // As each would have it: the lead's test images, and a folder `images` at each site.
  await writeTwoSites(dir, 80, (path) =>
    path.replace(/^test\//, 'lead/test-images/').replace(/^(east|west)\//, '$1/images/'),
  );
});
afterAll(async () => {
  for (const process of processes) process.kill('SIGKILL');
  await Promise.all(processes.map((process) => process.ended));
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
});

describe('the how-to pages', () => {
  const [
    init = '',
    coordinator = '',
    revoke = '',
    rotateCertificate = '',
    exportModel = '',
    exportWeights = '',
    evaluate = '',
    verify = '',
  ] = commandsIn(LEAD, 'blocks');
  const [doctor = '', joinWithInvite = '', joinAgain = '', rotateKey = '', verifyCopy = ''] = commandsIn(
    SITE,
    'blocks',
  );

  test('a lead and two sites follow them from init to export', { timeout: 240_000 }, async () => {
    // Lead, 2 and 3: init, and the keys that the page says to set. The images are of 28 pixels here, and grey.
    await ask(lead, init);
    const config = join(lead, 'tributary.config.ts');
    const port = await freePort();
    writeFileSync(
      config,
      edited(readFileSync(config, 'utf8'), [
        ["name: 'my-federation'", "name: 'pair'"],
        ["classes: ['cats', 'dogs']", "classes: ['0', '1']"],
        ["model: 'image-cnn',", "model: 'image-cnn-small',"],
        ['input: { height: 224, width: 224, channels: 3 }', 'input: { height: 28, width: 28, channels: 1 }'],
        ['rounds: 10,', 'rounds: 3,'],
        ['server: { port: 7700 }', `server: { host: '127.0.0.1', port: ${port} }`],
        ["// evaluation: { testDir: './test-images' },", "evaluation: { testDir: './test-images' },"],
      ]),
    );
    const [printConfig = '', , invite = '', status = '', members = ''] = commandsIn(LEAD, 'sentences');
    const printed = JSON.parse((await ask(lead, printConfig)).out) as Record<string, unknown>;
    expect(printed).toMatchObject({
      name: 'pair',
      classes: ['0', '1'],
      rounds: 3,
      digest: expect.any(String),
    });

    // Site, 1.
    const report = lastOf(await ask(join(dir, 'east'), doctor, '--json')) as {
      engines: { chosen: boolean }[];
    };
    expect(report.engines.filter(({ chosen }) => chosen)).toHaveLength(1);

    // Lead, 5 and 6: start, an invite for each site, status from another terminal.
    // Site, the last word: a policy that allows what this run is.
    const [policyInit = '', policyCheck = ''] = commandsIn(SITE, 'sentences').filter((line) =>
      line.startsWith('policy '),
    );
    const images = join(dir, 'east', 'images');
    await ask(images, policyInit);
    await ask(images, policyCheck, '--federation', config);
    const running = follow(lead, coordinator);
    PLACES.set('KEY', String((await running.event('listening'))['logPublicKey']));
    const first = String((await running.event('invite'))['invite']);
    expect(lastOf(await ask(lead, status, '--json'))).toMatchObject({ running: true, state: 'waiting' });
    // Site, 3. Both are this machine here, so each needs a name (what could go wrong: FED_JOIN_NAME_TAKEN).
    const named = (name: string) => ['--name', name, '--threads', '1'];
    const east = follow(join(dir, 'east'), joinWithInvite, { invite: first, more: named('east') });
    await running.event('ready');
    const second = String(lastOf(await ask(lead, invite, '--json'))['invite']);
    expect(second).not.toBe(first);
    // Lead, 7: a site that must not go on hears why, and ends.
    const third = String(lastOf(await ask(lead, invite, '--json'))['invite']);
    const stranger = follow(join(dir, 'west'), joinWithInvite, { invite: third, more: named('stranger') });
    await running.event('joined');
    PLACES.set('NAME', 'stranger');
    expect(lastOf(await ask(lead, revoke, '--json'))).toMatchObject({ type: 'revoked', running: true });
    const sent = await stranger.ended;
    expect(sent.code).toBe(6);
    expect(lastOf(sent)).toMatchObject({
      code: 'FED_JOIN_REVOKED',
      message: expect.stringContaining('its labels were guessed'),
    });
    expect(lastOf(await ask(lead, members, '--json'))['members']).toMatchObject([
      { name: 'east', state: expect.not.stringContaining('revoked') },
      {
        name: 'stranger',
        state: 'revoked',
        fingerprint: expect.stringMatching(/^([0-9a-f]{4} ){3}[0-9a-f]{4}$/),
      },
    ]);
    const west = follow(join(dir, 'west'), joinWithInvite, { invite: second, more: named('west') });
    await running.event('committed');

    // Site, 4: Ctrl-C leaves, and the line without an invite comes back under the same name.
    east.kill('SIGINT');
    expect((await east.ended).code).toBe(130);
    // With another key, and with another certificate of the coordinator, which it learns of when it dials.
    const rotated = lastOf(await done(follow(join(dir, 'east'), rotateKey)));
    expect(rotated).toMatchObject({ what: 'key', name: 'east' });
    const certificate = lastOf(await ask(lead, rotateCertificate, '--json'));
    expect(certificate).toMatchObject({ what: 'certificate', running: true });
    const again = follow(join(dir, 'east'), joinAgain, { more: ['--threads', '1'] });
    const rejoined = await again.event('joined');
    expect(rejoined).toMatchObject({ rejoined: true });

    // Lead, 8: Ctrl-C pauses; the same command goes on.
    await running.event('committed');
    running.kill('SIGINT');
    expect((await running.ended).code).toBe(130);
    const resumed = follow(lead, coordinator);
    expect(lastOf(await done(resumed))).toMatchObject({ type: 'summary', reason: 'rounds', rounds: 3 });
    await Promise.all([done(again), done(west)]);
    for (const name of ['tls.pem.json', 'admin.key', 'log.key']) {
      expect(LEAD).toContain(`\`${name}\``);
      expect(statSync(join(runDir, name)).mode & 0o077).toBe(0);
    }

    // Lead, 9: the model, in both forms, and its numbers on the images that no site holds.
    for (const line of [exportModel, exportWeights]) await ask(lead, line);
    expect(readdirSync(join(lead, 'model')).sort()).toEqual([
      'PRIVACY.md',
      'model.json',
      'privacy.json',
      'tributary.json',
      'weights.bin',
    ]);
    expect(existsSync(join(lead, 'weights', 'model.safetensors'))).toBe(true);
    const evaluated = lastOf(await done(follow(lead, evaluate)));
    // 15 % of 2 x 80 images.
    expect(evaluated).toMatchObject({ examples: 24, metrics: { accuracy: expect.any(Number) } });

    // Lead, 10: whoever has the run directory and the key can check it.
    expect(lastOf(await ask(lead, verify, '--json'))).toMatchObject({ ok: true, pinned: true, rounds: 3 });
    // Site, 5: so can each site check what it was told, and the log against it.
    const { runId } = lastOf(await ask(lead, status, '--json'));
    for (const site of ['east', 'west']) {
      const folder = join(dir, site, 'state', 'sites', String(runId), site);
      PLACES.set('STATE-FOLDER', folder);
      const copy = lastOf(await ask(join(dir, site), verifyCopy, '--json'));
      expect(copy).toMatchObject({ ok: true, site, rounds: 3, signedUpdates: 3 });
      const compared = lastOf(await ask(lead, verify, '--json', '--copy', folder));
      expect(compared).toMatchObject({ ok: true });
    }
  });

  test('no command of theirs was left out', () => {
    const named = [LEAD, SITE].flatMap((page) => commandsIn(page, 'blocks'));
    expect(named).toHaveLength(13);
    expect(named.filter((line) => !carriedOut.has(line))).toEqual([]);
    // Those in sentences are the same lines again, or were carried out as well.
    const inSentences = [LEAD, SITE].flatMap((page) => commandsIn(page, 'sentences'));
    expect(inSentences.length).toBeGreaterThanOrEqual(4);
    expect(inSentences.filter((line) => !carriedOut.has(line))).toEqual([]);
  });

  test('every configuration key, error code and folder that they name is there', () => {
    const spans = [LEAD, SITE].flatMap((page) => [...page.matchAll(/`([^`\n]+)`/g)].map(([, span]) => span!));
    const keys = spans.filter((span) => /^[a-z]+\.[a-z]+[A-Z][A-Za-z]+$|^cohort\.\w+$/.test(span));
    expect(keys.length).toBeGreaterThanOrEqual(4);
    for (const key of keys) {
      const [section = '', name = ''] = key.split('.');
      const known = configSchema.safeParse({
        name: 'x',
        model: 'x',
        classes: ['a', 'b'],
        [section]: { [name]: {} },
      });
      const unknown = known.error?.issues.filter((issue) => issue.code === 'unrecognized_keys');
      expect(unknown, key).toEqual([]);
    }
    const codes = spans.filter((span) => span.startsWith('FED_'));
    expect(codes.length).toBeGreaterThanOrEqual(7);
    const all: readonly string[] = [
      ...COORDINATOR_ERROR_CODES,
      ...PROTOCOL_ERROR_CODES,
      ...WORKER_ERROR_CODES,
    ];
    expect(codes.filter((code) => !all.includes(code))).toEqual([]);
  });
});

/** A port that is free now: the coordinator that goes on must listen where it did before. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
