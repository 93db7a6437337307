/** The transport that both our rounds and the raw yardstick run over. */
import { createCertificate, type Transport } from '@tributary/shared-protocol';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';

export async function createTransport(tls: boolean): Promise<Transport> {
  return createSocketioTransport({
    host: '127.0.0.1',
    port: 0,
    tls: tls ? await createCertificate(['127.0.0.1', 'localhost']) : false,
  });
}
