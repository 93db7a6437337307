/**
 * Every message of the protocol, as one union discriminated by `type`. Requests are answered by the reply named in
 * the comment, or by `error`. docs/protocol.md tells the same story for other languages.
 *
 * The worker is the client of almost everything; the coordinator calls back only with `plan`, `verdict`, `chunk`, and the
 * stages of secure aggregation. All requests are idempotent: after a lost link the worker says hello again and repeats
 * what was not answered.
 */
import { z } from 'zod';
import { federationViewSchema } from './plan.ts';

/** Both ends send theirs; a different major is refused, the lower minor is spoken. */
export const PROTOCOL_VERSION = { major: 2, minor: 2 } as const;

const digest = z.string().regex(/^[0-9a-f]{64}$/, 'a SHA-256 in lower-case hex');
const round = z.int().min(0);
const metrics = z.record(z.string(), z.number());
const version = z.strictObject({ major: z.int().min(0), minor: z.int().min(0) });

/** A blob: bytes known by their digest, fetched chunk by chunk from whoever announced it. */
export const blobRefSchema = z.strictObject({
  digest,
  bytes: z.int().min(0),
  chunkBytes: z.int().min(1),
});
export type BlobRef = z.infer<typeof blobRefSchema>;

export const siteReportSchema = z.strictObject({
  /** Readable examples in the training and test splits; the former is absent where secure aggregation hides it. */
  trainExamples: z.int().min(0).optional(),
  testExamples: z.int().min(0),
  /** Per class, in the federation's order (empty before the site knows it). */
  trainExamplesByClass: z.array(z.int().min(0)),
  unreadable: z.int().min(0),
  engine: z.string(),
});
export type SiteReport = z.infer<typeof siteReportSchema>;

const nonce = z.string().min(16).max(128);
const publicKey = z.string().length(43);
const signature = z.string().length(86);
const siteName = z.string().max(128);
/** Bytes as base64url. */
const base64url = (bytes: number) =>
  z
    .string()
    .regex(new RegExp(`^[A-Za-z0-9_-]{${Math.ceil((bytes * 4) / 3)}}$`), `${bytes} bytes in base64url`);
const bytes32 = base64url(32);
/** Names one try of a round's secure aggregation; of another there are other keys. */
const attempt = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/);
/** Sites of one cohort, at most. */
const MAX_COHORT = 4096;
const names = z.array(siteName).max(MAX_COHORT);
const shares = z.array(z.strictObject({ of: siteName, share: bytes32 })).max(MAX_COHORT);
/** A site's keys of one attempt, signed with the key that it is known by. */
const roundKeys = { channelKey: bytes32, maskKey: bytes32, seedCommitment: bytes32, signature };
/** Two shares under AES-256-GCM. */
const sealed = base64url(92);

/** A sender's signature over a message, its link and its run; proofs.ts says over what exactly. */
const proofSchema = z.strictObject({
  /** The sender's clock, Unix millis. */
  at: z.number(),
  /** Above that of every signed message before on the link. */
  counter: z.int().min(0),
  /** Base64url of the Ed25519 signature. */
  signature,
});
export type Proof = z.infer<typeof proofSchema>;

/** A site's change of key, as the log keeps it: signed by the former key and by the one after it. */
const keyChangeSchema = z.strictObject({
  former: publicKey,
  key: publicKey,
  /** Of the link on which it was said. */
  session: nonce,
  ...proofSchema.shape,
  /** The new key's signature. */
  confirmation: signature,
});
export type KeyChange = z.infer<typeof keyChangeSchema>;

export const messageSchema = z.discriminatedUnion('type', [
  /** worker → coordinator, first on every link: who are you? Answered by `challenged`. */
  z.strictObject({ type: z.literal('challenge'), protocol: version, nonce }),
  /** The coordinator's proof that it holds the run's key, and the session that this link's signatures are bound to. */
  z.strictObject({
    type: z.literal('challenged'),
    protocol: version,
    runId: z.string().max(128),
    session: nonce,
    publicKey,
    signature,
  }),
  /** worker → coordinator, after the challenge; answered by `welcome`. An admin says it first, and signs nothing. */
  z.strictObject({
    type: z.literal('hello'),
    protocol: version,
    software: z.string().max(128),
    role: z.enum(['worker', 'admin']),
    name: z.string().max(128),
    /**
     * A site that joins shows its invite's secret and its public key, of a pair that it has already stored: a site
     * killed before it read `welcome` says the same again and is the same client, not a stranger with a used invite.
     * Afterwards the key alone is shown.
     */
    secret: z.string().max(256).optional(),
    /** An admin's, from the run directory. */
    credential: z.string().max(256).optional(),
    /** A site's. */
    publicKey: publicKey.optional(),
    /** By that key: over all other fields, the link's session, the run and the certificate. */
    signature: signature.optional(),
    clockMs: z.number(),
  }),
  /** The answer to `hello`. */
  z.strictObject({
    type: z.literal('welcome'),
    protocol: version,
    clientId: z.string(),
    clockMs: z.number(),
    heartbeatMs: z.int().min(1),
    federation: federationViewSchema,
  }),
  /** worker → coordinator: data checked, preflight passed, plans are welcome. Answered by `ok`. */
  z.strictObject({
    type: z.literal('ready'),
    site: siteReportSchema,
    /** Number of the last line of the log that this site keeps a copy of, -1 for none; absent: it wants none. */
    recordsUpTo: z.int().min(-1).optional(),
    signed: proofSchema,
  }),
  /** worker → coordinator, every heartbeatMs. Answered by `ok`. */
  z.strictObject({
    type: z.literal('heartbeat'),
    state: z.enum(['idle', 'fetching', 'training', 'evaluating', 'sending']),
    round: round,
    /** Share of the current work that is done, in [0, 1]. */
    progress: z.number().min(0).max(1),
  }),
  /** coordinator → worker: work to do. Answered by `ok` at once; a repeated plan is no new work. */
  z.strictObject({
    type: z.literal('plan'),
    task: z.enum(['train', 'evaluate']),
    round,
    /** The global model to start from: a tensor frame. */
    model: blobRefSchema,
    learningRate: z.number().positive(),
    /** Millis from now until the round closes; null when it has no deadline. */
    deadlineMs: z.number().nullable(),
    /**
     * Since 2.1, of a plan to train: the sites that were asked, and the fewest updates from which the round's model may
     * be made. Both are the coordinator's word; a site's policy may refuse a plan for them.
     */
    cohortSize: z.int().min(1).optional(),
    minUpdates: z.int().min(1).optional(),
    /** Since 2.2, where the privacy of sites has a norm that adapts: the L2 norm that this round's update is clipped to. */
    clippingNorm: z.number().positive().optional(),
  }),
  /** Either way: one chunk of a blob, please. Answered by `chunk-data`, its bytes in the body. */
  z.strictObject({ type: z.literal('chunk'), digest, index: z.int().min(0) }),
  z.strictObject({ type: z.literal('chunk-data'), digest, index: z.int().min(0) }),
  /**
   * worker → coordinator: a finished update (local − global), spooled at the site. Answered by `receipt`. With `attempt`
   * it is masked, and has no `numExamples`: they are inside the mask.
   */
  z.strictObject({
    type: z.literal('offer'),
    round,
    /** Digest of the global model that the update is relative to. */
    base: digest,
    numExamples: z.number().optional(),
    metrics,
    update: blobRefSchema,
    attempt: attempt.optional(),
    signed: proofSchema,
  }),
  /**
   * Since 2.2, worker → coordinator: an update is spooled, and waits to be masked. Answered by `receipt`: `send` when it
   * will be asked for.
   */
  z.strictObject({
    type: z.literal('trained'),
    round,
    base: digest,
    /** Of a private federation, for its books: which update, and from how many examples. */
    release: z.strictObject({ update: digest, numExamples: z.int().min(1) }).optional(),
    signed: proofSchema,
  }),
  /** `send`: keep serving chunks; `have`: already taken, drop it; `refused` with a code and reason: drop it. */
  z.strictObject({
    type: z.literal('receipt'),
    decision: z.enum(['send', 'have', 'refused']),
    code: z.string().optional(),
    reason: z.string().optional(),
  }),
  /** coordinator → worker: what became of an offered update once all of it was here. Answered by `ok`. */
  z.strictObject({
    type: z.literal('verdict'),
    round,
    update: digest,
    accepted: z.boolean(),
    code: z.string().optional(),
    reason: z.string().optional(),
  }),
  /**
   * Since 2.2, coordinator → worker: the stages of secure aggregation (Bonawitz et al. 2017), in this order, each answered
   * once; a repeated one gets the answer that it had. First: show your keys of this attempt, among these sites. Answered
   * by `advertised`.
   */
  z.strictObject({
    type: z.literal('advertise'),
    attempt,
    round,
    base: digest,
    /** With the changes that led to its present key, oldest first, of a site that has changed it. */
    cohort: z
      .array(
        z.strictObject({ name: siteName, publicKey, changes: z.array(keyChangeSchema).max(1024).optional() }),
      )
      .min(1)
      .max(MAX_COHORT),
  }),
  z.strictObject({ type: z.literal('advertised'), ...roundKeys }),
  /** Everybody's keys: answered by `shared`, the shares of this site's secrets, each sealed for who holds it. */
  z.strictObject({
    type: z.literal('share'),
    attempt,
    keys: z.array(z.strictObject({ site: siteName, ...roundKeys })).max(MAX_COHORT),
  }),
  z.strictObject({
    type: z.literal('shared'),
    envelopes: z.array(z.strictObject({ to: siteName, sealed })).max(MAX_COHORT),
  }),
  /** Who has shared, and what they sealed for this site. Answered by `ok`; the masked update is offered when it is made. */
  z.strictObject({
    type: z.literal('mask'),
    attempt,
    sharers: names,
    envelopes: z.array(z.strictObject({ from: siteName, sealed })).max(MAX_COHORT),
  }),
  /** Whose masked updates are in the sum. Answered by `agreed`: the site's signature, of which it gives one only. */
  z.strictObject({ type: z.literal('agree'), attempt, survivors: names }),
  z.strictObject({ type: z.literal('agreed'), signature }),
  /** The survivors and who has signed them. Answered by `unmasked`: shares that take the masks out of the sum. */
  z.strictObject({
    type: z.literal('unmask'),
    attempt,
    survivors: names,
    signatures: z.array(z.strictObject({ site: siteName, signature })).max(MAX_COHORT),
  }),
  z.strictObject({ type: z.literal('unmasked'), seedShares: shares, maskKeyShares: shares }),
  /** worker → coordinator: the answer to an `evaluate` plan. Answered by `receipt`. */
  z.strictObject({
    type: z.literal('evaluation'),
    round,
    model: digest,
    numExamples: z.number(),
    metrics,
    signed: proofSchema,
  }),
  /** worker → coordinator: this attempt at the plan failed for good (after retries). Answered by `ok`. */
  z.strictObject({
    type: z.literal('failure'),
    task: z.enum(['train', 'evaluate']),
    round,
    code: z.string(),
    reason: z.string(),
    /** Since 2.2: the site whose part in a secure sum is what is wrong. */
    accused: siteName.optional(),
    signed: proofSchema,
  }),
  /**
   * worker → coordinator: this site's key is `publicKey` from now on. Signed with the key that it had; `confirmation` is
   * the new one's signature. Answered by `ok`.
   */
  z.strictObject({
    type: z.literal('rekey'),
    publicKey,
    confirmation: signature,
    signed: proofSchema,
  }),
  /**
   * coordinator → worker: lines of the log that concern this site, in order, without their ends. Answered by `ok` once
   * they are kept.
   */
  z.strictObject({ type: z.literal('records'), lines: z.array(z.string()).min(1) }),
  /** coordinator → worker: the run has ended, or this site is expelled. Answered by `ok`. */
  z.strictObject({ type: z.literal('goodbye'), code: z.string(), reason: z.string() }),
  /** worker → coordinator: leaving on purpose. Answered by `ok`. */
  z.strictObject({ type: z.literal('leave'), reason: z.string(), signed: proofSchema }),
  /** admin → coordinator; answered by `status` (a RunStatus), `invited`, `rotated`, and `ok` for the others. */
  z.strictObject({ type: z.literal('get-status') }),
  z.strictObject({ type: z.literal('status'), status: z.unknown() }),
  z.strictObject({ type: z.literal('invite'), uses: z.int().min(1), expiresMs: z.int().min(1) }),
  z.strictObject({ type: z.literal('invited'), invite: z.string() }),
  z.strictObject({ type: z.literal('revoke'), name: z.string().max(128), reason: z.string().max(1024) }),
  /** The coordinator's certificate is made anew; answered by `rotated`. */
  z.strictObject({ type: z.literal('rotate') }),
  z.strictObject({ type: z.literal('rotated'), fingerprint: digest }),
  z.strictObject({ type: z.literal('stop'), reason: z.string() }),
  z.strictObject({ type: z.literal('ok') }),
  /** The answer to any request that can't be met. */
  z.strictObject({ type: z.literal('error'), code: z.string(), message: z.string(), retryable: z.boolean() }),
]);
export type Message = z.infer<typeof messageSchema>;
export type MessageType = Message['type'];
export type MessageOf<T extends MessageType> = Extract<Message, { type: T }>;
