/** Small federations for the tests: a model of five parameters, sites that add a known number to each. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunEvent, Transport } from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { type ScriptedWorker, type ScriptedWorkerOptions, startScriptedWorker } from '@tributary/testkit';
import { onTestFinished } from 'vitest';
import { artifact, baseConfig } from './scripts.ts';

export { adds, artifact, baseConfig, tensor } from './scripts.ts';

import {
  type Coordinator,
  type CoordinatorOptions,
  createCoordinator,
  type FederationConfig,
  type LogRecord,
  type ModelArtifact,
  resolveFederation,
  runPaths,
} from '../src/index.ts';

export function temporaryDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'coordinator-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

export interface TestRun {
  readonly coordinator: Coordinator;
  readonly events: RunEvent[];
  readonly transport: Transport;
  readonly runDir: string;
  /** Resolves with the first event, past or to come, that fits. */
  event<T extends RunEvent['type']>(
    type: T,
    fits?: (event: Extract<RunEvent, { type: T }>) => boolean,
  ): Promise<Extract<RunEvent, { type: T }>>;
  join(name: string, options?: Partial<ScriptedWorkerOptions>): Promise<ScriptedWorker>;
}

/** What the run's log says so far. */
export function records(run: TestRun): LogRecord[] {
  return readFileSync(runPaths(run.runDir).log, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as LogRecord);
}

export async function startRun(
  config: Partial<FederationConfig> = {},
  options: Partial<CoordinatorOptions> & { readonly model?: ModelArtifact } = {},
): Promise<TestRun> {
  const { model = artifact, ...rest } = options;
  const transport = rest.transport ?? createMemoryTransport();
  const runDir = rest.runDir ?? temporaryDir();
  const events: RunEvent[] = [];
  const listeners = new Set<() => void>();
  const coordinator = await createCoordinator({
    federation: resolveFederation({ ...baseConfig, ...config }, model),
    artifact: model,
    ...rest,
    transport,
    runDir,
    onEvent(event) {
      events.push(event);
      rest.onEvent?.(event);
      for (const listener of [...listeners]) listener();
    },
  });
  onTestFinished(() => coordinator.close());
  return {
    coordinator,
    events,
    transport,
    runDir,
    event<T extends RunEvent['type']>(
      type: T,
      fits: (event: Extract<RunEvent, { type: T }>) => boolean = () => true,
    ) {
      return new Promise<Extract<RunEvent, { type: T }>>((resolve) => {
        const look = () => {
          const found = events.find(
            (e): e is Extract<RunEvent, { type: T }> =>
              e.type === type && fits(e as Extract<RunEvent, { type: T }>),
          );
          if (!found) return;
          listeners.delete(look);
          resolve(found);
        };
        listeners.add(look);
        look();
      });
    },
    join: (name, more = {}) =>
      startScriptedWorker({
        transport,
        name,
        ...(more.credential === undefined && more.invite === undefined
          ? { invite: coordinator.invite() }
          : { url: coordinator.url }),
        ...more,
      }),
  };
}
