/** The last steps of the pipeline, in place: preprocessing, rescale, samplewise, featurewise, ZCA, in that order. */
import type { ResolvedOptions } from './options.ts';
import { checkLength, type Floats, type ImageArray, sizeOf } from './pixels.ts';
import { type ChannelLayout, type Statistics, whiten } from './statistics.ts';

/** Keras's guard against a deviation of 0. */
export const STD_EPSILON = 1e-6;

/** Standardises `image.data` in place. `statistics` must hold what the options ask for (see `missingStatistics`). */
export function standardizeInPlace(
  image: ImageArray,
  options: ResolvedOptions,
  statistics: Statistics,
): void {
  const { data, shape } = image;
  if (options.preprocessingFunction) {
    const out = options.preprocessingFunction(image);
    checkLength(out.data, shape, 'preprocessingFunction');
    if (out.data !== data) data.set(out.data);
  }
  rescale(data, options.rescale);
  if (options.samplewiseCenter) {
    const { mean, std } = moments(data);
    const gain = options.samplewiseStdNormalization ? 1 / (std + STD_EPSILON) : 1;
    for (let i = 0; i < data.length; i++) data[i] = (data[i]! - mean) * gain;
  }
  if (options.featurewiseCenter && statistics.mean) {
    const layout = channelLayout(shape, options);
    normalize(
      data,
      layout,
      statistics.mean,
      options.featurewiseStdNormalization ? statistics.std : undefined,
    );
  }
  if (options.zcaWhitening && statistics.zcaMatrix) data.set(whiten(data, statistics.zcaMatrix));
}

/** Multiplies by `factor`; null and 0 do nothing, as in Keras. */
export function rescale(data: Floats, factor: number | null): void {
  if (!factor || factor === 1) return;
  const k = data instanceof Float32Array ? Math.fround(factor) : factor;
  for (let i = 0; i < data.length; i++) data[i] = data[i]! * k;
}

/** Subtracts a channel's mean, and divides by its std + 1e-6 if given. In place. */
export function normalize(data: Floats, layout: ChannelLayout, mean: Float64Array, std?: Float64Array): void {
  const { channels, stride } = layout;
  const block = channels * stride;
  for (let start = 0; start < data.length; start += block) {
    for (let c = 0; c < channels; c++) {
      const shift = mean[c]!;
      const gain = std ? 1 / (std[c]! + STD_EPSILON) : 1;
      const from = start + c * stride;
      for (let i = from; i < from + stride; i++) data[i] = (data[i]! - shift) * gain;
    }
  }
}

/** Names of the fitted numbers that the options need and `statistics` lacks. */
export function missingStatistics(options: ResolvedOptions, statistics: Statistics): string[] {
  const missing: string[] = [];
  if (options.featurewiseCenter && !statistics.mean) missing.push('mean');
  if (options.featurewiseStdNormalization && !statistics.std) missing.push('std');
  if (options.zcaWhitening && !statistics.zcaMatrix) missing.push('zcaMatrix');
  return missing;
}

export function channelLayout(
  shape: readonly [number, number, number],
  options: Pick<ResolvedOptions, 'dataFormat'>,
): ChannelLayout {
  const { height, width, channels } = sizeOf(shape, options.dataFormat);
  return { channels, stride: options.dataFormat === 'channels_last' ? 1 : height * width };
}

function moments(data: Floats): { mean: number; std: number } {
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum += data[i]!;
  const mean = sum / data.length;
  let squares = 0;
  for (let i = 0; i < data.length; i++) squares += (data[i]! - mean) ** 2;
  return { mean, std: Math.sqrt(squares / data.length) };
}
