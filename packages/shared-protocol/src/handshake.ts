/**
 * How a link begins. The site sends a nonce; the coordinator answers with one of its own, the session, and signs both
 * with the run's key: so the site knows whom it talks to, by more than a certificate. Then the site says hello and
 * signs that with its own key. No secret that is good for a second time crosses the wire.
 */
import type { Channel } from './channel.ts';
import { wellFormed } from './envelope.ts';
import { ProtocolError } from './errors.ts';
import { isSignedBy, keyFingerprint, type SigningKey } from './identity.ts';
import { type MessageOf, PROTOCOL_VERSION } from './messages.ts';
import { coordinatorStatement, createMessageSigner, helloStatement, newNonce } from './proofs.ts';

/** Who answered at the other end, proven. */
export interface Counterpart {
  readonly runId: string;
  /** Base64url of the run's public key. */
  readonly publicKey: string;
  readonly session: string;
  /** The certificate's that was pinned for this link; null without TLS. */
  readonly fingerprint: string | null;
}

export interface ChallengeOptions {
  /** The run's key, from the invite. Absent: that which is shown is taken. */
  readonly publicKey?: string | undefined;
  /** The certificate's that the link was pinned to. */
  readonly fingerprint?: string | undefined;
  /** @default PROTOCOL_VERSION */
  readonly protocol?: { readonly major: number; readonly minor: number };
  readonly signal?: AbortSignal;
}

/**
 * Asks the coordinator to prove that it holds the run's key, over this link and this certificate.
 *
 * @throws ProtocolError FED_PROTOCOL_IDENTITY when it does not
 */
export async function challengeCoordinator(
  channel: Channel,
  options: ChallengeOptions = {},
): Promise<Counterpart> {
  const nonce = newNonce();
  const fingerprint = options.fingerprint ?? null;
  const { runId, publicKey, session, signature } = await channel.call(
    { type: 'challenge', protocol: { ...(options.protocol ?? PROTOCOL_VERSION) }, nonce },
    'challenged',
    options.signal ? { signal: options.signal } : {},
  );
  if (options.publicKey !== undefined && publicKey !== options.publicKey) {
    throw new ProtocolError(
      'FED_PROTOCOL_IDENTITY',
      `who answers shows the run key ${keyFingerprint(publicKey)}, and the invite pins ${keyFingerprint(options.publicKey)}: this is not the coordinator of that run; ask the lead`,
    );
  }
  const statement = coordinatorStatement({ runId, session, nonce, fingerprint });
  if (!isSignedBy(publicKey, statement, signature)) {
    throw new ProtocolError(
      'FED_PROTOCOL_IDENTITY',
      'who answers does not hold the run’s key, or sits between this site and the coordinator with another certificate; ask the lead',
    );
  }
  return { runId, publicKey, session, fingerprint };
}

export interface HelloOptions {
  readonly key: SigningKey;
  readonly name: string;
  readonly software: string;
  /** The invite's, until a `welcome` was read. */
  readonly secret?: string | undefined;
  readonly now: () => number;
  /** @default PROTOCOL_VERSION */
  readonly protocol?: { readonly major: number; readonly minor: number };
  readonly signal?: AbortSignal;
}

/** Says hello as the holder of `key`, and has the channel sign what must be signed from then on. */
export async function sayHello(
  channel: Channel,
  { runId, session, fingerprint }: Counterpart,
  options: HelloOptions,
): Promise<MessageOf<'welcome'>> {
  const { key, name, software, secret, now, signal } = options;
  const content = wellFormed({
    type: 'hello',
    protocol: { ...(options.protocol ?? PROTOCOL_VERSION) },
    software,
    role: 'worker',
    name,
    ...(secret === undefined ? {} : { secret }),
    publicKey: key.publicKey,
    clockMs: now(),
  }) as MessageOf<'hello'>;
  const signature = key.sign(helloStatement(content, { runId, session }, fingerprint));
  const welcome = await channel.call({ ...content, signature }, 'welcome', signal ? { signal } : {});
  channel.signWith(createMessageSigner({ key, now, runId, session }));
  return welcome;
}
