/**
 * The methods on tensors (`x.flatten()`, `x.add(y)`). The union package of TensorFlow.js installs them; core alone
 * doesn't, but layers calls some (an orthogonal initializer ends in `flatten`). Importing this file installs them.
 */
import * as core from '@tensorflow/tfjs-core';

type Method = (this: core.Tensor, ...args: unknown[]) => unknown;
type Operation = (x: core.Tensor, ...args: unknown[]) => unknown;

/** Operations of core that take the tensor first and the method's arguments after it. */
const FORWARDED = (
  'abs acos acosh add all any argMax argMin asin asinh atan atan2 atanh avgPool batchToSpaceND batchNorm broadcastTo ' +
  'cast ceil clipByValue conv1d conv2d conv2dTranspose cos cosh cumprod cumsum depthToSpace depthwiseConv2d dilation2d ' +
  'div divNoNan dot elu equal erf euclideanNorm exp expandDims expm1 floor floorDiv gather greater greaterEqual ' +
  'isFinite isInf isNaN leakyRelu less lessEqual localResponseNormalization log log1p logSigmoid logSoftmax logSumExp ' +
  'logicalAnd logicalNot logicalOr logicalXor matMul max maxPool maximum mean min minimum mirrorPad mod mul neg norm ' +
  'notEqual oneHot onesLike pad pool pow prelu prod reciprocal relu relu6 reshape reverse round rsqrt selu ' +
  'separableConv2d sigmoid sign sin sinh slice softmax softplus spaceToBatchND split sqrt square squaredDifference ' +
  'squeeze step stridedSlice sub sum tan tanh tile topk transpose unique unsortedSegmentSum unstack zerosLike'
).split(' ');

const SPECIAL: Readonly<Record<string, Method>> = {
  flatten() {
    return core.reshape(this, [this.size]);
  },
  as1D() {
    return core.reshape(this, [this.size]);
  },
  asScalar() {
    return core.reshape(this, []);
  },
  asType(dtype) {
    return core.cast(this, dtype as core.DataType);
  },
  toFloat() {
    return core.cast(this, 'float32');
  },
  toInt() {
    return core.cast(this, 'int32');
  },
  toBool() {
    return core.cast(this, 'bool');
  },
  reshapeAs(other) {
    return core.reshape(this, (other as core.Tensor).shape);
  },
  concat(others, axis) {
    return core.concat([this, ...[others as core.Tensor].flat()], axis as number);
  },
  stack(others, axis) {
    return core.stack([this, ...[others as core.Tensor].flat()], axis as number);
  },
  where(condition, otherwise) {
    return core.where(condition as core.Tensor, this, otherwise as core.Tensor);
  },
};

const operations = core as unknown as Readonly<Record<string, Operation>>;
const prototype = core.Tensor.prototype as unknown as Record<string, unknown>;
for (const name of FORWARDED) {
  const operation = operations[name];
  if (operation === undefined)
    throw new TypeError(`tfjs-core ${core.version_core} has no operation "${name}"`);
  prototype[name] ??= function (this: core.Tensor, ...args: unknown[]) {
    return operation(this, ...args);
  } satisfies Method;
}
for (const [name, method] of Object.entries(SPECIAL)) prototype[name] ??= method;
