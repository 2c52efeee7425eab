/**
 * Whether a process still lives, told by the kernel: it listens on a socket file while it does.
 *
 * Node has no flock. A listening unix socket ends with its process however that ends, SIGKILL included, and a
 * process that is only stopped still counts as living. So `<dir>/<id>.sock` can be asked, and no pid is compared.
 * Asking works within one host (one kernel): a spool directory must not be shared between hosts.
 */

import { existsSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";

const MAX_PATH = 103; // sun_path is 104 bytes on macOS, 108 on Linux, with the final zero

function socketPath(dir, id) {
  const path = join(dir, `${id}.sock`);
  if (Buffer.byteLength(path) > MAX_PATH) {
    throw new RangeError(`a spool directory's path may have ${MAX_PATH - 38} bytes, for the socket in it`);
  }
  return path;
}

/** Be alive under this id until `close()` or the end of the process. */
export async function live(dir, id) {
  const path = socketPath(dir, id);
  const server = createServer((socket) => socket.destroy());
  await new Promise((resolve, reject) => server.once("error", reject).listen(path, resolve));
  server.unref(); // does not keep the process running
  return {
    close: () => new Promise((resolve) => server.close(() => resolve(rmSync(path, { force: true })))),
  };
}

/** True where somebody listens under this id, and in doubt. */
export async function isAlive(dir, id) {
  const path = socketPath(dir, id);
  if (!existsSync(path)) return false;
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => resolve(true) || socket.destroy());
    socket.once("error", (err) => resolve(err.code !== "ECONNREFUSED" && err.code !== "ENOENT"));
  });
}

export function forget(dir, id) {
  rmSync(socketPath(dir, id), { force: true });
}
