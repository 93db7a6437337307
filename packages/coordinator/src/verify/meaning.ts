/**
 * Whether a log that holds together also makes sense: rounds in order, each from the model of the one before, every
 * update accepted before it is committed, every site let in by an invite that was good. A coordinator that signs
 * nonsense is found here, not by the chain.
 */
import { isProven, isProvenKeyChange } from '@tributary/shared-protocol';
import type { LogRecord } from '../run/log.ts';

/** A statement of the log that contradicts what it said before. */
export interface Contradiction {
  /** From 1. */
  readonly line: number;
  /** A predicate of the line. */
  readonly what: string;
  readonly meaning: string;
}

type RecordOf<T extends LogRecord['type']> = Extract<LogRecord, { type: T }>;

interface Story {
  readonly publicKey: string;
  runId: string;
  config: string;
  started: boolean;
  readonly invites: Map<string, { uses: number; used: number; withdrawnFor?: string }>;
  readonly members: Map<string, RecordOf<'joined'>>;
  /** Every key that a site has had, and whose. */
  readonly keys: Map<string, string>;
  /** Names of those that were expelled. */
  readonly revoked: Set<string>;
  open:
    | {
        readonly start: RecordOf<'round-started'>;
        /** One of its sites was expelled since: it may be started once more. */
        lost: boolean;
        readonly accepted: Map<string, RecordOf<'update-accepted'>>;
        /** The sum that noise was drawn for last; a round is made of no other. */
        noised?: RecordOf<'noised'>;
        /** Those whose sum was to be unmasked. */
        survivors?: readonly string[];
      }
    | undefined;
  committed: number;
  /** Digest of the global model's frame after the last commit. */
  model: string;
}

/** All contradictions, in the order of the lines; `publicKey` is the one that the chain was checked with. */
export function checkMeaning(records: readonly LogRecord[], publicKey: string): Contradiction[] {
  const story: Story = {
    publicKey,
    runId: '',
    config: records[0]?.config ?? '',
    started: false,
    invites: new Map(),
    members: new Map(),
    keys: new Map(),
    revoked: new Set(),
    open: undefined,
    committed: 0,
    model: '',
  };
  return records.flatMap((record, index) => {
    const line = index + 1;
    try {
      return [...follow(story, record)].map(([what, meaning]) => ({ line, what, meaning }));
    } catch (error) {
      // Signed, and yet not of the form that its type has.
      const what = `can't be read as "${record.type}": ${error instanceof Error ? error.message : error}`;
      return [{ line, what, meaning: 'a program that is not this coordinator wrote it' }];
    }
  });
}

type Said = readonly [what: string, meaning: string];

function* follow(story: Story, record: LogRecord): Generator<Said> {
  if (record.config !== story.config)
    yield [
      'was written under another configuration than the line before',
      'rounds of two federations are mixed in one log',
    ];
  if (!story.started && record.type !== 'run-started')
    yield [`is "${record.type}" before the run was started`, 'the beginning of the log is not there'];
  switch (record.type) {
    case 'run-started':
      yield* start(story, record);
      break;
    case 'invited':
      story.invites.set(record.invite, { uses: record.uses, used: 0 });
      break;
    case 'joined':
      yield* join(story, record);
      break;
    case 'revoked':
      yield* revoke(story, record);
      break;
    case 'rekeyed':
      yield* rekey(story, record);
      break;
    case 'round-started':
      yield* openRound(story, record);
      break;
    case 'update-accepted':
      yield* accept(story, record);
      break;
    case 'survivors':
      yield* survive(story, record);
      break;
    case 'noised':
      yield* noise(story, record);
      break;
    case 'committed':
      yield* commit(story, record);
      break;
    default:
  }
}

function* start(story: Story, record: RecordOf<'run-started'>): Generator<Said> {
  if (story.started) yield ['starts the run a second time', 'two runs are in one log'];
  if (record.publicKey !== story.publicKey)
    yield [
      `names the key ${record.publicKey}, not ${story.publicKey}`,
      'the log is signed with another key than it says',
    ];
  story.started = true;
  story.runId = record.runId;
  story.model = record.initial;
}

function* join(story: Story, record: RecordOf<'joined'>): Generator<Said> {
  const { name, clientId } = record;
  if (story.members.has(name)) yield [`lets in "${name}" again`, 'two sites have one name'];
  if ([...story.members.values()].some((member) => member.clientId === clientId))
    yield [`gives "${name}" the number of another site`, 'two sites have one client id'];
  const holder = record.key === undefined ? undefined : story.keys.get(record.key);
  if (holder !== undefined)
    yield [
      `lets in "${name}" with the key of "${holder}"`,
      story.revoked.has(holder)
        ? 'a site that was expelled is back under another name'
        : 'two sites have one key',
    ];
  if (record.key !== undefined) story.keys.set(record.key, name);
  const invite = story.invites.get(record.invite);
  if (invite === undefined) yield [`lets in "${name}" by an invite that was never given out`, UNINVITED];
  else if (invite.withdrawnFor !== undefined)
    yield [`lets in "${name}" by the invite of "${invite.withdrawnFor}", which was expelled`, UNINVITED];
  else if (++invite.used > invite.uses) yield [`lets in "${name}" by an invite that was used up`, UNINVITED];
  story.members.set(name, record);
}
const EXPELLED = 'a site takes part that the lead has expelled';
const UNINVITED = 'a site takes part that the lead did not invite';

function* rekey(story: Story, record: RecordOf<'rekeyed'>): Generator<Said> {
  const { name, key, former, proof } = record;
  const member = story.members.get(name);
  const what = `gives "${name}" another key`;
  if (member?.key !== former || story.revoked.has(name)) {
    yield [`${what} in place of one that it does not have`, 'the log does not tell who changed it'];
    return;
  }
  if (story.keys.has(key))
    yield [`${what}, which "${story.keys.get(key)}" has or had`, 'two sites have one key'];
  if (!isProvenKeyChange({ former, key, ...proof }, { runId: story.runId, name }))
    yield [`${what} without the signatures of both`, 'nothing proves that the site wanted it'];
  story.keys.set(key, name);
  story.members.set(name, { ...member, key });
}

function* revoke(story: Story, { name, clientId }: RecordOf<'revoked'>): Generator<Said> {
  const member = story.members.get(name);
  if (member?.clientId !== clientId) {
    yield [`expels "${name}", which never joined`, 'the log does not tell of whom it speaks'];
    return;
  }
  if (story.revoked.has(name)) yield [`expels "${name}" a second time`, 'it was expelled before'];
  story.revoked.add(name);
  const invite = story.invites.get(member.invite);
  if (invite) invite.withdrawnFor = name;
  if (!story.open?.start.cohort.includes(name)) return;
  story.open.lost = true;
  story.open.accepted.delete(name);
}

function* openRound(story: Story, record: RecordOf<'round-started'>): Generator<Said> {
  const expected = story.committed + 1;
  if (record.round !== expected)
    yield [
      `starts round ${record.round} where round ${expected} is due`,
      'a round is missing or was repeated',
    ];
  else if (story.open && !story.open.lost)
    yield [`starts round ${record.round} a second time`, 'its first start did not count'];
  if (record.base !== story.model)
    yield [
      `starts round ${record.round} from model ${short(record.base)}, and the one before it ended with ${short(story.model)}`,
      'the global model was changed between two rounds',
    ];
  for (const name of record.cohort) {
    if (!story.members.has(name))
      yield [`asks "${name}", which never joined`, 'the cohort has a site that the log does not know'];
    if (story.revoked.has(name)) yield [`asks "${name}", which was expelled`, EXPELLED];
  }
  // Started once more, it keeps the updates of the sites that it still has.
  const kept = story.open?.start.round === record.round && story.open.start.base === record.base;
  const accepted = kept ? [...(story.open?.accepted ?? [])] : [];
  story.open = {
    start: record,
    lost: false,
    accepted: new Map(accepted.filter(([name]) => record.cohort.includes(name))),
    ...(kept && story.open?.survivors ? { survivors: story.open.survivors } : {}),
  };
}

function* accept(story: Story, record: RecordOf<'update-accepted'>): Generator<Said> {
  const { round, name } = record;
  const what = `accepts an update of "${name}" for round ${round}`;
  if (story.open?.start.round !== round) {
    yield [`${what}, which is not open`, 'an update counts in a round that it was not made for'];
    return;
  }
  if (!story.open.start.cohort.includes(name))
    yield [`${what}, whose cohort it is not in`, 'a site took part that was not asked'];
  if (story.revoked.has(name)) yield [`${what} after it was expelled`, EXPELLED];
  const key = story.members.get(name)?.key;
  if (key !== undefined && !isSignedOffer(story.runId, record, key))
    yield [
      `${what} without that site’s signature over it`,
      'nothing proves that the update came from the site; the coordinator may have made it up',
    ];
  story.open.accepted.set(name, record);
}

function* survive(story: Story, { round, attempt, names }: RecordOf<'survivors'>): Generator<Said> {
  const { open } = story;
  const what = `has the sum of ${names.join(', ')} unmasked in round ${round}`;
  if (open?.start.round !== round) {
    yield [`${what}, which is not open`, 'a sum is unmasked that no round needs'];
    return;
  }
  for (const name of names)
    if (open.accepted.get(name)?.attempt !== attempt)
      yield [`${what}, without a masked update of "${name}" for it`, 'a sum is not of whom it says'];
  if (open.survivors && open.survivors.join('\n') !== names.join('\n'))
    yield [
      `${what}, and of ${open.survivors.join(', ')} before`,
      'the difference of two sums of the same updates tells of the sites in one of them only',
    ];
  open.survivors = names;
}

/** Whether the site with `key` signed the offer that the record is of. */
export function isSignedOffer(runId: string, record: RecordOf<'update-accepted'>, key: string): boolean {
  const { round, numExamples, metrics, digest, bytes, attempt, offer } = record;
  if (offer === undefined) return false;
  const { base, chunkBytes, session, ...signed } = offer;
  const update = { digest, bytes, chunkBytes };
  const own = {
    ...(numExamples === undefined ? {} : { numExamples }),
    ...(attempt === undefined ? {} : { attempt }),
  };
  const message = { type: 'offer', round, base, ...own, metrics, update, signed } as const;
  return isProven(message, { runId, session }, key);
}

function* noise(story: Story, record: RecordOf<'noised'>): Generator<Said> {
  const { round, sites, expectedCohort } = record;
  const what = `draws noise for round ${round}`;
  if (story.open?.start.round !== round) {
    yield [`${what}, which is not open`, 'nothing says what it was added to'];
    return;
  }
  const { accepted, start } = story.open;
  for (const name of sites.filter((site) => !accepted.has(site)))
    yield [`${what} with an update of "${name}" that was not accepted before`, 'its privacy is miscounted'];
  if (expectedCohort !== start.cohort.length)
    yield [
      `${what} over ${expectedCohort} sites, and ${start.cohort.length} were asked`,
      'the noise in the mean is not what it should be',
    ];
  story.open.noised = record;
}

function* commit(story: Story, record: RecordOf<'committed'>): Generator<Said> {
  const { round } = record;
  if (round !== story.committed + 1)
    yield [
      `commits round ${round} after round ${story.committed}`,
      'a round is missing, was repeated or is out of order',
    ];
  if (story.open?.start.round !== round)
    yield [`commits round ${round}, which was not open`, 'nothing says from what this model came'];
  const names = new Set<string>();
  const { survivors } = story.open ?? {};
  if (survivors && survivors.join('\n') !== record.updates.map(({ name }) => name).join('\n'))
    yield [
      `commits a sum of other sites than were to unmask it (${survivors.join(', ')})`,
      'the model is not what its sites have signed',
    ];
  for (const { name, digest, numExamples } of record.updates) {
    if (names.has(name)) yield [`counts the update of "${name}" twice`, 'one site has the weight of two'];
    names.add(name);
    const accepted = story.open?.accepted.get(name);
    if (accepted?.digest !== digest)
      yield [
        `commits an update of "${name}" (${short(digest)}) that was not accepted before`,
        'the model holds something whose origin the log does not tell',
      ];
    else if (accepted.numExamples !== numExamples)
      yield [
        `counts ${numExamples} examples of "${name}", which was accepted with ${accepted.numExamples}`,
        'a site has more or less weight than it said',
      ];
  }
  const noised = story.open?.noised?.sites;
  if (noised !== undefined && noised.join() !== [...names].sort().join())
    yield [
      `commits updates of ${[...names].sort().join(', ')}, and the noise was drawn for ${noised.join(', ')}`,
      'a site’s update is in the model without noise, or its privacy is miscounted',
    ];
  const masked = record.updates.some((update) => update.numExamples === undefined);
  const sum = record.updates.reduce((n, update) => n + (update.numExamples ?? 0), 0);
  if (!masked && sum !== record.numExamples)
    yield [`says ${record.numExamples} examples, and its updates have ${sum}`, 'the weights do not add up'];
  story.committed = Math.max(story.committed, round);
  story.model = record.model;
  story.open = undefined;
}

/** The beginning of a digest, for sentences. */
export function short(digest: string): string {
  return `${digest.slice(0, 12)}…`;
}
