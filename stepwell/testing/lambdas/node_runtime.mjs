// Lambda's Node runtime for tests: gets invocations from the Runtime API, and calls the handler.
// Whatever the handler does, each invocation is answered exactly once, or the process ends.
import http from "node:http";
import fs from "node:fs";
import path from "node:path";
import { AsyncLocalStorage } from "node:async_hooks";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { format } from "node:util";

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, noDelay: true });
const current = new AsyncLocalStorage();
let running;
let whenNothingIsLeft = () => {};
const NEVER_SETTLED =
  "The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise that was never settled.";

function call(method, resource, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { "Content-Length": Buffer.byteLength(body) };
    const options = { host, port, agent, method, path: `/2018-06-01/runtime/${resource}`, headers: { ...headers, ...length } };
    const request = http.request(options, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => resolve({ headers: response.headers, body: Buffer.concat(chunks).toString() }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

function described(error) {
  if (error?.errorType !== undefined) return error;
  if (error instanceof Error) {
    return { errorType: error.name, errorMessage: error.message, trace: (error.stack ?? "").split("\n") };
  }
  return { errorType: typeof error, errorMessage: format("%s", error), trace: [] };
}

// An error of the runtime itself. The message contains the error that caused it.
function fault(type, reason) {
  return { errorType: `Runtime.${type}`, errorMessage: String(reason), trace: (reason?.stack ?? "").split("\n") };
}

function postError(resource, error) {
  return call("POST", resource, JSON.stringify(error), { "Lambda-Runtime-Function-Error-Type": error.errorType });
}

// --- the handler ------------------------------------------------------------

function isMissing(error, file) {
  return error.code === "ERR_MODULE_NOT_FOUND" || (error.code === "MODULE_NOT_FOUND" && error.message.includes(file));
}

async function load(name) {
  const root = process.env.LAMBDA_TASK_ROOT;
  const folder = path.dirname(name);
  const [module, ...exported] = path.basename(name).split(".");
  if (exported.length === 0) throw fault("MalformedHandlerName", "Bad handler");
  const base = path.resolve(root, folder, module);
  const file = [".js", ".mjs", ".cjs"].map((suffix) => base + suffix).find((its) => fs.existsSync(its));
  if (file === undefined) {
    throw fault("ImportModuleError", new Error(`Cannot find module '${path.join(folder, module)}'`));
  }
  const found = await importModule(file);
  const handler = exported.reduce((value, key) => value?.[key], found) ?? exported.reduce((value, key) => value?.[key], found.default);
  if (handler === undefined) throw fault("HandlerNotFound", `${name} is undefined or not exported`);
  if (typeof handler !== "function") throw fault("HandlerNotFound", `${name} is not a function`);
  return handler;
}

async function importModule(file) {
  try {
    return await import(pathToFileURL(file));
  } catch (error) {
    if (isMissing(error, file)) throw fault("ImportModuleError", error);
    if (error instanceof SyntaxError && file.endsWith(".js")) return requireModule(file, error);
    throw error instanceof SyntaxError ? fault("UserCodeSyntaxError", error) : error;
  }
}

function requireModule(file, error) {
  try {
    return createRequire(file)(file);
  } catch {
    throw fault("UserCodeSyntaxError", error);
  }
}

// Calls the handler. When the event loop is empty and the handler has not answered, it never will: for an async function
// this is a failure, for others the answer is null, even if they returned a promise.
function invoke(handler, event, context) {
  return new Promise((resolve, reject) => {
    const callback = (error, value) => (error === undefined || error === null ? resolve(value) : reject(error));
    context.done = callback;
    context.succeed = resolve;
    context.fail = reject;
    const isAsync = handler.constructor.name === "AsyncFunction";
    whenNothingIsLeft = () => (isAsync ? reject(fault("NodeJsExit", NEVER_SETTLED)) : resolve(null));
    const answer = handler(event, context, callback);
    if (typeof answer?.then === "function") answer.then(resolve, reject);
  });
}

function serialised(value) {
  try {
    return JSON.stringify(value) ?? "null";
  } catch {
    throw new Error("Unable to stringify response body");
  }
}

function contextOf(headers) {
  const env = process.env;
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  return {
    callbackWaitsForEmptyEventLoop: true,
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

// --- the log: one line per entry, as CloudWatch shows it ---------------------

for (const [method, level] of Object.entries({ log: "INFO", info: "INFO", debug: "DEBUG", trace: "TRACE", warn: "WARN", error: "ERROR" })) {
  console[method] = (...values) => {
    const text = format(...values).replaceAll("\n", "\r");
    fs.writeSync(1, `${new Date().toISOString()}\t${current.getStore() ?? running ?? "undefined"}\t${level}\t${text}\n`);
  };
}

// --- the loop ----------------------------------------------------------------

async function answer(handler) {
  const { headers, body } = await call("GET", "invocation/next");
  const id = (running = headers["lambda-runtime-aws-request-id"]);
  try {
    const value = await current.run(id, () => invoke(handler, JSON.parse(body), contextOf(headers)));
    await call("POST", `invocation/${id}/response`, serialised(value));
  } catch (error) {
    const its = described(error);
    console.error("Invoke Error", JSON.stringify(its));
    await postError(`invocation/${id}/error`, its);
  }
}

async function crash(error) {
  const its = described(error);
  console.error("Uncaught Exception", JSON.stringify(its));
  await postError(running === undefined ? "init/error" : `invocation/${running}/error`, its);
  process.exit(129);
}

process.on("uncaughtException", (error) => crash(error));
process.on("unhandledRejection", (error) => crash(fault("UnhandledPromiseRejection", error)));
process.on("beforeExit", () => whenNothingIsLeft());

async function main() {
  let handler;
  try {
    handler = await load(process.argv[2]);
  } catch (error) {
    const its = described(error);
    console.error("Uncaught Exception", JSON.stringify(its));
    await postError("init/error", its);
    process.exit(1);
  }
  for (;;) await answer(handler).catch(() => process.exit(1)); // the Runtime API has closed
}

main(); // not awaited: Node would exit as soon as the event loop is empty
