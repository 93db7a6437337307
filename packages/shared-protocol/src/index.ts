export { canonicalJson, sha256 } from './canonical-json.ts';
export { crashPoint } from './crash-point.ts';
export type { ProtocolErrorCode } from './errors.ts';
export { errorCode, PROTOCOL_ERROR_CODES, ProtocolError, RemoteError } from './errors.ts';
export type { RunEvent, RunEventType, RunStatus } from './events.ts';
export type { Limits } from './limits.ts';
export { DEFAULT_LIMITS } from './limits.ts';
export type { BlobRef, Message, MessageOf, MessageType, SiteReport } from './messages.ts';
export { blobRefSchema, messageSchema, PROTOCOL_VERSION, siteReportSchema } from './messages.ts';
export type { AugmentationPlan, FederationView, InputPlan, OptimizerPlan, TrainingPlan } from './plan.ts';
export {
  augmentationSchema,
  federationViewSchema,
  inputSchema,
  optimizerSchema,
  scheduleSchema,
  trainingSchema,
} from './plan.ts';
export type { ConnectOptions, Link, Listener, Packet, RequestOptions, Transport } from './transport.ts';
