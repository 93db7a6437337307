/** The options of Keras's ImageDataGenerator in camelCase, with its defaults, and the rules that tie them together. */
import type { AugmentationPlan } from '@tributary/shared-protocol';
import type { DataFormat, ImageArray } from './pixels.ts';

/** A shift: a number or a list (see `ImageDataGeneratorOptions.widthShiftRange`), or a plain uniform range. */
export type ShiftRange = number | readonly number[] | { uniform: number };

type Plan = Omit<AugmentationPlan, 'path' | 'widthShiftRange' | 'heightShiftRange' | 'interpolationOrder'>;

/** All optional; the defaults are Keras's. */
export interface ImageDataGeneratorOptions extends Partial<Plan> {
  /**
   * A fraction below 1 is of the image's width; a whole number r >= 1 draws from -r+1 … r-1 pixels; another number is
   * a uniform range in pixels; a list is chosen from, with a random sign. `{ uniform: 2 }` is Python's float 2.0.
   * @default 0
   */
  widthShiftRange?: ShiftRange;
  /** As the width's, of the height. Note that in `keras3` it moves columns (see matrix.ts). @default 0 */
  heightShiftRange?: ShiftRange;
  /** 0 nearest, 1 bilinear. Keras's 2 to 5, prefiltered splines, are refused. @default 1 */
  interpolationOrder?: number;
  /** Applied to each image before rescale; returns an image of the same shape, which may be the same object. */
  preprocessingFunction?: ((image: ImageArray) => ImageArray) | null;
  /** @default 'channels_last' */
  dataFormat?: DataFormat;
  /** Share held out for `subset: 'validation'`, in [0, 1). @default 0 */
  validationSplit?: number;
  /** Of images and labels that come out. @default 'float32' */
  dtype?: 'float32' | 'float64';
}

export interface ResolvedOptions extends Plan {
  widthShiftRange: ShiftRange;
  heightShiftRange: ShiftRange;
  interpolationOrder: 0 | 1;
  preprocessingFunction: ((image: ImageArray) => ImageArray) | null;
  dataFormat: DataFormat;
  validationSplit: number;
  dtype: 'float32' | 'float64';
  /** zoomRange as [low, high]. */
  zoom: readonly [number, number];
}

/**
 * Returns the options with defaults, and with what one forces on another: ZCA turns featurewise centring on and
 * featurewise scaling off, featurewise scaling turns centring on, and samplewise scaling likewise.
 * @throws RangeError for a value that Keras refuses, or an interpolation order above 1
 */
export function resolveOptions(options: ImageDataGeneratorOptions = {}): ResolvedOptions {
  const given = Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as ImageDataGeneratorOptions;
  const resolved = {
    variant: 'keras3',
    featurewiseCenter: false,
    samplewiseCenter: false,
    featurewiseStdNormalization: false,
    samplewiseStdNormalization: false,
    zcaWhitening: false,
    zcaEpsilon: 1e-6,
    rotationRange: 0,
    widthShiftRange: 0,
    heightShiftRange: 0,
    brightnessRange: null,
    shearRange: 0,
    zoomRange: 0,
    channelShiftRange: 0,
    fillMode: 'nearest',
    cval: 0,
    horizontalFlip: false,
    verticalFlip: false,
    rescale: null,
    preprocessingFunction: null,
    dataFormat: 'channels_last',
    validationSplit: 0,
    interpolationOrder: 1,
    dtype: 'float32',
    zoom: [1, 1],
    ...given,
  } as ResolvedOptions;
  resolved.interpolationOrder = checkOrder(options.interpolationOrder ?? 1);
  if (!['nearest', 'constant', 'reflect', 'wrap'].includes(resolved.fillMode)) {
    throw new RangeError(`fillMode must be nearest, constant, reflect or wrap; got '${resolved.fillMode}'`);
  }
  if (!['channels_last', 'channels_first'].includes(resolved.dataFormat)) {
    throw new RangeError(`dataFormat must be channels_last or channels_first; got '${resolved.dataFormat}'`);
  }
  const split = resolved.validationSplit;
  if (!(split >= 0 && split < 1)) throw new RangeError(`validationSplit must be in [0, 1); got ${split}`);
  const zoom = resolved.zoomRange;
  resolved.zoom = typeof zoom === 'number' ? [1 - zoom, 1 + zoom] : pair(zoom, 'zoomRange');
  if (resolved.brightnessRange) resolved.brightnessRange = pair(resolved.brightnessRange, 'brightnessRange');

  if (resolved.zcaWhitening) {
    resolved.featurewiseCenter = true;
    resolved.featurewiseStdNormalization = false;
  }
  if (resolved.featurewiseStdNormalization) resolved.featurewiseCenter = true;
  if (resolved.samplewiseStdNormalization) resolved.samplewiseCenter = true;
  return resolved;
}

/** Returns the order when it is one we compute. @throws RangeError otherwise */
function checkOrder(order: number): 0 | 1 {
  if (order === 0 || order === 1) return order;
  throw new RangeError(
    `interpolationOrder ${order} is not supported: use 0 (nearest) or 1 (bilinear). Orders 2 to 5 are splines that ` +
      'need a prefilter over the whole image.',
  );
}

function pair(range: readonly number[], name: string): [number, number] {
  const [low, high] = range;
  if (range.length !== 2 || typeof low !== 'number' || typeof high !== 'number') {
    throw new RangeError(`${name} must be two numbers [low, high]; got [${range.join(', ')}]`);
  }
  return [low, high];
}
