// A poolmgr worker in Node.js: the protocol of docs/protocol.md ("Manager and worker"). The tasks are in tasks.js.
//
// Reads of the task pipe are left to a stream; all else is small and written synchronously, so that the order of the
// protocol holds by itself: page, control channel, handler, result.

import fs from "node:fs";
import net from "node:net";
import { decode, decodeMultiStream, encode } from "@msgpack/msgpack";
import { Interrupted, tasks } from "./tasks.js";

const [TASKS, RESULTS, CONTROL, PAGE] = [3, 4, 5, 6];
const [START, RECALL, INTERRUPT] = [40, 50, 51];
const [READY, DONE, RAISED, RECALLED, HEARTBEAT] = [60, 61, 62, 64, 70];
const VERSION = 1;

let recalled = 0; // no task with this or a smaller fence is begun any more
let running = 0; // the fence of the task that runs, 0 between two
let abort = null; // its AbortController

// ---------------------------------------------------------------------------------------------------- the clock

// CLOCK_BOOTTIME, which Node.js does not offer: monotonic time, corrected by what /proc/uptime shows, which goes on
// while the machine sleeps. The file has a resolution of 10 ms, so small differences are none.
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;
let offset = 0;

function setClock() {
  const found = Number(fs.readFileSync("/proc/uptime", "utf8").split(" ")[0]) - monotonic();
  if (Math.abs(found - offset) > 0.05) offset = found;
}

const now = () => offset + monotonic();

// ------------------------------------------------------------------------------------------ telling the manager

function write(...message) {
  let data = encode(message);
  while (data.length) data = data.subarray(fs.writeSync(RESULTS, data));
}

// MessagePack has integers and doubles, JavaScript has one kind of number: a time that happens to be whole would go out
// as an integer.
const time = (seconds) => (Number.isInteger(seconds) ? seconds + 1e-6 : seconds);

function beat() {
  setClock();
  try {
    fs.writeSync(CONTROL, encode([HEARTBEAT]));
  } catch (error) {
    if (error.code !== "EAGAIN") process.exit(0); // the manager is late; or it is gone
  }
}

const word = Buffer.alloc(8);

function publish(fence, begunAt) {
  word.writeDoubleLE(begunAt); // x86 and ARM, on which Node.js runs, are little-endian
  fs.writeSync(PAGE, word, 0, 8, 8);
  word.writeBigUInt64LE(BigInt(fence));
  fs.writeSync(PAGE, word, 0, 8, 0);
}

// ---------------------------------------------------------------------------------------------------- being told

const packet = Buffer.alloc(65536);

function readControl() {
  let told = false;
  for (;;) {
    let length;
    try {
      length = fs.readSync(CONTROL, packet);
    } catch (error) {
      if (error.code === "EAGAIN") break;
      throw error;
    }
    if (length === 0) break;
    const [kind, fence, reason] = decode(packet.subarray(0, length));
    if (kind === RECALL) {
      recalled = Math.max(recalled, fence);
      told = true;
    } else if (kind === INTERRUPT && fence === running) {
      abort.abort(new Interrupted(reason));
    }
  }
  return told;
}

process.on("SIGUSR1", () => {
  if (readControl()) write(RECALLED, []); // what it names comes later, and is told of then
});

// ----------------------------------------------------------------------------------------------------- the tasks

async function run([, fence, , attempt, name, payload]) {
  const begunAt = time(now());
  publish(fence, begunAt);
  if (readControl()) write(RECALLED, []);
  if (fence <= recalled) {
    publish(0, begunAt);
    write(RECALLED, [fence]);
    return;
  }
  let result;
  try {
    result = encode((await call(fence, name, payload, attempt)) ?? null);
  } catch (error) {
    write(RAISED, fence, begunAt, time(Math.max(now(), begunAt)), ...described(error), null);
    return;
  } finally {
    running = 0;
  }
  write(DONE, fence, begunAt, time(Math.max(now(), begunAt)), result);
}

async function call(fence, name, payload, attempt) {
  if (!Object.hasOwn(tasks, name)) throw new Failed("unknown_task", `this worker has no task ${name}`);
  let args, kwargs;
  try {
    [args, kwargs = {}] = decode(payload);
    args = [...args];
  } catch (error) {
    throw new Failed("bad_arguments", `the arguments cannot be read: ${error.message}`);
  }
  running = fence;
  abort = new AbortController();
  return tasks[name](...args, { ...kwargs, attempt, signal: abort.signal });
}

class Failed extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function described(error) {
  const code = error instanceof Failed ? error.code : error instanceof Interrupted ? "timeout" : "task_failed";
  const types = [];
  for (let each = error; each && each !== Object.prototype; each = Object.getPrototypeOf(each)) {
    const name = each.constructor?.name;
    if (name && types.at(-1) !== name) types.push(name);
  }
  const failure = { type: types[0] ?? "", message: String(error?.message ?? error), traceback: String(error?.stack ?? "") };
  return [code, types, encode(failure)];
}

// ------------------------------------------------------------------------------------------------------- the loop

if (process.env.POOLMGR_PROTOCOL !== String(VERSION)) {
  console.error(`this worker speaks version ${VERSION} of the protocol, not ${process.env.POOLMGR_PROTOCOL}`);
  process.exit(1);
}
setClock();
setInterval(beat, 1000 * Number(process.env.POOLMGR_HEARTBEAT_S)).unref();
write(READY, VERSION, process.pid, ["nodejs"]);
beat();
for await (const message of decodeMultiStream(new net.Socket({ fd: TASKS, readable: true, writable: false }))) {
  if (message[0] === START) await run(message);
}
process.exit(0); // the end of the task pipe is the order to go
