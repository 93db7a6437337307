import { describe, expect, test } from 'vitest';
import { withRoom } from '../../src/agent/room.ts';

const full = () => Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });

describe('work that meets a full disk', () => {
  test('ends with FED_WORKER_STORAGE when there is no room for too long', async () => {
    const options = { what: 'the model', onLog: () => undefined, retryMs: 1, patienceMs: 20 };
    await expect(withRoom(() => Promise.reject(full()), options)).rejects.toMatchObject({
      code: 'FED_WORKER_STORAGE',
      message: expect.stringContaining('no room on this disk for the model'),
    });
  });

  test('stops waiting when it is no longer wanted, with the reason', async () => {
    const controller = new AbortController();
    const reason = new Error('another plan came');
    const work = withRoom(() => Promise.reject(full()), {
      what: 'the model',
      onLog: () => controller.abort(reason),
      signal: controller.signal,
    });
    await expect(work).rejects.toBe(reason);
  });

  test('is not tried again for any other error', async () => {
    const other = Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' });
    let tries = 0;
    const work = () => {
      tries++;
      return Promise.reject(other);
    };
    await expect(withRoom(work, { what: 'the model', onLog: () => undefined })).rejects.toBe(other);
    expect(tries).toBe(1);
  });
});
