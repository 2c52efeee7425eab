/**
 * What can go wrong, in four branches:
 *
 *   FormatInvalid      bytes or text that docs/formats.md does not allow; `field` says where
 *     EnvelopeInvalid, BlobInvalid, RecordInvalid, ApprovalInvalid, RegistryInvalid, EventInvalid
 *     BatchRejected    a sealed batch; `finding` is the word of the table "Opening a batch"
 *   DecryptionFailed   all that a caller learns about a ciphertext that does not open
 *   Denied             a rule said no; `reason` is a word of the format
 *   Failed             something broke; `reason` likewise, `retryable` says whether later may help
 *
 * No message repeats a value: messages end up in logs.
 */

export class FormatInvalid extends Error {
  constructor(field, why) {
    super(`${field}: ${why}`);
    this.name = new.target.name;
    this.field = field;
  }
}

export class EnvelopeInvalid extends FormatInvalid {}
export class BlobInvalid extends FormatInvalid {}
export class RecordInvalid extends FormatInvalid {}
export class ApprovalInvalid extends FormatInvalid {}
export class RegistryInvalid extends FormatInvalid {}
export class EventInvalid extends FormatInvalid {}

export class BatchRejected extends FormatInvalid {
  constructor(finding, field, why) {
    super(field, why);
    this.finding = finding;
  }
}

export class DecryptionFailed extends Error {
  constructor() {
    super("the envelope does not open");
    this.name = "DecryptionFailed";
  }
}

export class Denied extends Error {
  constructor(reason) {
    super(`denied: ${reason}`);
    this.name = "Denied";
    this.reason = reason;
  }
}

export class Failed extends Error {
  constructor(reason, { retryable = false } = {}) {
    super(`failed: ${reason}`);
    this.name = "Failed";
    this.reason = reason;
    this.retryable = retryable;
  }
}

/** The spool cannot take a line now: it is full, closed, or its disk gave an error. */
export class SpoolUnavailable extends Failed {
  constructor(why) {
    super("spool_unavailable", { retryable: true });
    this.message = why;
  }
}
