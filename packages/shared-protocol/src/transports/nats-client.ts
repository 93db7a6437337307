/**
 * NATS's client for Node, for large messages. On its own it puts a message together from what it reads off its socket,
 * at most 64 KiB at a time, in a buffer that it makes anew at twice the size whenever it is full, and it copies what it
 * sends into one array first; either cost as much as hashing the message. Here each message that comes is put together
 * once, in a buffer of its size, which the protocol's first line tells, and the client finds it whole; a large payload
 * that goes is given to the socket as it is.
 */
import { createConnection, type Socket } from 'node:net';
import {
  type ConnectionOptions,
  DataBuffer,
  type NatsConnection,
  NatsConnectionImpl,
  type ProtocolHandler,
  setTransportFactory,
} from '@nats-io/nats-core/internal';
import { NodeTransport, nodeResolveHost } from '@nats-io/transport-node/lib/node_transport.js';

/** The most that a NATS server can be configured to carry; whoever announces more is left to the client. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
const MAX_LINE_BYTES = 64 * 1024;
/** From here on to copy a payload takes longer than to hand it over apart from the rest. */
const LARGE_BYTES = 64 * 1024;
/** What is read where no message is being put together: lines, small messages, and the beginnings of large ones. */
const READ_BYTES = 64 * 1024;
const NOTHING = Buffer.alloc(0);
const LINE_FEED = 10;
const CRLF_BYTES = 2;
/** `MSG subject sid [reply] bytes` and, with headers, `HMSG subject sid [reply] headerBytes bytes`. */
const MESSAGE = /^H?MSG .* (\d{1,9})\r\n$/i;

/** As `connect` of the client for Node. What is published must stay as it is until a `flush` after it resolves. */
export async function connectNats(options: ConnectionOptions): Promise<NatsConnection> {
  setTransportFactory({
    factory: () => {
      const transport = new NodeTransport();
      if (options.tls === null) {
        transport.dial = dialWithLargeReads;
        return transport;
      }
      const reads = { [Symbol.asyncIterator]: transport[Symbol.asyncIterator].bind(transport) };
      transport[Symbol.asyncIterator] = () => wholeMessages(reads);
      return transport;
    },
    dnsResolveFn: nodeResolveHost,
  });
  const connection = await NatsConnectionImpl.connect(options);
  const { protocol } = connection as NatsConnectionImpl;
  protocol.outbound = new Outbound(protocol);
  return connection;
}

/** What waits to be sent. The client takes all of it at once, as one array. */
class Outbound extends DataBuffer {
  readonly #protocol: ProtocolHandler;

  constructor(protocol: ProtocolHandler) {
    super();
    this.#protocol = protocol;
  }

  /** Sends all up to the last large payload, and returns what is left. */
  override drain(): Uint8Array {
    const waiting = this.buffers.splice(0);
    this.reset();
    const rest = new DataBuffer();
    const { transport } = this.#protocol;
    const { socket } = transport as NodeTransport;
    socket.cork();
    for (const piece of waiting) {
      if (piece.byteLength >= LARGE_BYTES) {
        transport.send(rest.drain());
        transport.send(piece);
      } else rest.fill(piece);
    }
    process.nextTick(() => socket.uncork());
    return rest.drain();
  }
}

/**
 * As the client dials, but messages come off the socket whole, and what has arrived of a large one is read to where it
 * belongs, however much it is.
 */
function dialWithLargeReads({ port, hostname }: { port: number; hostname: string }): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const messages = new Messages();
    const common = Buffer.allocUnsafeSlow(READ_BYTES);
    const socket: Socket = createConnection({
      port,
      host: hostname,
      noDelay: true,
      onread: {
        buffer: () => messages.room ?? common,
        callback: (length, buffer) => {
          const read = Buffer.from(buffer.buffer, buffer.byteOffset, length);
          for (const piece of messages.next(read)) {
            socket.emit('data', piece.buffer === common.buffer ? Buffer.from(piece) : piece);
          }
          return true;
        },
      },
    });
    let reason: Error | undefined;
    socket.once('error', (error) => {
      reason = error;
    });
    socket.once('close', () => reject(reason));
    socket.once('connect', () => {
      socket.removeAllListeners();
      resolve(socket);
    });
  });
}

/** Yields the same bytes in pieces that each end where an operation of the NATS protocol ends. */
export async function* wholeMessages(reads: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const messages = new Messages();
  for await (const read of reads) {
    yield* messages.next(Buffer.from(read.buffer, read.byteOffset, read.byteLength));
  }
}

/** Puts operations together from what is read. */
class Messages {
  /** A message that isn't whole yet. */
  #message: Buffer | undefined;
  #filled = 0;
  /** The beginning of a line whose end has not come. */
  #line: Buffer = Buffer.alloc(0);
  /** No protocol that is understood here. */
  #foreign = false;

  /** Where the rest of a message belongs that isn't whole yet. What is read to there need not be copied. */
  get room(): Buffer | undefined {
    return this.#message?.subarray(this.#filled);
  }

  /** Returns what became whole with this read: parts of the read itself, or memory of their own. */
  next(read: Buffer): Buffer[] {
    if (this.#foreign) return [read];
    const whole: Buffer[] = [];
    let data = read;
    if (this.#message !== undefined) {
      const inPlace = data.buffer === this.#message.buffer;
      const taken = inPlace ? data.byteLength : data.copy(this.#message, this.#filled);
      this.#filled += taken;
      if (this.#filled < this.#message.byteLength) return [];
      whole.push(this.#message);
      this.#message = undefined;
      data = data.subarray(taken);
    }
    if (this.#line.byteLength > 0) data = Buffer.concat([this.#line, data]);
    let end = 0;
    for (let next = operationEnd(data, 0); next !== undefined; next = operationEnd(data, end)) {
      if (next - end > MAX_MESSAGE_BYTES) {
        this.#foreign = true;
        break;
      }
      if (next > data.byteLength) {
        this.#message = Buffer.allocUnsafeSlow(next - end);
        this.#filled = data.copy(this.#message, 0, end);
        break;
      }
      end = next;
    }
    this.#line = Buffer.from(this.#message === undefined ? data.subarray(end) : NOTHING);
    this.#foreign ||= this.#line.byteLength > MAX_LINE_BYTES;
    const ready = this.#foreign ? data : data.subarray(0, end);
    if (ready.byteLength > 0) whole.push(ready);
    return whole;
  }
}

/** Where the operation that begins at `start` ends, perhaps beyond `data`; undefined when its first line isn't there. */
function operationEnd(data: Buffer, start: number): number | undefined {
  const lineEnd = data.indexOf(LINE_FEED, start) + 1;
  if (lineEnd === 0) return undefined;
  const payload = MESSAGE.exec(data.toString('latin1', start, lineEnd))?.[1];
  return payload === undefined ? lineEnd : lineEnd + Number(payload) + CRLF_BYTES;
}
