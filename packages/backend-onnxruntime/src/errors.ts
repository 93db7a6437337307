/** Errors of this backend. Branch on `code`. */

export const BACKEND_ERROR_CODES = [
  'FED_ORT_BINDING',
  'FED_ORT_DEVICE',
  'FED_ORT_COMPILE',
  'FED_ORT_RUN',
  'FED_ORT_DISPOSED',
] as const;
export type BackendErrorCode = (typeof BACKEND_ERROR_CODES)[number];

/**
 * Thrown when ONNX Runtime can't be loaded (FED_ORT_BINDING), the device can't be had (FED_ORT_DEVICE), a graph isn't
 * accepted (FED_ORT_COMPILE) or fails while it runs (FED_ORT_RUN), or data is used after it was disposed of
 * (FED_ORT_DISPOSED). Graphs run long after the call that is at fault: in eager mode `message` names that call's
 * kernel and `stack` is that call's.
 */
export class BackendError extends Error {
  override readonly name = 'BackendError' as const;
  readonly code: BackendErrorCode;

  constructor(code: BackendErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
