/** Errors of finding and loading an engine. Branch on `code`; docs/errors.md lists every code and what to do about it. */

export const ENGINE_ERROR_CODES = [
  'FED_ENGINE_UNKNOWN',
  'FED_ENGINE_UNAVAILABLE',
  'FED_ENGINE_DUPLICATE_CORE',
] as const;
export type EngineErrorCode = (typeof ENGINE_ERROR_CODES)[number];

/** Thrown when an engine that was asked for can't be had; the message says what to install or change. */
export class EngineError extends Error {
  override readonly name = 'EngineError' as const;
  readonly code: EngineErrorCode;
  /** The engine that was asked for. */
  readonly engine: string;

  constructor(code: EngineErrorCode, engine: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.engine = engine;
  }
}
