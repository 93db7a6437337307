// Runs publint on every package that is published: what `exports` names must be there and be what it says.
import { readdirSync, readFileSync } from 'node:fs';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';

let failed = false;
for (const name of readdirSync('packages')) {
  const pkgDir = `packages/${name}`;
  const pkg = JSON.parse(readFileSync(`${pkgDir}/package.json`, 'utf8'));
  if (pkg.private) continue;
  const { messages } = await publint({ pkgDir, pack: false, strict: true, level: 'warning' });
  for (const message of messages)
    console.error(`${pkgDir}: ${formatMessage(message, pkg, { color: false })}`);
  failed ||= messages.length > 0;
}
process.exit(failed ? 1 : 0);
