/** Featurewise statistics of a site's own training images, gathered image by image. */
import type { ResolvedOptions } from '../images/options.ts';
import { channelLayout, normalize, rescale } from '../images/standardize.ts';
import { ChannelMoments, type Statistics } from '../images/statistics.ts';
import { checkZcaFeatures, zcaMatrix } from '../images/zca.ts';
import type { Example } from './layout.ts';

/**
 * Returns what the options ask for: nothing, or means and deviations of the rescaled images, and the ZCA matrix.
 * Each image is loaded once. ZCA holds all images as floats in memory for a moment.
 * @throws WorkerError FED_DATA_ZCA_TOO_LARGE
 */
export async function fitStatistics(
  options: ResolvedOptions,
  shape: readonly [number, number, number],
  examples: readonly Example[],
  load: (file: string) => Promise<Uint8Array>,
  signal?: AbortSignal,
): Promise<Statistics> {
  if (!options.featurewiseCenter) return {};
  const length = shape[0] * shape[1] * shape[2];
  if (options.zcaWhitening) checkZcaFeatures(length);
  const layout = channelLayout(shape, options);
  const moments = new ChannelMoments(layout);
  const all = options.zcaWhitening ? new Float32Array(examples.length * length) : undefined;
  for (const [i, { file }] of examples.entries()) {
    signal?.throwIfAborted();
    const image = Float32Array.from(await load(file));
    rescale(image, options.rescale);
    moments.add(image);
    all?.set(image, i * length);
  }
  const statistics: Statistics = { mean: moments.mean(options.dtype) };
  if (options.featurewiseStdNormalization) statistics.std = moments.std();
  if (all) {
    normalize(all, layout, moments.mean(options.dtype));
    statistics.zcaMatrix = zcaMatrix(all, length, options.zcaEpsilon);
  }
  return statistics;
}
