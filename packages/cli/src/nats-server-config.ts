/**
 * The text of one nats-server.conf: a server by itself, one of a cluster, or a leaf node at a site. Ports follow from
 * the one that nodes dial, as far apart as NATS's usual ones are: routes 2000 above it (6222), leaf nodes 3200 (7422),
 * and on this machine only, 4000 above, what a health check asks (8222, `/healthz`).
 */

/** Bytes of one message: a chunk of an update and its head, in one. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024;
/** What the server holds for a node that reads slowly, before it cuts it off: a window of chunks for 32 sites. */
const MAX_PENDING_BYTES = 256 * 1024 * 1024;
const ROUTES_ABOVE = 2000;
const LEAF_NODES_ABOVE = 3200;
const MONITOR_ABOVE = 4000;
/** So that all of them are ports. */
export const MAX_NATS_PORT = 65_535 - MONITOR_ABOVE;

/** Who may connect, and what it may do. */
export type NatsUser = { readonly title: string; readonly may: NatsPermissions } & (
  | { readonly nkey: string }
  | { readonly user: string; readonly password: string }
);

export interface NatsPermissions {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
}

export interface NatsPeer {
  readonly host: string;
  readonly port: number;
}

export interface NatsServerText {
  /** First line of comment. */
  readonly title: string;
  readonly name: string;
  /** Address and port that nodes dial; port -1 takes a free one, without neighbours. */
  readonly listen: NatsPeer;
  /** What other servers tell nodes of this one. */
  readonly advertise?: NatsPeer;
  readonly users: readonly NatsUser[];
  readonly certificate: string;
  /** File of the servers' common authority, where there is one. */
  readonly authority?: string;
  readonly cluster?: {
    readonly name: string;
    readonly user: string;
    readonly password: string;
    readonly others: readonly NatsPeer[];
  };
  readonly takesLeafNodes?: boolean;
  /** Whether it has JetStream, for `tributary coordinator --store jetstream`. */
  readonly keepsRuns?: boolean;
  /** For a leaf node: the servers that it dials, and as whom. */
  readonly remote?: {
    readonly user: string;
    readonly password: string;
    readonly servers: readonly NatsPeer[];
  };
}

/** The configuration, whose files lie beside it. */
export function natsServerText(server: NatsServerText): string {
  const { title, name, listen, advertise, users, cluster, remote } = server;
  const own = `    cert_file: "./${server.certificate}"\n    key_file: "./server-key.pem"`;
  const mutual = `${own}\n    ca_file: "./${server.authority}"\n    verify: true`;
  const above = (by: number) => ({ host: listen.host, port: listen.port + by });
  const blocks = [
    `# ${title}: nats-server -c nats-server.conf`,
    `server_name: "${name}"
listen: "${place(listen)}"
${advertise === undefined ? '' : `client_advertise: "${place(advertise)}"\n`}max_payload: ${MAX_PAYLOAD_BYTES}
max_pending: ${MAX_PENDING_BYTES}`,
    listen.port < 0
      ? undefined
      : `# For health checks on this machine: /healthz\nhttp: "127.0.0.1:${listen.port + MONITOR_ABOVE}"`,
    server.keepsRuns !== true
      ? undefined
      : `# Where a run is kept that another machine may go on with: tributary coordinator --store jetstream\njetstream {\n  store_dir: "./jetstream"\n}`,
    `tls {\n${own.replaceAll('    ', '  ')}\n}`,
    cluster === undefined
      ? undefined
      : `# The servers know each other by certificate and by password.
cluster {
  name: "${cluster.name}"
  listen: "${place(above(ROUTES_ABOVE))}"
${advertise === undefined ? '' : `  cluster_advertise: "${place({ ...advertise, port: advertise.port + ROUTES_ABOVE })}"\n`}  authorization { user: "${cluster.user}", password: "${cluster.password}" }
  tls {
${mutual}
  }
  routes: [
${cluster.others.map(({ host, port }) => `    "nats-route://${cluster.user}:${cluster.password}@${place({ host, port: port + ROUTES_ABOVE })}"`).join('\n')}
  ]
}`,
    server.takesLeafNodes !== true
      ? undefined
      : `# Leaf nodes show a certificate of ours, and a password that stands among the users below.
leafnodes {
  listen: "${place(above(LEAF_NODES_ABOVE))}"
${advertise === undefined ? '' : `  advertise: "${place({ ...advertise, port: advertise.port + LEAF_NODES_ABOVE })}"\n`}  tls {
${mutual}
  }
}`,
    remote === undefined
      ? undefined
      : `# The only connection to the outside, and it goes outward.
leafnodes {
  remotes: [
    {
      urls: [
${remote.servers.map(({ host, port }) => `        "tls://${remote.user}:${remote.password}@${place({ host, port: port + LEAF_NODES_ABOVE })}"`).join('\n')}
      ]
      tls {
${mutual.replace('\n    verify: true', '').replaceAll('    ', '        ')}
      }
    }
  ]
}`,
    `# Nobody else gets in, and each may use only what is its own. Add a site with the key that "nk -gen user -pubout" prints.
authorization {
  users: [
${users.map(userLines).join('\n')}
  ]
}`,
  ];
  return `${blocks.filter((block) => block !== undefined).join('\n\n')}\n`;
}

function userLines(user: NatsUser): string {
  const list = (subjects: readonly string[]) => `[${subjects.map((one) => `"${one}"`).join(', ')}]`;
  const who = 'nkey' in user ? `nkey: ${user.nkey}` : `user: "${user.user}", password: "${user.password}"`;
  const { publish, subscribe } = user.may;
  return `    # ${user.title}\n    { ${who}, permissions: { publish: ${list(publish)}, subscribe: ${list(subscribe)} } }`;
}

/** `host:port`, with brackets around an IPv6 address. */
export function place({ host, port }: NatsPeer): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}
