export { addressSchema, serverAddresses } from './addresses.ts';
export type { BlobShelf } from './blob-shelf.ts';
export { createBlobShelf } from './blob-shelf.ts';
export type { BlobSink, FileSinkOptions, MemorySink } from './blob-sinks.ts';
export { openFileSink, openMemorySink } from './blob-sinks.ts';
export type { FetchBlobOptions } from './blobs.ts';
export { checkRef, chunkCount, chunkLength, fetchBlob, MAX_CHUNKS } from './blobs.ts';
export type {
  CallWithBodyOptions,
  Channel,
  ChannelOptions,
  MessageHandler,
  MessageWithBody,
} from './channel.ts';
export { createChannel } from './channel.ts';
export { crashPoint } from './crash-point.ts';
export { canonicalJson, sha256 } from './digest.ts';
export type { DType, Tensor, TensorData, TensorSpec } from './dtypes.ts';
export {
  byteLengthOf,
  DTYPES,
  elementBytes,
  elementCount,
  isDType,
  parameterCount,
  tensorBytes,
} from './dtypes.ts';
export type { ProtocolVersion } from './envelope.ts';
export { decodeMessage, encodeMessage, MAX_MESSAGE_VALUES, negotiate } from './envelope.ts';
export type { ProtocolErrorCode } from './errors.ts';
export { errorCode, PROTOCOL_ERROR_CODES, ProtocolError, RemoteError } from './errors.ts';
export type { RunEvent, RunEventType, RunStatus } from './events.ts';
export {
  bfloat16Bits,
  bfloat16Value,
  float16Bits,
  float16Value,
  fromBfloat16,
  fromFloat16,
  toBfloat16,
  toFloat16,
} from './float16.ts';
export type { ChallengeOptions, Counterpart, HelloOptions } from './handshake.ts';
export { challengeCoordinator, sayHello } from './handshake.ts';
export type { SigningKey, Statement } from './identity.ts';
export {
  areSignedBy,
  createSigningKey,
  isPublicKey,
  isSignedBy,
  keyFingerprint,
  readSigningKey,
} from './identity.ts';
export type { Invite } from './invite.ts';
export { decodeInvite, encodeInvite } from './invite.ts';
export { expectLargeBuffers } from './large-buffers.ts';
export type { Limits } from './limits.ts';
export { DEFAULT_LIMITS } from './limits.ts';
export { bytesToText, keysToBytes, keysToText, textToBytes } from './masking.ts';
export type { BlobRef, KeyChange, Message, MessageOf, MessageType, Proof, SiteReport } from './messages.ts';
export { blobRefSchema, messageSchema, PROTOCOL_VERSION, siteReportSchema } from './messages.ts';
export type {
  AugmentationPlan,
  DifferentialPrivacyPlan,
  FederationView,
  InputPlan,
  OptimizerPlan,
  PrivacyPlan,
  SecureAggregationPlan,
  SharedNoisePlan,
  SiteLevelPlan,
  TrainingPlan,
} from './plan.ts';
export {
  augmentationSchema,
  differentialPrivacyOf,
  federationViewSchema,
  inputSchema,
  optimizerSchema,
  privacySchema,
  scheduleSchema,
  secureAggregationSchema,
  sharedNoiseOf,
  trainingSchema,
} from './plan.ts';
export type { Outgoing, ProofScope, SignedMessage } from './proofs.ts';
export {
  coordinatorStatement,
  createMessageSigner,
  helloStatement,
  isProven,
  isProvenKeyChange,
  isSignedMessage,
  newNonce,
  rekeyStatement,
} from './proofs.ts';
export type { LineFault, RecordFrame, SignedRecord } from './record-line.ts';
export { FIRST_PREV, readRecordLine, signRecord } from './record-line.ts';
export type { DecodedSafetensors } from './safetensors.ts';
export { decodeSafetensors, encodeSafetensors, safetensorsParts } from './safetensors.ts';
export type { DecodedFrame, DecodeFrameOptions, FrameHeader, FrameMeta, FrameTensor } from './tensors.ts';
export {
  decodeFrame,
  encodeFrame,
  FRAME_FORMAT_VERSION,
  FRAME_PREAMBLE_BYTES,
  readFrameHeader,
  resealFrame,
} from './tensors.ts';
export type { Authority, Certificate } from './tls.ts';
export { createAuthority, createCertificate, fingerprintOf } from './tls.ts';
export type { ConnectOptions, Link, Listener, Packet, RequestOptions, Transport } from './transport.ts';
