/**
 * Kernels that work element by element. Most are a row: the ONNX operator and the types for which it means the same as
 * TensorFlow.js; what a row doesn't accept runs in JavaScript. The rest are formulas.
 */
import type { DataType, LeakyReluAttrs, StepAttrs } from '@tensorflow/tfjs-core';
import { type ElementType, emit, number, uniform, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { addBias } from './bias.ts';
import { eachPiece, piecesOf } from './image-pieces.ts';
import {
  accept,
  type Binary,
  FLOAT,
  type KernelTable,
  type Lowering,
  NUMERIC,
  refuse,
  type Unary,
} from './kernel.ts';
import { masked, step } from './mask.ts';
import { keepingZeroRow } from './zero-row.ts';

const BOOL: readonly ElementType[] = ['bool'];

// --- One tensor ---

function unary(
  op: string,
  types: readonly ElementType[] = FLOAT,
  attributes?: Parameters<typeof emit>[4],
): Lowering {
  return ({ x }: Unary) => {
    accept(types, x);
    return o.unary(op, x, attributes);
  };
}

/** `formula` on a float32 tensor. */
function float(formula: (x: Value) => Value): Lowering {
  return ({ x }: Unary) => {
    accept(FLOAT, x);
    return formula(x);
  };
}

const SELU_SCALE = 1.0507009873554805;
const SELU_ALPHA = 1.6732632423543772;

const unaryKernels: KernelTable = {
  Abs: unary('Abs', NUMERIC),
  Acos: unary('Acos'),
  Acosh: unary('Acosh'),
  Asin: unary('Asin'),
  Asinh: unary('Asinh'),
  Atan: unary('Atan'),
  Atanh: unary('Atanh'),
  Ceil: unary('Ceil'),
  Cos: unary('Cos'),
  Cosh: unary('Cosh'),
  Elu: unary('Elu'),
  Erf: unary('Erf'),
  Exp: unary('Exp'),
  Floor: unary('Floor'),
  Log: unary('Log'),
  Neg: unary('Neg', NUMERIC),
  Reciprocal: unary('Reciprocal'),
  Relu: float(relu),
  Round: unary('Round'),
  Selu: unary('Selu', FLOAT, { alpha: { float: SELU_ALPHA }, gamma: { float: SELU_SCALE } }),
  Sigmoid: unary('Sigmoid'),
  Sin: unary('Sin'),
  Sinh: unary('Sinh'),
  Softplus: unary('Softplus'),
  Sqrt: unary('Sqrt'),
  Tan: unary('Tan'),
  Tanh: unary('Tanh'),
  LogicalNot: unary('Not', BOOL),

  /** e^x − 1 and log(1 + x) in double precision: near 0 they would lose their digits. */
  Expm1: float((x) => o.cast(o.sub(o.unary('Exp', o.cast(x, 'float64')), 1), 'float32')),
  Log1p: float((x) => o.cast(o.unary('Log', o.add(o.cast(x, 'float64'), 1)), 'float32')),
  Relu6: float((x) => emit('Clip', [x, number(0), number(6)], x.shape, x.dtype)),
  Rsqrt: float((x) => o.unary('Reciprocal', o.unary('Sqrt', x))),
  /** 0 for NaN. */
  Sign: ({ x }: Unary) => {
    accept(NUMERIC, x);
    const sign = o.unary('Sign', x);
    return x.dtype === 'int32' ? sign : o.where(o.unary('IsNaN', x, undefined, 'bool'), 0, sign);
  },
  Square: ({ x }: Unary) => {
    accept(NUMERIC, x);
    return o.mul(x, x);
  },
  IsNan: float((x) => o.unary('IsNaN', x, undefined, 'bool')),
  IsInf: float((x) => o.unary('IsInf', x, undefined, 'bool')),
  IsFinite: float((x) => o.less(o.unary('Abs', x), Number.POSITIVE_INFINITY)),

  LeakyRelu: ({ x }: Unary, { alpha }: LeakyReluAttrs) => {
    accept(FLOAT, x);
    return o.unary('LeakyRelu', x, { alpha: { float: alpha } });
  },
  Prelu: ({ x, alpha }: { x: Value; alpha: Value }) => {
    accept(FLOAT, x, alpha);
    return o.where(o.less(x, 0), o.mul(alpha, x), x);
  },
  EluGrad: ({ dy, y }: { dy: Value; y: Value }) => {
    accept(FLOAT, dy, y);
    return o.where(o.less(y, 0), o.mul(dy, o.add(y, 1)), dy);
  },
  Step: ({ x }: Unary, { alpha }: StepAttrs) => {
    accept(FLOAT, x);
    return alpha === 0
      ? step(x)
      : o.where(o.greater(x, 0), 1, o.where(o.unary('IsNaN', x, undefined, 'bool'), x, alpha));
  },
  ClipByValue: (
    { x }: Unary,
    { clipValueMin, clipValueMax }: { clipValueMin: number; clipValueMax: number },
  ) => {
    accept(NUMERIC, x);
    const bounds = [clipValueMin, clipValueMax].map((bound) => uniform(bound, [], x.dtype));
    return emit('Clip', [x, ...bounds], x.shape, x.dtype);
  },
  Cast: ({ x }: Unary, { dtype }: { dtype: DataType }) => {
    if (dtype === 'string' || dtype === 'complex64') refuse(`${dtype} output`);
    return o.cast(x, dtype);
  },
};

/** Next to the matrix product, if x is the view of one, so that ONNX Runtime makes the two one operator. */
export function relu(x: Value): Value {
  const whole = o.unviewed(x);
  return o.reshape(
    whole.derive('relu', () => {
      const images = piecesOf(whole);
      const op = (x: Value) => o.unary('Relu', x);
      return images === undefined ? keepingZeroRow(whole, op) : eachPiece(images, op);
    }),
    x.shape,
  );
}

// --- Two tensors ---

function binary(op: string, types: readonly ElementType[] = NUMERIC): Lowering {
  return ({ a, b }: Binary) => {
    accept(types, a, b);
    return o.binary(op, a, b);
  };
}

/** Truth of a relation. Numbers and truth values compare alike. */
function relation(op: string, negated = false): Lowering {
  return ({ a, b }: Binary) => {
    const orderable = (x: Value) => (x.dtype === 'bool' && op !== 'Equal' ? o.cast(x, 'int32') : x);
    const truth = o.binary(op, orderable(a), orderable(b), 'bool');
    return negated ? o.not(truth) : truth;
  };
}

const binaryKernels: KernelTable = {
  Add: ({ a, b }: Binary) => {
    accept(NUMERIC, a, b);
    return addBias(a, b) ?? addBias(b, a) ?? o.add(a, b);
  },
  Sub: binary('Sub'),
  Multiply: ({ a, b }: Binary) => {
    accept(NUMERIC, a, b);
    return masked(a, b) ?? masked(b, a) ?? o.mul(a, b);
  },
  RealDiv: binary('Div', FLOAT),
  Maximum: binary('Max'),
  Minimum: binary('Min'),
  Pow: binary('Pow', FLOAT),
  LogicalAnd: binary('And', BOOL),
  LogicalOr: binary('Or', BOOL),
  Equal: relation('Equal'),
  NotEqual: relation('Equal', true),
  Greater: relation('Greater'),
  GreaterEqual: relation('GreaterOrEqual'),
  Less: relation('Less'),
  LessEqual: relation('LessOrEqual'),

  SquaredDifference: ({ a, b }: Binary) => {
    accept(NUMERIC, a, b);
    const difference = o.sub(a, b);
    return o.mul(difference, difference);
  },
  /** In double precision, which holds every int32 and divides by 0 without a trap. */
  FloorDiv: ({ a, b }: Binary) => {
    accept(NUMERIC, a, b);
    const quotient = o.div(o.cast(a, 'float64'), o.cast(b, 'float64'));
    return o.cast(o.unary('Floor', quotient), 'int32');
  },
  /** The remainder that has the sign of the divisor. */
  Mod: ({ a, b }: Binary) => {
    accept(FLOAT, a, b);
    const fmod = (x: Value, y: Value) =>
      emit('Mod', [x, y], o.broadcastShape(x.shape, y.shape), x.dtype, { fmod: 1 });
    const remainder = fmod(a, b);
    const sameSign = o.equal(o.less(a, 0), o.less(b, 0));
    return o.where(sameSign, remainder, fmod(o.add(remainder, b), b));
  },
  Atan2: ({ a, b }: Binary) => {
    accept(FLOAT, a, b);
    const pi = Math.PI;
    const angle = o.unary('Atan', o.div(a, b));
    const turned = o.add(angle, o.where(o.less(a, 0), number(-pi), number(pi)));
    const upright = o.mul(o.unary('Sign', a), pi / 2);
    const inQuadrant = o.where(o.greater(b, 0), angle, turned);
    const nan = o.or(o.unary('IsNaN', a, undefined, 'bool'), o.unary('IsNaN', b, undefined, 'bool'));
    return o.where(nan, o.add(a, b), o.where(o.equal(b, 0), upright, inQuadrant));
  },
};

// --- Several tensors ---

const otherKernels: KernelTable = {
  AddN: (inputs: Readonly<Record<string, Value>>) => {
    const values = Object.values(inputs);
    accept(NUMERIC, ...values);
    return o.allOf('Add', values);
  },
  Select: ({ condition, t, e }: { condition: Value; t: Value; e: Value }) => {
    if (t.dtype !== e.dtype || condition.dtype !== 'bool') refuse('mixed types');
    const rows = condition.shape.length === 1 && t.shape.length > 1;
    const chosen = rows ? o.reshape(condition, [condition.size, ...t.shape.slice(1).fill(1)]) : condition;
    return o.where(chosen, t, e);
  },
};

export const elementwise: KernelTable = { ...unaryKernels, ...binaryKernels, ...otherKernels };
