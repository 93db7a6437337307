import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { testTransport } from '@tributary/testkit/transport';

testTransport({ name: 'memory', create: () => createMemoryTransport(), sharesMemory: true });
