// What this worker can do. A task gets its positional arguments, and then one object: its keyword arguments, with
// `attempt` (1 for the first) and `signal`, an AbortSignal that is raised when it is to stop.

import crypto from "node:crypto";
import { setTimeout } from "node:timers/promises";

// The reason of an abort: "soft_timeout" or "cancelled".
export class Interrupted extends Error {
  constructor(reason) {
    super(`it was interrupted: ${reason}`);
  }
}

export const tasks = {
  slug(text, { separator = "-" }) {
    return text.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join(separator) ?? "";
  },

  digest(data, { algorithm = "sha256" }) {
    return crypto.createHash(algorithm).update(data).digest("hex");
  },

  async pause(milliseconds, { signal }) {
    try {
      await setTimeout(milliseconds, null, { signal });
    } catch {
      throw signal.reason;
    }
    return process.pid;
  },

  fail(message) {
    throw new RangeError(message);
  },
};
