/**
 * A link over two NATS subjects, one a direction. A packet travels as one frame, or as several where the server's
 * `max_payload` is smaller; frames are numbered, because NATS delivers at most once: a missing number ends the link, and
 * whoever dialled dials again. docs/protocol.md has the layout of a frame.
 */
import type { Link, Packet } from '../transport.ts';
import { createLinkCore, type Failure, type LinkFacts, type Reply } from './link-core.ts';
import { MAX_UNSENT_BYTES } from './socketio-link.ts';

export interface NatsLinkOptions extends LinkFacts {
  /** Bytes of one NATS message: the server's `max_payload`. */
  readonly maxFrameBytes: number;
  /** Publishes one frame to the other end. */
  readonly send: (frame: Uint8Array) => void;
  /** Resolves when all that was sent before has reached the server. */
  readonly flush: () => Promise<void>;
  /** A sign of life is sent this often, in millis. */
  readonly pingIntervalMs: number;
  /** A link without one for this long, beyond the interval, is closed. */
  readonly pingTimeoutMs: number;
}

export interface NatsLink {
  readonly link: Link;
  /** To be called for each frame of the other end, in order. */
  receive(frame: Uint8Array): void;
  /** The connection underneath is gone. */
  gone(reason: string): void;
}

const KINDS = ['request', 'reply', 'failure', 'notify', 'bye', 'ping', 'more'] as const;
type Kind = (typeof KINDS)[number];

/** Of every frame: kind (1 byte), 3 bytes of zeros, number of the frame (4). */
const PREFIX_BYTES = 8;
/** Of a packet's first frame, besides: request (4), bytes of the head (4), bytes of the body (4). */
export const FRAME_OVERHEAD_BYTES = PREFIX_BYTES + 12;
const NO_BODY = 0xffff_ffff;
/** What is sent between two looks at how much the server has taken. */
const FLUSH_EVERY_BYTES = 4 * 1024 * 1024;
const MAX_REASON_BYTES = 300;
const EMPTY = new Uint8Array(0);
const NO_FRAME = 'the other end sent a frame that is none';

/** A packet of several frames on its way in. */
interface Incoming {
  readonly kind: Kind;
  readonly id: number;
  readonly headBytes: number;
  readonly hasBody: boolean;
  readonly bytes: Uint8Array;
  filled: number;
}

/** Returns the link whose frames leave by `send` and come in by `receive`. */
export function createNatsLink(options: NatsLinkOptions): NatsLink {
  const { maxFrameBytes, maxPayloadBytes, send, flush, pingIntervalMs, pingTimeoutMs } = options;
  const waiting = new Map<number, (reply: Reply) => void>();
  let requests = 0;
  let nextOut = 0;
  let nextIn = 0;
  let incoming: Incoming | undefined;
  let sentBytes = 0;
  let flushedBytes = 0;
  let flushAskedAt = 0;
  let heardAt = performance.now();
  let isGone = false;

  const core = createLinkCore(options, {
    request(packet, onReply) {
      requests = (requests + 1) >>> 0;
      waiting.set(requests, onReply);
      sendPacket('request', requests, packet);
    },
    notify: (packet) => sendPacket('notify', 0, packet),
    async hangUp(reason) {
      sendPacket('bye', 0, { head: Buffer.from(reason).subarray(0, MAX_REASON_BYTES) });
      await flush().catch(() => undefined);
    },
  });
  const pulse = setInterval(() => {
    const silentMs = performance.now() - heardAt;
    if (silentMs > pingIntervalMs + pingTimeoutMs) drop('no sign of life from the other end');
    else sendPacket('ping', 0, { head: EMPTY });
  }, pingIntervalMs);
  void core.link.closed.then(() => {
    clearInterval(pulse);
    waiting.clear();
    incoming = undefined;
    isGone = true;
  });

  function sendPacket(kind: Kind, id: number, { head, body }: Packet): void {
    const bytes = head.byteLength + (body?.byteLength ?? 0);
    const first = Math.min(bytes, maxFrameBytes - FRAME_OVERHEAD_BYTES);
    const frame = new Uint8Array(FRAME_OVERHEAD_BYTES + first);
    const view = viewOf(frame);
    writePrefix(view, kind, nextOut++);
    view.setUint32(8, id, true);
    view.setUint32(12, head.byteLength, true);
    view.setUint32(16, body === undefined ? NO_BODY : body.byteLength, true);
    copyPart(frame.subarray(FRAME_OVERHEAD_BYTES), head, body, 0);
    emit(frame);
    for (let at = first; at < bytes; ) {
      const take = Math.min(bytes - at, maxFrameBytes - PREFIX_BYTES);
      const more = new Uint8Array(PREFIX_BYTES + take);
      writePrefix(viewOf(more), 'more', nextOut++);
      copyPart(more.subarray(PREFIX_BYTES), head, body, at);
      emit(more);
      at += take;
    }
  }

  /** Sends, and now and then asks the server how far it has read: the client itself would queue without end. */
  function emit(frame: Uint8Array): void {
    send(frame);
    sentBytes += frame.byteLength;
    if (sentBytes - flushAskedAt >= FLUSH_EVERY_BYTES) {
      flushAskedAt = sentBytes;
      const mark = sentBytes;
      flush().then(
        () => {
          flushedBytes = mark;
        },
        () => undefined,
      );
    }
    if (sentBytes - flushedBytes > MAX_UNSENT_BYTES) core.gone('the NATS server reads too slowly');
  }

  function receive(frame: Uint8Array): void {
    heardAt = performance.now();
    const problem = take(frame);
    if (problem !== undefined) drop(problem);
  }

  /** Takes one frame in; returns what is wrong with it, if anything is. */
  function take(frame: Uint8Array): string | undefined {
    if (frame.byteLength < PREFIX_BYTES) return NO_FRAME;
    const view = viewOf(frame);
    const kind = KINDS[view.getUint8(0)];
    if (view.getUint32(4, true) !== nextIn++ >>> 0) return 'messages were lost on the way';
    if (kind === 'more') return takeMore(frame.subarray(PREFIX_BYTES));
    if (kind === undefined || incoming !== undefined || frame.byteLength < FRAME_OVERHEAD_BYTES)
      return NO_FRAME;
    const headBytes = view.getUint32(12, true);
    const declared = view.getUint32(16, true);
    const hasBody = declared !== NO_BODY;
    const bytes = headBytes + (hasBody ? declared : 0);
    if (headBytes > maxPayloadBytes || bytes - headBytes > maxPayloadBytes) {
      return 'the other end sent more than this link carries';
    }
    const data = frame.subarray(FRAME_OVERHEAD_BYTES);
    const id = view.getUint32(8, true);
    if (data.byteLength > bytes) return NO_FRAME;
    if (data.byteLength === bytes) return deliver(kind, id, packetOf(data, headBytes, hasBody));
    incoming = { kind, id, headBytes, hasBody, bytes: new Uint8Array(bytes), filled: data.byteLength };
    incoming.bytes.set(data);
    return undefined;
  }

  function takeMore(data: Uint8Array): string | undefined {
    if (incoming === undefined || incoming.filled + data.byteLength > incoming.bytes.byteLength)
      return NO_FRAME;
    incoming.bytes.set(data, incoming.filled);
    incoming.filled += data.byteLength;
    if (incoming.filled < incoming.bytes.byteLength) return undefined;
    const { kind, id, bytes, headBytes, hasBody } = incoming;
    incoming = undefined;
    return deliver(kind, id, packetOf(bytes, headBytes, hasBody));
  }

  function deliver(kind: Kind, id: number, packet: Packet): string | undefined {
    if (kind === 'request') void core.receiveRequest(packet).then((reply) => answer(id, reply));
    else if (kind === 'reply') settle(id, { packet });
    else if (kind === 'notify') core.receiveNotify(packet);
    else if (kind === 'bye') core.gone(Buffer.from(packet.head).toString('utf8') || 'the other end hung up');
    else if (kind === 'failure') {
      const failure = failureIn(packet.head);
      if (failure === undefined) return 'the other end sent a reply that is none';
      settle(id, { failure });
    }
    return undefined;
  }

  function answer(id: number, reply: Reply): void {
    if (isGone) return;
    if ('packet' in reply) sendPacket('reply', id, reply.packet);
    else sendPacket('failure', id, { head: Buffer.from(JSON.stringify(reply.failure)) });
  }

  function settle(id: number, reply: Reply): void {
    const onReply = waiting.get(id);
    waiting.delete(id);
    onReply?.(reply);
  }

  /** Ends a link that makes no sense any more; the other end is told, in case it hears. */
  function drop(reason: string): void {
    if (isGone) return;
    void core.link.close(reason);
  }

  return { link: core.link, receive, gone: core.gone };
}

/** The frame that tells a stranger's link, one that this end does not know (any more), to end. */
export function byeFrame(reason: string): Uint8Array {
  const head = Buffer.from(reason);
  const frame = new Uint8Array(FRAME_OVERHEAD_BYTES + head.byteLength);
  const view = viewOf(frame);
  writePrefix(view, 'bye', 0);
  view.setUint32(12, head.byteLength, true);
  view.setUint32(16, NO_BODY, true);
  frame.set(head, FRAME_OVERHEAD_BYTES);
  return frame;
}

function writePrefix(view: DataView, kind: Kind, number: number): void {
  view.setUint8(0, KINDS.indexOf(kind));
  view.setUint32(4, number >>> 0, true);
}

/** Fills `target` with the bytes from `at` on of head and body, one after the other. */
function copyPart(target: Uint8Array, head: Uint8Array, body: Uint8Array | undefined, at: number): void {
  const fromHead = head.subarray(Math.min(at, head.byteLength), at + target.byteLength);
  target.set(fromHead);
  if (body === undefined || fromHead.byteLength === target.byteLength) return;
  const start = Math.max(0, at - head.byteLength);
  target.set(body.subarray(start, start + target.byteLength - fromHead.byteLength), fromHead.byteLength);
}

function packetOf(bytes: Uint8Array, headBytes: number, hasBody: boolean): Packet {
  const head = bytes.subarray(0, headBytes);
  return hasBody ? { head, body: bytes.subarray(headBytes) } : { head };
}

function failureIn(head: Uint8Array): Failure | undefined {
  try {
    const failure = JSON.parse(Buffer.from(head).toString('utf8')) as Partial<Failure> | null;
    if (typeof failure?.code !== 'string' || typeof failure.message !== 'string') return undefined;
    return { code: failure.code, message: failure.message, retryable: failure.retryable === true };
  } catch {
    return undefined;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
