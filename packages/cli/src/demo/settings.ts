/** What the demo trains: its sites, its data folder and its federation, written as the files that a lead would write. */
import type { FederationConfig } from '@tributary/coordinator';

const SITE_NAMES = ['north', 'harbour', 'hill', 'island', 'valley', 'lake', 'forest', 'meadow'] as const;

export const DIGIT_CLASSES: readonly string[] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];

export const PRIVATE_DELTA = 1e-5;

/** The first `count` of the demo's site names, at most 8. */
export function siteNames(count: number): string[] {
  return SITE_NAMES.slice(0, count);
}

/** The demo's federation, for `tributary.config.json` in the demo folder: paths are relative to it. */
export function demoFederation(options: {
  rounds: number;
  sites: number;
  seed: number;
  dataDir: string;
  /** The most that each site may spend of its digits' privacy, at PRIVATE_DELTA. @default without privacy */
  epsilon?: number | undefined;
  /** A NATS server to listen at. @default a port of the coordinator's own */
  nats?: NonNullable<NonNullable<FederationConfig['server']>['nats']> | undefined;
}): FederationConfig {
  const { rounds, sites, seed, dataDir, epsilon, nats } = options;
  return {
    name: 'digits',
    seed,
    model: 'image-cnn-small',
    input: { height: 28, width: 28, channels: 1 },
    classes: [...DIGIT_CLASSES],
    ...(epsilon === undefined ? plainTraining(rounds) : privateTraining(rounds, epsilon)),
    rounds,
    cohort: { size: 'all', quorum: sites },
    deadlines: { roundSeconds: 600, quorumSeconds: 120, heartbeatSeconds: 1, rejoinSeconds: 30 },
    evaluation: { testDir: `${dataDir}/test` },
    best: { metric: 'accuracy', mode: 'max' },
    server: { host: '127.0.0.1', port: 0, ...(nats === undefined ? {} : { nats }) },
  };
}

const augmentation = {
  rescale: 1 / 255,
  rotationRange: 8,
  widthShiftRange: 0.06,
  heightShiftRange: 0.06,
  zoomRange: 0.08,
};

function plainTraining(rounds: number): Pick<FederationConfig, 'augmentation' | 'training'> {
  return {
    augmentation,
    training: {
      optimizer: { name: 'adam', learningRate: 2e-3 },
      batchSize: 32,
      epochs: 1,
      learningRateSchedule: { kind: 'cosine', totalRounds: rounds, minFactor: 0.1 },
    },
  };
}

/**
 * Under noise, few large steps go further than many small ones, and plain descent further than Adam, which follows the
 * noise. Twelve rounds of it cost 7.9 of the usual budget of 8.
 */
function privateTraining(
  rounds: number,
  epsilon: number,
): Pick<FederationConfig, 'augmentation' | 'training' | 'privacy'> {
  return {
    augmentation: { ...augmentation, samplewiseCenter: true, samplewiseStdNormalization: true },
    training: {
      optimizer: { name: 'sgd', learningRate: 2 },
      batchSize: 256,
      epochs: 3,
      learningRateSchedule: { kind: 'cosine', totalRounds: rounds, minFactor: 0.1 },
    },
    privacy: {
      secureAggregation: true,
      differentialPrivacy: { unit: 'record', clippingNorm: 1, noiseMultiplier: 1.4 },
      budget: { epsilon, delta: PRIVATE_DELTA },
    },
  };
}
