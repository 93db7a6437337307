/** Keys and shares of secure aggregation as they stand in messages: bytes as base64url. */

/** A site's public keys of one attempt, and its signature over them. */
export interface RoundKeys<B> {
  readonly channelKey: B;
  readonly maskKey: B;
  readonly seedCommitment: B;
  readonly signature: B;
}

export function bytesToText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url');
}

/** Memory of its own, for its holder to erase. */
export function textToBytes(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, 'base64url'));
}

export function keysToText(keys: RoundKeys<Uint8Array>): RoundKeys<string> {
  return mapKeys(keys, bytesToText);
}

export function keysToBytes(keys: RoundKeys<string>): RoundKeys<Uint8Array> {
  return mapKeys(keys, textToBytes);
}

function mapKeys<A, B>(keys: RoundKeys<A>, map: (value: A) => B): RoundKeys<B> {
  return {
    channelKey: map(keys.channelKey),
    maskKey: map(keys.maskKey),
    seedCommitment: map(keys.seedCommitment),
    signature: map(keys.signature),
  };
}
