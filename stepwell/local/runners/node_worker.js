// The process in which Node Lambda handlers run: `node node_worker.js FD CODE FILE FUNCTION`.
// The protocol is that of python_worker.py. A handler may return a value or a promise, or call the callback.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const { pathToFileURL } = require("node:url");

const LARGEST = 1024 * 1024;
const LONGEST_ERROR = 16 * 1024; // characters; the server kills this process if an answer is too large
const HEAD = 12;
const [fd, code, file, name] = process.argv.slice(2);
const socket = new net.Socket({ fd: Number(fd), readable: true, writable: true });
const environment = process.env;
const temporary = environment.TMPDIR;

let handler;
let reply = null; // of the current invocation; only the first call counts
let isIdle = null; // called when the current invocation has nothing left to wait for

function send(kind, text, then = () => {}) {
  const body = Buffer.from(text);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 0);
  head.write(kind, 4);
  afterPrinting(() => socket.write(Buffer.concat([head, body]), then));
}

// Output is flushed first: when a pipe is full, Node buffers the rest.
function afterPrinting(then) {
  const busy = [process.stdout, process.stderr].find((stream) => stream.writableLength > 0);
  if (busy === undefined) then();
  else busy.write("", () => afterPrinting(then));
}

function explain(error) {
  console.error(error);
  try {
    const isText = typeof error === "string";
    const text = error instanceof Error ? `${error.name}: ${error.message}` : isText ? error : JSON.stringify(error);
    return String(text).slice(0, LONGEST_ERROR);
  } catch {
    return "an error that cannot be shown";
  }
}

function answerTo(done) {
  return (error, value) => {
    if (reply === null || reply.done !== done) return;
    reply = isIdle = null;
    socket.ref();
    if (error !== null && error !== undefined) {
      send("e", explain(error));
    } else {
      let text;
      try {
        text = JSON.stringify(value) ?? "null";
      } catch (problem) {
        // Lambda's runtime reports only the first half of this message.
        send("e", explain(new Error(`Unable to stringify response body: it is not JSON: ${problem?.message ?? problem}`)));
        return done();
      }
      const size = Buffer.byteLength(text);
      if (size <= LARGEST) send("o", text);
      else send("l", String(size));
    }
    done();
  };
}

function contextOf(milliseconds, finish) {
  const name = environment.AWS_LAMBDA_FUNCTION_NAME;
  const deadline = performance.now() + milliseconds;
  return {
    awsRequestId: crypto.randomUUID(),
    functionName: name,
    functionVersion: "$LATEST",
    invokedFunctionArn: `arn:aws:lambda:local:000000000000:function:${name}`,
    memoryLimitInMB: environment.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: `/aws/lambda/${name}`,
    logStreamName: "local",
    callbackWaitsForEmptyEventLoop: true, // accepted, but without effect: the answer never waits
    getRemainingTimeInMillis: () => Math.max(0, Math.floor(deadline - performance.now())),
    done: finish,
    succeed: (value) => finish(null, value),
    fail: (error) => finish(error ?? new Error("failed")),
  };
}

function invoke(event, milliseconds, done) {
  const finish = answerTo(done);
  reply = { done };
  socket.unref(); // so that the event loop can become empty
  isIdle = () => finish(null, null);
  try {
    const result = handler(JSON.parse(event), contextOf(milliseconds, finish), finish);
    if (typeof result?.then === "function") {
      isIdle = () => finish(new Error("the handler's promise is pending, and nothing is left that could settle it"));
      result.then((value) => finish(null, value), (error) => finish(error ?? new Error("rejected")));
    } else if (result !== undefined && handler.length < 3) { // with a callback, the return value does not count
      finish(null, result);
    }
  } catch (error) {
    finish(error ?? new Error("thrown"));
  }
}

async function load() {
  let found;
  if (path.extname(file) === ".mjs") {
    found = await import(pathToFileURL(file));
  } else {
    try {
      found = require(file);
    } catch (error) {
      if (error.code !== "ERR_REQUIRE_ESM") throw error;
      found = await import(pathToFileURL(file));
    }
  }
  return found[name] ?? found.default?.[name];
}

function empty() {
  for (const entry of fs.readdirSync(temporary)) {
    fs.rmSync(path.join(temporary, entry), { recursive: true, force: true });
  }
}

async function serve(event, milliseconds) {
  if (handler === undefined) {
    try {
      handler = await load();
    } catch (error) {
      return send("i", explain(error), () => process.exit(1));
    }
    if (typeof handler !== "function") {
      return send("s", `${path.basename(file)} exports no function ${name}`, () => process.exit(1));
    }
  }
  invoke(event, milliseconds, () => {
    try {
      process.chdir(code);
      empty();
    } catch {
      process.exit(1); // the next invocation gets a new process
    }
  });
}

let pieces = [];
let size = 0;

function receive(piece) {
  pieces.push(piece);
  size += piece.length;
  if (size < HEAD) return;
  if (pieces[0].length < HEAD) pieces = [Buffer.concat(pieces)];
  const whole = HEAD + pieces[0].readUInt32BE(0);
  if (size < whole) return;
  const data = Buffer.concat(pieces);
  pieces = [];
  size = 0;
  serve(data.toString("utf8", HEAD, whole), Number(data.readBigUInt64BE(4)));
}

function fatal(error) {
  const message = explain(error);
  if (reply === null) process.exit(1);
  reply = null;
  send("e", message, () => process.exit(1));
}

process.on("uncaughtException", fatal);
process.on("unhandledRejection", fatal);
process.on("beforeExit", () => isIdle?.());
process.argv.splice(1, process.argv.length - 1, file);
socket.on("data", receive);
socket.on("end", () => process.exit(0));
socket.on("error", () => process.exit(0));
