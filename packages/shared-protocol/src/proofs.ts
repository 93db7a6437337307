/**
 * What a node signs. Each link has a session: a random text of the coordinator's, given out when the link begins. A
 * `hello` signs it, and so proves that who dials now holds the key now; every message that counts signs it with a
 * counter and a time, so that none can be repeated, put into another link or another run, or kept for later.
 */
import { randomBytes } from 'node:crypto';
import { canonicalJson, sha256 } from './digest.ts';
import { wellFormed } from './envelope.ts';
import { isSignedBy, type SigningKey, type Statement } from './identity.ts';
import type { KeyChange, Message, MessageOf, MessageType, Proof } from './messages.ts';

/** Messages that carry a signature of their sender, in `signed`. */
export type SignedMessage = Extract<Message, { signed: Proof }>;
/** A message as it is handed to a channel that signs: `signed` is filled in there. */
export type Unsigned<M> = M extends SignedMessage ? Omit<M, 'signed'> & { readonly signed?: Proof } : M;
export type Outgoing = Unsigned<Message>;

const SIGNED_TYPES: ReadonlySet<MessageType> = new Set<SignedMessage['type']>([
  'ready',
  'offer',
  'trained',
  'evaluation',
  'failure',
  'rekey',
  'leave',
]);

/** What a proof is bound to, beside the message. */
export interface ProofScope {
  readonly runId: string;
  /** The link's, from `challenged`. */
  readonly session: string;
}

/** 192 random bits in base64url: a session, or a site's part of it. */
export function newNonce(): string {
  return randomBytes(24).toString('base64url');
}

/** Whether this message carries a signature of its sender. */
export function isSignedMessage(message: Message): message is SignedMessage {
  return SIGNED_TYPES.has(message.type);
}

/** Signs messages of one link in the order in which they are given: each counter is one more than that before. */
export function createMessageSigner(
  options: ProofScope & { readonly key: SigningKey; readonly now: () => number },
): (message: Outgoing) => Message {
  const { key, now, runId, session } = options;
  let counter = 0;
  return (message) => {
    if (!SIGNED_TYPES.has(message.type) || ('signed' in message && message.signed !== undefined))
      return message as Message;
    const content = wellFormed(message) as Outgoing;
    const proof = { at: now(), counter: counter++ };
    const signature = key.sign(messageStatement(content, { runId, session }, proof));
    return { ...content, signed: { ...proof, signature } } as Message;
  };
}

/** Whether `message` was signed with `publicKey` for that run and link. Says nothing of its counter and time. */
export function isProven(message: SignedMessage, scope: ProofScope, publicKey: string): boolean {
  const { signature, ...proof } = message.signed;
  return isSignedBy(publicKey, messageStatement(message, scope, proof), signature);
}

/** What the coordinator signs with the run's key when a link begins. */
export function coordinatorStatement(parts: {
  readonly runId: string;
  readonly session: string;
  /** The site's part of the challenge. */
  readonly nonce: string;
  /** The certificate's that the coordinator shows; null without TLS. */
  readonly fingerprint: string | null;
}): Statement {
  const { runId, session, nonce, fingerprint } = parts;
  return { purpose: 'tributary/coordinator', runId, session, nonce, fingerprint };
}

/** What a site's `hello` signs: all of itself, in this link, over this certificate. */
export function helloStatement(
  hello: MessageOf<'hello'>,
  { runId, session }: ProofScope,
  fingerprint: string | null,
): Statement {
  const { signature: _signature, ...content } = hello;
  const digest = sha256(canonicalJson(content));
  return { purpose: 'tributary/hello', runId, session, fingerprint, digest };
}

/** What a site's new key signs: that it takes the place of the former one, said over this link. */
export function rekeyStatement(
  { runId, session }: ProofScope,
  { name, former, next }: { readonly name: string; readonly former: string; readonly next: string },
): Statement {
  return { purpose: 'tributary/rekey', runId, session, name, former, next };
}

/** Whether both keys have signed that the one takes the place of the other, for that site of that run. */
export function isProvenKeyChange(
  { former, key, session, confirmation, ...signed }: KeyChange,
  { runId, name }: { readonly runId: string; readonly name: string },
): boolean {
  const scope = { runId, session };
  const message = { type: 'rekey', publicKey: key, confirmation, signed } as const;
  return (
    isSignedBy(key, rekeyStatement(scope, { name, former, next: key }), confirmation) &&
    isProven(message, scope, former)
  );
}

function messageStatement(
  message: Outgoing,
  { runId, session }: ProofScope,
  { at, counter }: Omit<Proof, 'signature'>,
): Statement {
  const { signed: _signed, ...content } = message as SignedMessage;
  const digest = sha256(canonicalJson(content));
  return { purpose: 'tributary/message', runId, session, at, counter, digest };
}
