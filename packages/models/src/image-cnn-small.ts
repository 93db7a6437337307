/**
 * A network for small images, such as digits of 28x28: two convolutions with stride 2 and one hidden layer. A step on
 * a batch of 32 takes a few milliseconds on one processor core.
 */
import { tf } from '@tributary/engine';
import type { BuildOptions } from './build-model.ts';
import { initializers, outputLayer } from './layers.ts';

export const IMAGE_CNN_SMALL_MIN_PIXELS = 8;

export function imageCnnSmall({ input, numClasses, seed }: BuildOptions): tf.LayersModel {
  const next = initializers(seed);
  const convolution = (name: string, filters: number, kernelSize: number) =>
    ({
      name,
      filters,
      kernelSize,
      strides: 2,
      padding: 'same',
      activation: 'relu',
      kernelInitializer: next(),
    }) as const;
  return tf.sequential({
    name: 'image-cnn-small',
    layers: [
      tf.layers.conv2d({
        ...convolution('conv1', 16, 5),
        inputShape: [input.height, input.width, input.channels],
      }),
      tf.layers.conv2d(convolution('conv2', 32, 3)),
      tf.layers.flatten({ name: 'flatten' }),
      tf.layers.dense({ name: 'hidden', units: 64, activation: 'relu', kernelInitializer: next() }),
      outputLayer(numClasses, next()),
    ],
  });
}
