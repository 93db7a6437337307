/**
 * The configuration of the NATS servers of one federation: TLS, a key a node, and for each node the subjects that are
 * its own. One server, a cluster, and leaf nodes at sites. Texts only; who writes them where is the command's (or the
 * demo's) business.
 */
import { randomBytes } from 'node:crypto';
import { storePermissions } from '@tributary/coordinator';
import { type Certificate, createAuthority, createCertificate } from '@tributary/shared-protocol';
import { createNatsUser } from '@tributary/shared-protocol/nats';
import {
  type NatsPeer,
  type NatsPermissions,
  type NatsUser,
  natsServerText,
  place,
} from './nats-server-config.ts';

export interface NatsConfigOptions {
  /** First token of all subjects. */
  readonly prefix: string;
  /** Sites, by the name they will join under. */
  readonly sites: readonly string[];
  /** One by itself, or those of a cluster. */
  readonly servers: readonly [NatsServerPlace, ...NatsServerPlace[]];
  /** @default none */
  readonly leafNodes?: readonly NatsLeafNode[];
}

export interface NatsServerPlace {
  /** Of a cluster's server: one word, unique. */
  readonly name: string;
  /** What nodes dial. A port of -1 takes a free one, for a server by itself. */
  readonly dial: NatsPeer;
  /** Address that it listens on. @default all */
  readonly listenHost?: string;
  /** More names and addresses for its certificate. */
  readonly alsoKnownAs?: readonly string[];
}

/** A server inside a site, which the workers there dial and which dials ours. */
export interface NatsLeafNode {
  /** Which of the federation's sites are behind it. */
  readonly sites: readonly string[];
  /** What the workers dial. */
  readonly dial: NatsPeer;
}

export interface NatsConfigFile {
  /** Relative to the folder of all. */
  readonly path: string;
  readonly text: string;
  /** Whether it must be readable by its owner only. */
  readonly secret: boolean;
}

export interface NatsConfig {
  readonly files: readonly NatsConfigFile[];
  /** What the coordinator dials, and what stands in invites. */
  readonly url: string;
  /** The file for `--nats-ca`. */
  readonly authority: string;
  /** A folder for each server, '' where there is one. */
  readonly servers: readonly { readonly name: string; readonly dir: string; readonly dial: NatsPeer }[];
  readonly leafNodes: readonly (NatsLeafNode & { readonly dir: string; readonly url: string })[];
}

/** Where the coordinator's key and a site's lie in the folder. */
export const COORDINATOR_KEY = 'coordinator.nk';
export const SERVER_CONFIG = 'nats-server.conf';
const CERTIFICATE = 'server-cert.pem';
const AUTHORITY = 'ca.pem';
const ROUTE_USER = 'route';

export function siteKey(site: string): string {
  return `sites/${encodeURIComponent(site)}.nk`;
}

/** All files of the servers for the federation, with new keys and new certificates. */
export async function natsConfig(options: NatsConfigOptions): Promise<NatsConfig> {
  const { prefix, sites, servers, leafNodes = [] } = options;
  const coordinator = createNatsUser();
  const nodes = new Map(sites.map((site) => [site, createNatsUser()]));
  const nodeOf = (site: string): string => {
    const node = nodes.get(site)?.node;
    if (node === undefined) throw new RangeError(`leafNodes: "${site}" is not among the sites`);
    return node;
  };
  const siteUsers = (names: readonly string[]): NatsUser[] =>
    names.map((site) => ({ title: site, nkey: nodeOf(site), may: siteMay(prefix, [nodeOf(site)]) }));
  // A leaf node speaks for the sites behind it, and may do what they may together.
  const leafs = leafNodes.map((leafNode, index) => ({
    ...leafNode,
    dir: `leaf-nodes/${leafNode.sites.map(encodeURIComponent).join('+')}`,
    url: `tls://${place(leafNode.dial)}`,
    user: `leaf-${index + 1}`,
    password: newPassword(),
  }));
  const users: NatsUser[] = [
    {
      title: 'the coordinator',
      nkey: coordinator.node,
      // Alone it may use JetStream, and there only what is its federation's.
      may: { publish: [`${prefix}.>`, ...storePermissions(prefix)], subscribe: [`${prefix}.>`] },
    },
    ...siteUsers(sites),
    ...leafs.map(({ sites: behind, user, password }) => ({
      title: `the leaf node of ${behind.join(', ')}`,
      user,
      password,
      may: siteMay(prefix, behind.map(nodeOf)),
    })),
  ];
  const isCluster = servers.length > 1;
  // One server vouches for itself; several that belong together have an authority, which invites pin.
  const authority =
    isCluster || leafs.length > 0 ? await createAuthority(`tributary-nats-${prefix}`) : undefined;
  const certificateFor = (hosts: readonly string[]): Promise<Certificate> =>
    authority === undefined ? createCertificate(hosts) : authority.issue(hosts);
  const routePassword = newPassword();

  const files: NatsConfigFile[] = [{ path: COORDINATOR_KEY, text: `${coordinator.seed}\n`, secret: true }];
  for (const [site, { seed }] of nodes) files.push({ path: siteKey(site), text: `${seed}\n`, secret: true });
  if (authority !== undefined) files.push({ path: AUTHORITY, text: authority.cert, secret: false });

  const placed = servers.map(({ name, dial }) => ({ name, dial, dir: isCluster ? `servers/${name}` : '' }));
  for (const [index, { name, dial, listenHost = '0.0.0.0', alsoKnownAs = [] }] of servers.entries()) {
    const text = natsServerText({
      title: `${isCluster ? `NATS server ${name}` : 'A NATS server'} for the federation "${prefix}"`,
      name: `${prefix}-${name}`,
      listen: { host: listenHost, port: dial.port },
      users,
      certificate: CERTIFICATE,
      ...(authority === undefined ? {} : { authority: AUTHORITY }),
      ...(isCluster
        ? {
            advertise: dial,
            cluster: {
              name: prefix,
              user: ROUTE_USER,
              password: routePassword,
              others: servers.filter((_, other) => other !== index).map((other) => other.dial),
            },
          }
        : {}),
      takesLeafNodes: leafs.length > 0,
      keepsRuns: true,
    });
    const certificate = await certificateFor([...new Set([dial.host, ...alsoKnownAs])]);
    const own = isCluster ? authority?.cert : undefined;
    files.push(
      ...serverFiles(placed[index]!.dir, text, certificate, {
        hasPasswords: authority !== undefined,
        authority: own,
      }),
    );
  }
  for (const { sites: behind, dial, dir, user, password } of leafs) {
    const text = natsServerText({
      title: `The leaf node of ${behind.join(', ')} for the federation "${prefix}"`,
      name: `${prefix}-${user}`,
      listen: { host: '0.0.0.0', port: dial.port },
      users: siteUsers(behind),
      certificate: CERTIFICATE,
      authority: AUTHORITY,
      remote: { user, password, servers: servers.map((server) => server.dial) },
    });
    const certificate = await certificateFor([dial.host]);
    files.push(...serverFiles(dir, text, certificate, { hasPasswords: true, authority: authority?.cert }));
  }
  return {
    files,
    url: `tls://${servers.map(({ dial }) => place(dial)).join(',')}/${prefix}`,
    authority: authority === undefined ? CERTIFICATE : AUTHORITY,
    servers: placed,
    leafNodes: leafs,
  };
}

function serverFiles(
  dir: string,
  text: string,
  certificate: Certificate,
  { hasPasswords, authority }: { readonly hasPasswords: boolean; readonly authority: string | undefined },
): NatsConfigFile[] {
  const at = (name: string) => (dir === '' ? name : `${dir}/${name}`);
  return [
    // With an authority there are several servers, and the passwords by which they know each other are in it.
    { path: at(SERVER_CONFIG), text, secret: hasPasswords },
    { path: at(CERTIFICATE), text: certificate.cert, secret: false },
    { path: at('server-key.pem'), text: certificate.key, secret: true },
    ...(authority === undefined ? [] : [{ path: at(AUTHORITY), text: authority, secret: false }]),
  ];
}

/** What these sites' nodes may do: their own subjects, and nothing else. */
function siteMay(prefix: string, nodes: readonly string[]): NatsPermissions {
  return {
    publish: nodes.flatMap((node) => [`${prefix}.hello.${node}`, `${prefix}.up.${node}.>`]),
    subscribe: nodes.map((node) => `${prefix}.down.${node}.>`),
  };
}

/** 256 bits, of characters that an address may hold. */
function newPassword(): string {
  return randomBytes(32).toString('hex');
}
