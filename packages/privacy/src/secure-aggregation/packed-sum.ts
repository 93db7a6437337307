/**
 * The sum of packed vectors, modulo 2^32, each of which comes in pieces of any length and is added as it comes. Of a vector
 * no more is kept than the packed bytes of 16,384 values.
 */
import { addPackedPiece, PIECE_WORDS, piecePacked, pieceWords } from './kernel.ts';
import { faulty } from './messages.ts';
import { hasZeroPadding, packedBytes } from './packing.ts';

/** One site's vector on its way into the sum. Both throw PrivacyError FED_PRIVACY_SECAGG_MESSAGE in the site's name. */
export interface PackedAddend {
  /** Takes the next bytes, which are read and not kept. Throws, and takes none, when they are more than are due. */
  write(bytes: Uint8Array): void;
  /** Throws when there were fewer bytes than are due. */
  finish(): void;
}

export interface PackedSum {
  readonly words: Uint32Array;
  add(site: string): PackedAddend;
}

/** Returns a sum of vectors of `count` values of `bits` bits each; any number of them may be on their way at a time. */
export function createPackedSum(count: number, bits: number): PackedSum {
  const words = new Uint32Array(count);
  const total = packedBytes(count, bits);
  const pieceBytes = packedBytes(Math.min(PIECE_WORDS, count), bits);
  return {
    words,
    add(site) {
      /** Bytes of a piece that is not whole yet. */
      const waiting = new Uint8Array(pieceBytes);
      let waits = 0;
      let place = 0;
      let missing = total;
      const addPiece = (bytes: Uint8Array): void => {
        const sum = words.subarray(place, place + PIECE_WORDS);
        pieceWords.set(sum);
        piecePacked.set(bytes);
        addPackedPiece(sum.length, bits);
        sum.set(sum.length === PIECE_WORDS ? pieceWords : pieceWords.subarray(0, sum.length));
        place += sum.length;
      };
      return {
        write(bytes) {
          if (bytes.length > missing) throw faulty(site, `its masked update is more than ${total} bytes`);
          if (bytes.length === missing) checkPadding(bytes, count, bits, site);
          for (let start = 0; start < bytes.length; ) {
            const due = Math.min(pieceBytes, missing + waits);
            const part = bytes.subarray(start, start + due - waits);
            if (part.length === due) addPiece(part);
            else {
              waiting.set(part, waits);
              waits += part.length;
              if (waits === due) {
                addPiece(waiting.subarray(0, due));
                waits = 0;
              }
            }
            start += part.length;
            missing -= part.length;
          }
        },
        finish() {
          if (missing > 0)
            throw faulty(site, `its masked update is ${total - missing} bytes, and not ${total}`);
        },
      };
    },
  };
}

/** Throws unless the bits that belong to no value are zero in `tail`, which ends where the packed vector of `site` ends. */
export function checkPadding(tail: Uint8Array, count: number, bits: number, site: string): void {
  if (!hasZeroPadding(tail, count, bits))
    throw faulty(site, 'the last bits of its masked update belong to no value and are not zero');
}
