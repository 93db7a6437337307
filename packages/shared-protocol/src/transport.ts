/**
 * The one interface every transport implements: memory and socket.io today, NATS next. A transport moves opaque
 * requests and notifications over a link and says when the link is gone; messages, blobs, resumption and digests are
 * built on top, once, and so behave alike everywhere (docs/adr/0002-pulled-blobs.md). `testTransport` in
 * @tributary/testkit is the compliance suite.
 */

/**
 * What travels: an encoded envelope, and raw bytes that ride along without being copied, so they must stay as they are
 * until the packet has been answered or its link is closed.
 */
export interface Packet {
  readonly head: Uint8Array;
  readonly body?: Uint8Array;
}

export interface RequestOptions {
  /** Rejects with the signal's reason, unwrapped. */
  readonly signal?: AbortSignal;
  /** Rejects with FED_TRANSPORT_TIMEOUT when no reply came for this long. @default 30_000 millis */
  readonly timeoutMs?: number;
}

/** One connected pair; both ends have the same shape. A link never reconnects: whoever dialled dials again. */
export interface Link {
  /** Made by the transport, unique in this process. */
  readonly id: string;
  /** Where the other end is, for logs. */
  readonly remoteAddress: string;
  /** The largest body that one packet should carry, in bytes: the chunk size of blobs. */
  readonly preferredChunkBytes: number;
  /** Resolves with the reply of the other end's handler; rejects when the link closes first (FED_TRANSPORT_CLOSED). */
  request(packet: Packet, options?: RequestOptions): Promise<Packet>;
  /** Sends without waiting; in order with other packets of this link. Silently nothing on a closed link. */
  notify(packet: Packet): void;
  /** One handler a link. Requests that come before it is set wait for it. A handler that throws answers with an error. */
  onRequest(handler: (packet: Packet) => Promise<Packet>): void;
  onNotify(handler: (packet: Packet) => void): void;
  /** Resolves once, with the reason, when the link is gone for whichever cause. Never rejects. */
  readonly closed: Promise<string>;
  close(reason?: string): Promise<void>;
}

export interface Listener {
  /** What workers dial, e.g. `https://192.0.2.7:7700`. */
  readonly url: string;
  /** SHA-256 of the TLS certificate in lower-case hex, or undefined on a plain transport. */
  readonly fingerprint: string | undefined;
  /**
   * Shows another certificate (PEM texts) to whoever dials from now on; links that are up stay. Absent where the
   * certificate is not this process's own.
   */
  renew?(tls: { readonly key: string; readonly cert: string }): void;
  /** Closes every link and frees the address. */
  close(): Promise<void>;
}

export interface Transport {
  readonly name: string;
  listen(onLink: (link: Link) => void): Promise<Listener>;
  connect(url: string, options?: ConnectOptions): Promise<Link>;
}

export interface ConnectOptions {
  /** Pin: the listener's certificate must have this SHA-256 (lower-case hex), else FED_TRANSPORT_FINGERPRINT. */
  readonly fingerprint?: string;
  readonly signal?: AbortSignal;
  /** @default 10_000 millis */
  readonly timeoutMs?: number;
}
