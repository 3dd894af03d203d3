// What a million connections need of a machine, what it has, and the command that gives it more.

import { bytes, descriptors, numbers, read } from "../tools/machine.mjs";

/** Descriptors of a table that are no connection. */
const RESERVE = 256;
/** How much more than its share the kernel may give one of several listeners. */
const UNEVEN = 1.05;
/**
 * Part of the ports of an address that a run takes. The kernel tries the ports of one parity first, and every
 * connection beyond that half searches all of it in vain: connecting slows down to fifty a second.
 */
const PORTS_USED = 0.45;
/** Memory of a connection with both its ends on one host, in bytes: the goal's own limit. */
const BYTES_EACH = 11_000;

const sysctl = (name) => numbers(`/proc/sys/${name.replaceAll(".", "/")}`);

/** How many shards hold so many connections, given what a descriptor table holds. */
export function shardsFor(clients) {
  return Math.max(1, Math.ceil((clients * UNEVEN) / (descriptors() - RESERVE)));
}

/** The loopback addresses that so many connections have to come from, as the generator wants them. */
export function sourcesFor(clients) {
  const [first, last] = sysctl("net.ipv4.ip_local_port_range");
  const count = Math.ceil(clients / ((last + 1 - first) * PORTS_USED));
  return `127.0.0.1-${Math.max(2, count)}`;
}

/**
 * One entry for each limit: what, how much is needed, how much there is, whether that is enough, and how to
 * change it. `hard` ones make the run impossible.
 */
export function needs(clients) {
  const limit = descriptors();
  const shards = shardsFor(clients);
  const [first, last] = sysctl("net.ipv4.ip_local_port_range");
  const sources = Number(sourcesFor(clients).split("-")[1]);
  const [filesOpen] = sysctl("fs.file-nr");
  const files = 2 * clients + filesOpen;
  const [tracked] = sysctl("net.netfilter.nf_conntrack_count");
  const found = [
    atLeast("descriptors of a table (ulimit -Hn)", 1024, limit, {
      hard: true,
      note: `${shards} shards share the connections`,
      remedy: "ulimit -n 1048576   (as root, or LimitNOFILE= of the service)",
    }),
    atLeast("fs.nr_open", limit, sysctl("fs.nr_open")[0], { remedy: `sysctl -w fs.nr_open=${limit}` }),
    atLeast("fs.file-max", files, sysctl("fs.file-max")[0], { hard: true, remedy: `sysctl -w fs.file-max=${files * 2}` }),
    atLeast("ports of all source addresses", clients, sources * (last + 1 - first), {
      hard: true,
      note: `${sources} addresses`,
      remedy: 'sysctl -w net.ipv4.ip_local_port_range="1024 65535"',
    }),
    atLeast("MemAvailable, bytes", clients * BYTES_EACH, bytes(read("/proc/meminfo"), "MemAvailable"), {
      hard: true,
      remedy: "free memory, or fewer with --clients",
    }),
    atLeast("net.core.somaxconn", 4096, sysctl("net.core.somaxconn")[0], { remedy: "sysctl -w net.core.somaxconn=4096" }),
    // Low, pressure and high; every socket with something queued takes a page.
    atLeast("net.ipv4.tcp_mem, pressure", clients, sysctl("net.ipv4.tcp_mem")[1], {
      note: "only while everybody has something queued",
      remedy: `sysctl -w net.ipv4.tcp_mem="${clients} ${clients * 2} ${clients * 3}"`,
    }),
    atLeast("kernel.threads-max", 2 * shards + 256, sysctl("kernel.threads-max")[0], {
      hard: true,
      remedy: `sysctl -w kernel.threads-max=${4 * shards + 512}`,
    }),
  ];
  if (tracked !== undefined) {
    found.push(
      atLeast("net.netfilter.nf_conntrack_max", clients + tracked, sysctl("net.netfilter.nf_conntrack_max")[0], {
        // Nothing is counted until a rule of the firewall asks for it, and then everything.
        hard: tracked > 0,
        note: tracked > 0 ? `${tracked} tracked now` : "nothing is tracked now",
        remedy: `sysctl -w net.netfilter.nf_conntrack_max=${Math.ceil((clients + tracked) * 1.1)}`,
      }),
    );
  }
  return found;
}

function atLeast(what, needed, has, { hard = false, note = "", remedy }) {
  return { what, needed, has, enough: has === undefined || has >= needed, hard, note, remedy };
}
