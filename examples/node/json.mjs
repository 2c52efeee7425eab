/**
 * JSON as the formats mean it: UTF-8 and nothing else, no key twice, integers only.
 *
 * JSON.parse keeps the last of two equal keys, reads 1e2 and -0, and takes half a surrogate pair; a reader
 * that judges signed lines must not, or two readers see two different events. So this is a parser of its own.
 */

import { FormatInvalid } from "./errors.mjs";

const NUMBER = /-?[0-9][0-9.eE+-]*/y;
const INTEGER = /^(?:0|[1-9][0-9]*)$/;
const STRING = /"[^"\\\u0000-\u001f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\u0000-\u001f]*)*"/y;
const BLANKS = /[ \t\r\n]*/y;
const MAX_DEPTH = 16; // the formats need 4

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The value of one JSON text. Objects have no prototype.
 *
 * @param {Uint8Array} bytes
 * @param {(field: string, why: string) => never} fail called with the path of the first mistake
 * @param {string} root the field to name where no path can be given
 */
export function parse(bytes, fail, root) {
  let text;
  try {
    text = utf8.decode(bytes);
  } catch {
    fail(root, "not UTF-8");
  }
  return new Parser(text, fail, root).document();
}

/** `fail` for an error class: the first argument of every reader here. */
export function failing(ErrorClass = FormatInvalid) {
  return (field, why) => {
    throw new ErrorClass(field, why);
  };
}

class Parser {
  #text;
  #at = 0;
  #fail;
  #root;

  constructor(text, fail, root) {
    this.#text = text;
    this.#fail = fail;
    this.#root = root;
  }

  document() {
    const value = this.#value("", 0);
    this.#blanks();
    if (this.#at !== this.#text.length) this.#fail(this.#root, "text behind the value");
    return value;
  }

  #value(path, depth) {
    if (depth > MAX_DEPTH) this.#fail(path || this.#root, "nested too deeply");
    this.#blanks();
    const first = this.#text[this.#at];
    if (first === "{") return this.#object(path, depth);
    if (first === "[") return this.#array(path, depth);
    if (first === '"') return this.#string(path);
    if (first === "-" || (first >= "0" && first <= "9")) return this.#integer(path);
    for (const [word, value] of [["true", true], ["false", false], ["null", null]]) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#fail(this.#root, "not JSON");
  }

  #object(path, depth) {
    const out = Object.create(null);
    this.#at += 1;
    if (this.#skipped("}")) return out;
    do {
      this.#blanks();
      const key = this.#string(path);
      const inner = path ? `${path}.${key}` : key;
      if (Object.hasOwn(out, key)) this.#fail(inner, "written twice");
      this.#expected(":");
      out[key] = this.#value(inner, depth + 1);
    } while (this.#skipped(","));
    this.#expected("}");
    return out;
  }

  #array(path, depth) {
    const out = [];
    this.#at += 1;
    if (this.#skipped("]")) return out;
    do out.push(this.#value(`${path}[${out.length}]`, depth + 1));
    while (this.#skipped(","));
    this.#expected("]");
    return out;
  }

  #string(path) {
    const token = this.#token(STRING);
    const value = token.includes("\\") ? JSON.parse(token) : token.slice(1, -1);
    if (!value.isWellFormed()) this.#fail(path || this.#root, "half a surrogate pair");
    return value;
  }

  #integer(path) {
    const token = this.#token(NUMBER);
    if (!INTEGER.test(token)) this.#fail(path || this.#root, "not a plain integer");
    const value = Number(token);
    if (!Number.isSafeInteger(value)) this.#fail(path || this.#root, "above 2^53 - 1");
    return value;
  }

  #token(pattern) {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (!found) this.#fail(this.#root, "not JSON");
    this.#at = pattern.lastIndex;
    return found[0];
  }

  #blanks() {
    BLANKS.lastIndex = this.#at;
    BLANKS.exec(this.#text);
    this.#at = BLANKS.lastIndex;
  }

  #skipped(mark) {
    this.#blanks();
    if (this.#text[this.#at] !== mark) return false;
    this.#at += 1;
    return true;
  }

  #expected(mark) {
    if (!this.#skipped(mark)) this.#fail(this.#root, "not JSON");
  }
}
