/** Typed calls over a link: messages instead of bytes, and errors that cross the wire with their code. */
import { decodeMessage, encodeMessage } from './envelope.ts';
import { ProtocolError, RemoteError } from './errors.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import type { Message, MessageOf, MessageType } from './messages.ts';
import type { Outgoing } from './proofs.ts';
import type { Link, Packet, RequestOptions } from './transport.ts';
import { failureOf } from './transports/link-core.ts';

export interface ChannelOptions {
  /** @default DEFAULT_LIMITS */
  readonly limits?: Limits;
  /** Told of each error that a handler threw, before the peer gets its code; for logs. Must not throw. */
  readonly onHandlerError?: (error: unknown) => void;
}

/** A message with raw bytes beside it: a view, not a copy, of what arrived. */
export interface MessageWithBody<T extends Message = Message> {
  readonly message: T;
  readonly body: Uint8Array;
}

export interface CallWithBodyOptions extends RequestOptions {
  /** Sent along with the message. */
  readonly body?: Uint8Array;
}

export type MessageHandler = (
  message: Message,
  /** Empty when none was sent. */
  body: Uint8Array,
) => Promise<Message | MessageWithBody>;

export interface Channel {
  readonly link: Link;
  /**
   * Resolves with the reply, which is of type `expect`. Rejects with RemoteError when the peer answered `error`, with
   * FED_PROTOCOL_MESSAGE_UNEXPECTED for a reply of another type, and as `Link.request` does.
   */
  call<T extends MessageType>(message: Outgoing, expect: T, options?: RequestOptions): Promise<MessageOf<T>>;
  /** As `call`, with the bytes that came beside the reply (empty when none did). */
  callWithBody<T extends MessageType>(
    message: Outgoing,
    expect: T,
    options?: CallWithBodyOptions,
  ): Promise<MessageWithBody<MessageOf<T>>>;
  /**
   * Answers the peer's calls. An error with a FED_ code becomes an `error` reply with its code, message and
   * `retryable`; any other becomes FED_INTERNAL without its message.
   */
  handle(handler: MessageHandler): void;
  /** From now on every message is given to `sign` just before it is sent, in the order of the calls. */
  signWith(sign: (message: Outgoing) => Message): void;
  readonly closed: Promise<string>;
  close(reason?: string): Promise<void>;
}

const NO_BYTES = new Uint8Array(0);

/** Returns a channel over `link`. The channel takes over the link's request handler once `handle` is called. */
export function createChannel(link: Link, options: ChannelOptions = {}): Channel {
  const { limits = DEFAULT_LIMITS, onHandlerError } = options;
  // Without a key nothing is signed; the other end refuses what should be.
  let sign = (message: Outgoing): Message => message as Message;

  function decode(packet: Packet): { message: Message; body: Uint8Array } {
    const body = packet.body ?? NO_BYTES;
    if (body.byteLength > limits.maxChunkBytes) {
      throw new ProtocolError(
        'FED_PROTOCOL_LIMIT',
        `body: ${body.byteLength} bytes, more than the limit of ${limits.maxChunkBytes}`,
      );
    }
    return { message: decodeMessage(packet.head, limits), body };
  }

  async function callWithBody<T extends MessageType>(
    message: Outgoing,
    expect: T,
    { body, ...request }: CallWithBodyOptions = {},
  ): Promise<MessageWithBody<MessageOf<T>>> {
    const reply = decode(await link.request(packetOf(sign(message), body), request));
    if (reply.message.type === 'error' && expect !== 'error') {
      throw new RemoteError(reply.message.code, reply.message.message, reply.message.retryable);
    }
    if (reply.message.type !== expect) {
      throw new ProtocolError(
        'FED_PROTOCOL_MESSAGE_UNEXPECTED',
        `the answer to "${message.type}" should be "${expect}" but is "${reply.message.type}"`,
      );
    }
    return { message: reply.message as MessageOf<T>, body: reply.body };
  }

  return {
    link,
    callWithBody,
    async call(message, expect, request) {
      return (await callWithBody(message, expect, request)).message;
    },
    handle(handler) {
      link.onRequest(async (packet) => {
        try {
          const { message, body } = decode(packet);
          const answer = await handler(message, body);
          return 'message' in answer && 'body' in answer
            ? packetOf(answer.message, answer.body)
            : packetOf(answer);
        } catch (error) {
          onHandlerError?.(error);
          return packetOf({ type: 'error', ...failureOf(error) });
        }
      });
    },
    signWith(signer) {
      sign = signer;
    },
    closed: link.closed,
    close: (reason) => link.close(reason),
  };
}

function packetOf(message: Message, body?: Uint8Array): Packet {
  const head = encodeMessage(message);
  return body === undefined ? { head } : { head, body };
}
