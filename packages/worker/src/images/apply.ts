/**
 * A drawn transform applied to pixels, and the standardisation after it. Where nothing but the affine part, the flips
 * and the rescale is asked for, which is the usual recipe, all of them happen in one pass over the pixels, with the same
 * roundings as one after another.
 */
import { type Finish, PLAIN, resample } from './affine.ts';
import { flipHorizontal, flipVertical, scaleBrightness, shiftChannels } from './colour.ts';
import { resampleFast } from './fast-affine.ts';
import { type Affine, affineMatrix } from './matrix.ts';
import type { ResolvedOptions } from './options.ts';
import { type Floats, type ImageArray, type Pixels, sizeOf } from './pixels.ts';
import type { RandomTransform } from './random-transform.ts';
import { standardizeInPlace } from './standardize.ts';
import type { Statistics } from './statistics.ts';

const STILL: Affine = [1, 0, 0, 1, 0, 0];

/** Affine part, channel shift, flips, brightness, into `target`, which shares no memory with the image. */
export function transformInto(
  options: ResolvedOptions,
  image: ImageArray<Pixels>,
  params: RandomTransform,
  target: Floats,
): void {
  const { dataFormat, variant } = options;
  const size = sizeOf(image.shape, dataFormat);
  const affine = affineMatrix(params, size.height, size.width, variant);
  if (!affine) target.set(image.data);
  else move(options, image, affine, target, PLAIN);
  if (params.channelShiftIntensity !== null) shiftChannels(target, params.channelShiftIntensity);
  if (params.flipHorizontal) flipHorizontal(target, size, dataFormat);
  if (params.flipVertical) flipVertical(target, size, dataFormat);
  if (params.brightness !== null) scaleBrightness(target, params.brightness, size, dataFormat, variant);
}

/**
 * What a batch holds of the image: transformed (unless `params` is absent) and standardised, into `target`. The
 * statistics must hold what the options ask for.
 */
export function prepareInto(
  options: ResolvedOptions,
  statistics: Statistics,
  image: ImageArray<Pixels>,
  params: RandomTransform | undefined,
  target: Floats,
): void {
  if (params && isOnePass(options, params)) {
    const { height, width } = sizeOf(image.shape, options.dataFormat);
    const { flipHorizontal, flipVertical } = params;
    const affine = affineMatrix(params, height, width, options.variant);
    if (affine || flipHorizontal || flipVertical) {
      const finish = { flipHorizontal, flipVertical, scale: options.rescale || 1 };
      move(options, image, affine ?? STILL, target, finish);
      return;
    }
  }
  if (params) transformInto(options, image, params, target);
  else target.set(image.data);
  standardizeInPlace({ data: target, shape: image.shape }, options, statistics);
}

function isOnePass(options: ResolvedOptions, params: RandomTransform): boolean {
  return (
    params.channelShiftIntensity === null &&
    params.brightness === null &&
    !options.preprocessingFunction &&
    !options.samplewiseCenter &&
    !options.featurewiseCenter &&
    !options.zcaWhitening
  );
}

function move(
  options: ResolvedOptions,
  image: ImageArray<Pixels>,
  affine: Affine,
  target: Floats,
  finish: Finish,
): void {
  const { dataFormat, fillMode, cval, interpolationOrder: order } = options;
  const size = sizeOf(image.shape, dataFormat);
  const sampling = { fillMode, cval, order };
  if (dataFormat === 'channels_last') {
    if (!resampleFast(image.data, target, size, affine, sampling, finish)) {
      resample(image.data, target, size, affine, sampling, finish);
    }
    return;
  }
  const plane = size.height * size.width;
  for (let at = 0; at < target.length; at += plane) {
    const from = image.data.subarray(at, at + plane);
    resample(from, target.subarray(at, at + plane), { ...size, channels: 1 }, affine, sampling, finish);
  }
}
