/** Which partition a line goes to: crc32(b) mod N, with the CRC-32 of zlib. */

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});

/** zlib.crc32 is in Node since 20.15 and 22.2; these lines also run on the Node 20 before. */
export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = (value >>> 8) ^ TABLE[(value ^ byte) & 0xff];
  return (value ^ 0xffffffff) >>> 0;
}

export function partitionOf(bytes, count) {
  return crc32(bytes) % count;
}

/**
 * The bytes that choose the partition of a line.
 *
 * @param line a validated event or control line (object)
 * @param {Buffer} instance 16 bytes
 */
export function partitionBytes(line, instance) {
  if (line.type !== "key") return instance;
  const id = line.key?.id ?? line.claimed_key_id;
  return id === undefined ? instance : Buffer.from(id, "hex");
}
