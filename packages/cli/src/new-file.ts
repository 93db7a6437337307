/** Files that a command writes for a person to edit: never over one that is there. */
import { writeFileSync } from 'node:fs';
import { CliError } from './errors.ts';

/** Writes a new file. Throws FED_CLI_FILE_EXISTS, which advises the command `otherwise`, and FED_CLI_FILE_MISSING. */
export function writeNewFile(path: string, text: string, otherwise: string): void {
  try {
    writeFileSync(path, text, { flag: 'wx' });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EEXIST') {
      throw new CliError('FED_CLI_FILE_EXISTS', `${path} is there already; it was left as it is.`, {
        todo: `Give another name: ${otherwise}`,
        cause: error,
      });
    }
    if (code === 'ENOENT') {
      throw new CliError('FED_CLI_FILE_MISSING', `${path} can't be written: its folder is not there.`, {
        cause: error,
      });
    }
    throw error;
  }
}
