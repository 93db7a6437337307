/**
 * NATS's client puts a message together from what it reads off its socket, at most 64 KiB at a time, in a buffer that it
 * makes anew at twice the size whenever it is full. That cost as much as hashing the message. Here each message is put
 * together once, in a buffer of its size, which the protocol's first line tells; the client then finds it whole.
 */
import {
  type ConnectionOptions,
  type NatsConnection,
  NatsConnectionImpl,
  setTransportFactory,
} from '@nats-io/nats-core/internal';
import { NodeTransport, nodeResolveHost } from '@nats-io/transport-node/lib/node_transport.js';

/** The most that a NATS server can be configured to carry; whoever announces more is left to the client. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
const MAX_LINE_BYTES = 64 * 1024;
const LINE_FEED = 10;
const CRLF_BYTES = 2;
/** `MSG subject sid [reply] bytes` and, with headers, `HMSG subject sid [reply] headerBytes bytes`. */
const MESSAGE = /^H?MSG .* (\d{1,9})\r\n$/i;

/** As `connect` of the client for Node, with messages in one piece. */
export function connectNats(options: ConnectionOptions): Promise<NatsConnection> {
  setTransportFactory({
    factory: () => {
      const transport = new NodeTransport();
      const reads = { [Symbol.asyncIterator]: transport[Symbol.asyncIterator].bind(transport) };
      transport[Symbol.asyncIterator] = () => wholeMessages(reads);
      return transport;
    },
    dnsResolveFn: nodeResolveHost,
  });
  return NatsConnectionImpl.connect(options);
}

/** Yields the same bytes in pieces that each end where an operation of the NATS protocol ends. */
export async function* wholeMessages(reads: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  /** A message that isn't whole yet. */
  let message: Buffer | undefined;
  let filled = 0;
  /** The beginning of a line whose end has not come. */
  let line: Buffer = Buffer.alloc(0);
  /** No protocol that is understood here. */
  let foreign = false;
  for await (const read of reads) {
    if (foreign) {
      yield read;
      continue;
    }
    let data = Buffer.from(read.buffer, read.byteOffset, read.byteLength);
    if (message !== undefined) {
      const taken = data.copy(message, filled);
      filled += taken;
      if (filled < message.byteLength) continue;
      yield message;
      message = undefined;
      data = data.subarray(taken);
    }
    if (line.byteLength > 0) data = Buffer.concat([line, data]);
    let end = 0;
    for (let next = operationEnd(data, 0); next !== undefined; next = operationEnd(data, end)) {
      if (next - end > MAX_MESSAGE_BYTES) {
        foreign = true;
        break;
      }
      if (next > data.byteLength) {
        message = Buffer.allocUnsafeSlow(next - end);
        filled = data.copy(message, 0, end);
        break;
      }
      end = next;
    }
    line = message === undefined ? data.subarray(end) : data.subarray(data.byteLength);
    foreign ||= line.byteLength > MAX_LINE_BYTES;
    const ready = foreign ? data : data.subarray(0, end);
    if (ready.byteLength > 0) yield ready;
  }
}

/** Where the operation that begins at `start` ends, perhaps beyond `data`; undefined when its first line isn't there. */
function operationEnd(data: Buffer, start: number): number | undefined {
  const lineEnd = data.indexOf(LINE_FEED, start) + 1;
  if (lineEnd === 0) return undefined;
  const payload = MESSAGE.exec(data.toString('latin1', start, lineEnd))?.[1];
  return payload === undefined ? lineEnd : lineEnd + Number(payload) + CRLF_BYTES;
}
