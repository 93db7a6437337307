/**
 * Rényi accounting: a curve of divergences over a list of orders, composed by adding, and what it is worth as an
 * (epsilon, delta). The conversion is the improved one (Canonne, Kamath and Steinke 2020, arXiv 2004.00010, proposition
 * 12), with Bretagnolle and Huber's inequality where the divergence is next to nothing.
 */
import { demand, demandDelta } from './parameters.ts';

/**
 * The orders that are tried unless others are given: the field's usual list, so that figures can be compared. More orders
 * would lower an epsilon by at most a tenth of a per cent; the loss distribution (`pld.ts`) lowers it by far more.
 */
export const RDP_ORDERS: readonly number[] = [
  ...Array.from({ length: 99 }, (_, i) => (11 + i) / 10),
  ...Array.from({ length: 53 }, (_, i) => 11 + i),
  128,
  256,
  512,
  1024,
];

/** Divergences in the places of the orders that they are for. */
export interface RdpCurve {
  readonly orders: readonly number[];
  readonly divergences: readonly number[];
}

export interface RdpEpsilon {
  /** 0 or more; Infinity when no order gives a bound. */
  readonly epsilon: number;
  /** The order that gave it. */
  readonly order: number;
  /** Whether that order is the first or last of the list: then another list may give less. Not so for an epsilon of 0. */
  readonly orderAtEnd: boolean;
}

/** Below this the conversion isn't used: it divides by order - 1. */
const LEAST_CONVERTED_ORDER = 1.01;

/** The curve of `divergence` over `orders`, times `steps`. */
export function rdpCurve(divergence: (order: number) => number, steps = 1, orders = RDP_ORDERS): RdpCurve {
  demand(orders.length > 0, 'orders', '[]', 'a list of numbers above 1');
  // 0 steps of no noise at all cost nothing, and 0 times Infinity isn't 0.
  const divergences = orders.map((order) => (steps === 0 ? 0 : steps * divergence(order)));
  return { orders, divergences };
}

/** What all the mechanisms cost together. All curves have the same orders. */
export function composeRdp(curves: readonly RdpCurve[]): RdpCurve {
  const orders = curves[0]?.orders ?? RDP_ORDERS;
  const other = curves.find((curve) => curve.orders.join() !== orders.join());
  if (other) throw new RangeError(`composeRdp: orders [${other.orders}] and [${orders}] differ`);
  return {
    orders,
    divergences: orders.map((_, i) => curves.reduce((sum, { divergences }) => sum + divergences[i]!, 0)),
  };
}

/** The least epsilon that a curve gives for `delta` from 0 to 1. For delta 0 it is Infinity, unless nothing was released. */
export function rdpEpsilon({ orders, divergences }: RdpCurve, delta: number): RdpEpsilon {
  demandDelta(delta);
  let best = { epsilon: Infinity, at: 0 };
  orders.forEach((order, at) => {
    const epsilon = epsilonAt(order, divergences[at]!, delta);
    if (epsilon < best.epsilon) best = { epsilon, at };
  });
  const atEnd = best.at === 0 || best.at === orders.length - 1;
  return {
    epsilon: best.epsilon,
    order: orders[best.at]!,
    orderAtEnd: atEnd && best.epsilon > 0 && best.epsilon < Infinity,
  };
}

/** The least delta that a curve gives for `epsilon` of 0 or more. */
export function rdpDelta({ orders, divergences }: RdpCurve, epsilon: number): number {
  demand(epsilon >= 0, 'epsilon', epsilon, '0 or more');
  if (epsilon === Infinity) return 0;
  return orders.reduce((least, order, at) => Math.min(least, deltaAt(order, divergences[at]!, epsilon)), 1);
}

function epsilonAt(order: number, divergence: number, delta: number): number {
  // The total variation is at most sqrt(1 - e^-divergence).
  if (divergence === 0 || delta * delta + Math.expm1(-divergence) >= 0) return 0;
  if (order <= LEAST_CONVERTED_ORDER || delta === 0) return Infinity;
  const epsilon = divergence + Math.log1p(-1 / order) - Math.log(delta * order) / (order - 1);
  return Math.max(0, epsilon);
}

function deltaAt(order: number, divergence: number, epsilon: number): number {
  const least = Math.sqrt(-Math.expm1(-divergence));
  if (order <= LEAST_CONVERTED_ORDER || divergence === Infinity) return least;
  const log = (order - 1) * (divergence - epsilon + Math.log1p(-1 / order)) - Math.log(order);
  return Math.min(least, Math.exp(log));
}
