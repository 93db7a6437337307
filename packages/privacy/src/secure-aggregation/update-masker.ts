/**
 * An update on its way out, piece by piece: encoded as whole numbers, masked, and packed. Nothing of it is kept but up to
 * 64 KiB of values that wait for their piece to be full, so an update may be larger than memory. As a piece has a multiple
 * of 8 values, its packed bytes are whole.
 */
import { encodeFraction, encodePiece, type RandomFill } from './fixed-point.ts';
import { PIECE_WORDS, packPiece, pieceValues, pieceWords } from './kernel.ts';
import { type Mask, openMasks } from './masks.ts';
import { packedBytes } from './packing.ts';
import type { SecaggPlan } from './plan.ts';

/**
 * Takes an update in pieces of any length and gives its masked, packed bytes; made by `SecaggSite.beginMask`. The caller
 * may wait between calls as long as it likes. All that it returns, in order, is the `packed` of a `MaskedMessage`. An
 * error of any method ends the site's part in the round, with all secrets erased; after that, and after `finish` or
 * `abort`, `write` and `finish` throw PrivacyError FED_PRIVACY_SECAGG_STAGE.
 */
export interface UpdateMasker {
  /**
   * Takes the next values, which are read and not kept, and returns the packed bytes that are ready: those of full pieces
   * of 16,384 values, so often none. They are a view of memory that the next call writes over. Throws RangeError for more
   * values than the plan says; the call that fills a piece, or `finish`, throws PrivacyError FED_PRIVACY_SECAGG_UPDATE when a
   * value in it is not finite.
   */
  write(values: Float32Array): Uint8Array;
  /**
   * Returns the last of the packed bytes, at most 64 KiB, and the part of the values that was clipped. The masks are erased.
   * Throws RangeError for fewer values than the plan says.
   */
  finish(): { readonly packed: Uint8Array; readonly clippedFraction: number };
  /** Ends the site's part in the round, as `SecaggSite.abort` does; nothing after `finish`. */
  abort(): void;
}

/** What an `UpdateMasker` does, without the stages of its site. */
export interface MaskedPacker extends Omit<UpdateMasker, 'abort'> {
  /** Erases what is left of values and masks. Any number of times. */
  end(): void;
}

/**
 * Returns a packer of one update of `weight` under these masks, whose keys are copied and may be erased then. After an
 * error only `end` may be called.
 */
export function createMaskedPacker(
  plan: SecaggPlan,
  masks: readonly Mask[],
  weight: number,
  random: RandomFill,
): MaskedPacker {
  const { parameters, fixedPoint } = plan;
  const { bits } = fixedPoint;
  const stream = openMasks(masks);
  /** Values whose piece is not full yet. */
  const waiting = new Float32Array(Math.min(PIECE_WORDS, parameters));
  let waits = 0;
  let written = 0;
  let clipped = 0;
  let packed = new Uint8Array(0);

  /** Makes room for the bytes of this many words. */
  const reserve = (words: number): void => {
    const bytes = packedBytes(words, bits);
    if (packed.length < bytes) packed = new Uint8Array(bytes);
  };
  const encode = (values: Float32Array): void => {
    pieceValues.set(values);
    clipped += encodePiece(values.length, weight, fixedPoint, random);
  };
  /** Masks the piece's words and writes them to `packed`, from `at`; returns where their bytes end. */
  const flush = (count: number, at: number): number => {
    stream.apply(count);
    const bytes = packPiece(count, bits);
    packed.set(bytes, at);
    return at + bytes.length;
  };
  return {
    write(values) {
      if (written + values.length > parameters)
        throw new RangeError(
          `an update of ${written + values.length} values or more, where the plan says ${parameters}`,
        );
      written += values.length;
      reserve(waits + values.length);
      let end = 0;
      for (let start = 0; start < values.length; ) {
        const part = values.subarray(start, start + PIECE_WORDS - waits);
        start += part.length;
        if (part.length < PIECE_WORDS) {
          waiting.set(part, waits);
          waits += part.length;
          if (waits < PIECE_WORDS) break;
          waits = 0;
          encode(waiting);
        } else encode(part);
        end = flush(PIECE_WORDS, end);
      }
      return packed.subarray(0, end);
    },
    finish() {
      if (written !== parameters)
        throw new RangeError(`an update of ${written} values, where the plan says ${parameters}`);
      reserve(waits + 2);
      encode(waiting.subarray(0, waits));
      const clippedFraction = clipped / parameters;
      let filled = waits;
      let end = 0;
      for (const word of [weight, encodeFraction(clippedFraction, fixedPoint)]) {
        pieceWords[filled++] = word;
        if (filled < PIECE_WORDS) continue;
        end = flush(filled, end);
        filled = 0;
      }
      if (filled > 0) end = flush(filled, end);
      return { packed: packed.subarray(0, end), clippedFraction };
    },
    end() {
      stream.end();
      waiting.fill(0);
    },
  };
}
