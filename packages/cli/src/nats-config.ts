/**
 * The configuration of a NATS server for one federation: TLS, a key a node, and for each node the subjects that are its
 * own. Texts only; who writes them where is the command's (or the demo's) business.
 */
import { createCertificate } from '@tributary/shared-protocol';
import { createNatsUser } from '@tributary/shared-protocol/nats';

export interface NatsConfigOptions {
  /** First token of all subjects. */
  readonly prefix: string;
  /** Sites, by the name they will join under. */
  readonly sites: readonly string[];
  /** Names and addresses that nodes dial the server by; they go into its certificate. */
  readonly hosts: readonly string[];
  /** Address and port that the server listens on. */
  readonly listen: string;
}

export interface NatsConfigFile {
  /** Relative to the server's folder. */
  readonly path: string;
  readonly text: string;
  /** Whether it must be readable by its owner only. */
  readonly secret: boolean;
}

/** Where the coordinator's key and a site's lie in the folder. */
export const COORDINATOR_KEY = 'coordinator.nk';
export const CERTIFICATE = 'server-cert.pem';
export const SERVER_CONFIG = 'nats-server.conf';
export function siteKey(site: string): string {
  return `sites/${encodeURIComponent(site)}.nk`;
}

/** Bytes of one message: a chunk of an update and its head, in one. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024;
/** What the server holds for a node that reads slowly, before it cuts it off: a window of chunks for 32 sites. */
const MAX_PENDING_BYTES = 256 * 1024 * 1024;

/** All files of a server for the federation, with new keys and a new certificate. */
export async function natsConfigFiles(options: NatsConfigOptions): Promise<NatsConfigFile[]> {
  const { prefix, sites, hosts, listen } = options;
  const certificate = await createCertificate(hosts);
  const coordinator = createNatsUser();
  const users = sites.map((site) => ({ site, ...createNatsUser() }));
  const config = `# A NATS server for the federation "${prefix}": nats-server -c ${SERVER_CONFIG}
listen: "${listen}"
max_payload: ${MAX_PAYLOAD_BYTES}
max_pending: ${MAX_PENDING_BYTES}

tls {
  cert_file: "./${CERTIFICATE}"
  key_file: "./server-key.pem"
}

# Nobody else gets in, and each may use only what is its own. Add a site with the key that "nk -gen user -pubout" prints.
authorization {
  users: [
    # the coordinator
${userLine(coordinator.node, [`${prefix}.>`], [`${prefix}.>`])}
${users
  .map(
    ({ site, node }) =>
      `    # ${site}\n${userLine(node, [`${prefix}.hello.${node}`, `${prefix}.up.${node}.>`], [`${prefix}.down.${node}.>`])}`,
  )
  .join('\n')}
  ]
}
`;
  return [
    { path: SERVER_CONFIG, text: config, secret: false },
    { path: CERTIFICATE, text: certificate.cert, secret: false },
    { path: 'server-key.pem', text: certificate.key, secret: true },
    { path: COORDINATOR_KEY, text: `${coordinator.seed}\n`, secret: true },
    ...users.map(({ site, seed }) => ({ path: siteKey(site), text: `${seed}\n`, secret: true })),
  ];
}

function userLine(node: string, publish: readonly string[], subscribe: readonly string[]): string {
  const list = (subjects: readonly string[]) => `[${subjects.map((one) => `"${one}"`).join(', ')}]`;
  return `    { nkey: ${node}, permissions: { publish: ${list(publish)}, subscribe: ${list(subscribe)} } }`;
}
