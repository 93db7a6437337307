/** Errors of models. Branch on `code`, not on the class; docs/errors.md lists every code and what to do about it. */

export const MODEL_ERROR_CODES = [
  'FED_MODEL_UNKNOWN',
  'FED_MODEL_INPUT',
  'FED_MODEL_BUILDER',
  'FED_MODEL_TOPOLOGY',
  'FED_MODEL_LAYER_REFUSED',
  'FED_MODEL_LIMIT',
  'FED_MODEL_WEIGHTS',
  'FED_MODEL_FILE',
] as const;
export type ModelErrorCode = (typeof MODEL_ERROR_CODES)[number];

/** Thrown when a model can't be built, read or written; the message names the layer, weight or file. */
export class ModelError extends Error {
  override readonly name = 'ModelError' as const;
  readonly code: ModelErrorCode;

  constructor(code: ModelErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
