/**
 * What a peer may ask of us. Every limit is checked against the declared number before memory is allocated for it;
 * docs/limits.md lists the defaults and what happens at each.
 */
export interface Limits {
  /** Bytes of one envelope (a message without its body). @default 4 MiB */
  readonly maxMessageBytes: number;
  /** Bytes of one blob chunk. @default 8 MiB */
  readonly maxChunkBytes: number;
  /** Bytes of one blob (a tensor frame on the wire or on disk). @default 8 GiB */
  readonly maxBlobBytes: number;
  /** Bytes of a tensor frame's header. @default 4 MiB */
  readonly maxHeaderBytes: number;
  /** Tensors in one frame. @default 16,384 */
  readonly maxTensors: number;
  /** Dimensions of one tensor. @default 8 */
  readonly maxRank: number;
  /** UTF-8 bytes of a tensor's name. @default 256 */
  readonly maxNameBytes: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

export const DEFAULT_LIMITS: Limits = Object.freeze({
  maxMessageBytes: 4 * MIB,
  maxChunkBytes: 8 * MIB,
  maxBlobBytes: 8 * GIB,
  maxHeaderBytes: 4 * MIB,
  maxTensors: 16_384,
  maxRank: 8,
  maxNameBytes: 256,
});
