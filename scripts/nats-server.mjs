// A nats-server for the tests and the demo over NATS: the one on the PATH, else Debian's, unpacked into node_modules.
// Nothing is installed into the system, and no service is started.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** The PATH with which `nats-server` is found, where it can be had. */
export function pathWithNatsServer(root) {
  const path = process.env.PATH ?? '';
  if (works('nats-server')) return path;
  const folder = join(root, 'node_modules', '.cache', 'nats-server');
  const bin = join(folder, 'usr', 'bin');
  // Debian has it in sbin.
  const found = () => [bin, join(folder, 'usr', 'sbin')].find((dir) => existsSync(join(dir, 'nats-server')));
  if (found() === undefined && works('apt-get')) unpack(folder);
  const dir = found();
  return dir === undefined ? path : `${dir}:${path}`;
}

function unpack(folder) {
  mkdirSync(folder, { recursive: true });
  const apt = (...args) => spawnSync('apt-get', args, { cwd: folder, stdio: 'ignore' }).status === 0;
  if (!apt('download', 'nats-server') && process.getuid?.() === 0 && apt('update'))
    apt('download', 'nats-server');
  const archive = readdirSync(folder).find((name) => name.endsWith('.deb'));
  if (archive !== undefined) spawnSync('dpkg', ['-x', archive, '.'], { cwd: folder, stdio: 'ignore' });
}

function works(program) {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;
}
