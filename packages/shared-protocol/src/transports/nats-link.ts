/**
 * A link over two NATS subjects, one a direction. A packet's head and its body travel in frames of their own, several
 * each where the server's `max_payload` is smaller; what a frame is stands in its NATS header, so that no byte of a body
 * is copied to go out or to come in. Frames are numbered, because NATS delivers at most once: a missing number ends the
 * link, and whoever dialled dials again. docs/protocol.md has the header.
 */
import type { Link, Packet } from '../transport.ts';
import { createLinkCore, type Failure, type LinkFacts, type Reply } from './link-core.ts';
import { MAX_UNSENT_BYTES } from './socketio-link.ts';

export interface NatsLinkOptions extends LinkFacts {
  /** Bytes of one NATS message: the server's `max_payload`. */
  readonly maxFrameBytes: number;
  /** Publishes one frame to the other end. */
  readonly send: (frame: Frame) => void;
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
  receive(frame: Frame): void;
  /** The connection underneath is gone. */
  gone(reason: string): void;
}

/** A NATS message: what it is, for its header, and bytes of a head or a body. */
export interface Frame {
  /** `kind number [request headBytes [bodyBytes]]`, in decimal; the last three in a packet's first frame only. */
  readonly label: string;
  readonly data: Uint8Array;
}

const KINDS = ['request', 'reply', 'failure', 'notify', 'bye', 'ping', 'more'] as const;
type Kind = (typeof KINDS)[number];

const LABEL = /^([a-z]{3,7}) (\d{1,16})(?: (\d{1,16}) (\d{1,16})(?: (\d{1,16}))?)?$/;
/** Room in a NATS message beside a frame's bytes, for the header. */
export const FRAME_OVERHEAD_BYTES = 160;
/** What is sent between two looks at how much the server has taken. */
const FLUSH_EVERY_BYTES = 4 * 1024 * 1024;
const MAX_REASON_BYTES = 300;
const EMPTY = new Uint8Array(0);
const NO_FRAME = 'the other end sent a frame that is none';

/** A packet on its way in. */
interface Incoming {
  readonly kind: Kind;
  readonly id: number;
  readonly head: Part;
  readonly body: Part | undefined;
}

/** A head or a body that comes in one frame, which is then it, or in several, which are put together. */
interface Part {
  readonly bytes: number;
  filled: number;
  data: Uint8Array;
}

/** Returns the link whose frames leave by `send` and come in by `receive`. */
export function createNatsLink(options: NatsLinkOptions): NatsLink {
  const { maxPayloadBytes, send, flush, pingIntervalMs, pingTimeoutMs } = options;
  const maxDataBytes = options.maxFrameBytes - FRAME_OVERHEAD_BYTES;
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
      requests += 1;
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
    const bodyBytes = body === undefined ? '' : ` ${body.byteLength}`;
    const first = head.subarray(0, maxDataBytes);
    emit({ label: `${kind} ${nextOut++} ${id} ${head.byteLength}${bodyBytes}`, data: first });
    for (const [part, from] of [[head, first.byteLength] as const, [body ?? EMPTY, 0] as const]) {
      for (let at = from; at < part.byteLength; at += maxDataBytes) {
        emit({ label: `more ${nextOut++}`, data: part.subarray(at, at + maxDataBytes) });
      }
    }
  }

  /** Sends, and now and then asks the server how far it has read: the client itself would queue without end. */
  function emit(frame: Frame): void {
    send(frame);
    sentBytes += FRAME_OVERHEAD_BYTES + frame.data.byteLength;
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

  function receive(frame: Frame): void {
    heardAt = performance.now();
    const problem = take(frame);
    if (problem !== undefined) drop(problem);
  }

  /** Takes one frame in; returns what is wrong with it, if anything is. */
  function take({ label, data }: Frame): string | undefined {
    const [, kind, number, id, headBytes, bodyBytes] = LABEL.exec(label) ?? [];
    if (!isKind(kind)) return NO_FRAME;
    // A coordinator that has forgotten the link has forgotten its numbers too.
    if (Number(number) !== nextIn++ && kind !== 'bye') return 'messages were lost on the way';
    if ((kind === 'more') !== (incoming !== undefined) || (kind === 'more') !== (headBytes === undefined))
      return NO_FRAME;
    if (headBytes !== undefined) {
      const head = partOf(Number(headBytes));
      const body = bodyBytes === undefined ? undefined : partOf(Number(bodyBytes));
      if (head.bytes > maxPayloadBytes || (body?.bytes ?? 0) > maxPayloadBytes)
        return 'the other end sent more than this link carries';
      incoming = { kind, id: Number(id), head, body };
    }
    const { head, body } = incoming as Incoming;
    const part = headBytes !== undefined || head.filled < head.bytes ? head : body;
    if (part === undefined || !fill(part, data)) return NO_FRAME;
    if (head.filled < head.bytes || (body !== undefined && body.filled < body.bytes)) return undefined;
    const whole = incoming as Incoming;
    incoming = undefined;
    const packet = body === undefined ? { head: head.data } : { head: head.data, body: body.data };
    return deliver(whole.kind, whole.id, packet);
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
export function byeFrame(reason: string): Frame {
  const data = Buffer.from(reason);
  return { label: `bye 0 0 ${data.byteLength}`, data };
}

export function isBye({ label }: Frame): boolean {
  return label.startsWith('bye ');
}

function isKind(text: string | undefined): text is Kind {
  return (KINDS as readonly (string | undefined)[]).includes(text);
}

function partOf(bytes: number): Part {
  return { bytes, filled: 0, data: EMPTY };
}

/** Puts the next bytes in their place; false when there is none for them. */
function fill(part: Part, data: Uint8Array): boolean {
  if (data.byteLength > part.bytes - part.filled) return false;
  if (data.byteLength === part.bytes) part.data = data;
  else {
    if (part.filled === 0) part.data = new Uint8Array(part.bytes);
    part.data.set(data, part.filled);
  }
  part.filled += data.byteLength;
  return true;
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
