/**
 * The seed network: two pairs of 3x3 convolutions, the second of each with stride 2, each pair followed by pooling,
 * then one hidden layer. Made for 224x224 photographs; any size from 16 pixels on works.
 */
import { tf } from '@tributary/engine';
import type { BuildOptions } from './build-model.ts';
import { initializers, outputLayer } from './layers.ts';

/** Side of the smallest image of which something is left after four halvings. */
export const IMAGE_CNN_MIN_PIXELS = 16;

export function imageCnn({ input, numClasses, seed }: BuildOptions): tf.LayersModel {
  const next = initializers(seed);
  const convolution = (name: string, filters: number, strides: number) =>
    ({
      name,
      filters,
      strides,
      kernelSize: 3,
      padding: 'same',
      activation: 'relu',
      kernelInitializer: next(),
    }) as const;
  return tf.sequential({
    name: 'image-cnn',
    layers: [
      tf.layers.conv2d({
        ...convolution('conv1', 64, 1),
        inputShape: [input.height, input.width, input.channels],
      }),
      tf.layers.conv2d(convolution('conv2', 64, 2)),
      tf.layers.maxPooling2d({ name: 'pool1', poolSize: 2 }),
      tf.layers.conv2d(convolution('conv3', 128, 1)),
      tf.layers.conv2d(convolution('conv4', 128, 2)),
      tf.layers.maxPooling2d({ name: 'pool2', poolSize: 2 }),
      tf.layers.flatten({ name: 'flatten' }),
      tf.layers.dense({ name: 'hidden', units: 256, activation: 'relu', kernelInitializer: next() }),
      outputLayer(numClasses, next()),
    ],
  });
}
