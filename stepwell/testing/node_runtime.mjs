// Lambda's runtime for Node, for tests: gets invocations from the Runtime API and gives them to the handler.
// One rule: whatever the handler does, an invocation is answered once, or the process ends.
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

function described(error, type) {
  if (error?.errorType !== undefined) return error;
  if (error instanceof Error) {
    return { errorType: type ?? error.name, errorMessage: error.message, trace: (error.stack ?? "").split("\n") };
  }
  return { errorType: type ?? typeof error, errorMessage: format("%s", error), trace: [] };
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
  if (exported.length === 0) throw described(new Error("Bad handler"), "Runtime.MalformedHandlerName");
  const base = path.resolve(root, folder, module);
  const file = [".js", ".mjs", ".cjs"].map((suffix) => base + suffix).find((its) => fs.existsSync(its));
  if (file === undefined) {
    const error = new Error(`Cannot find module '${path.join(folder, module)}'`);
    throw described(error, "Runtime.ImportModuleError");
  }
  const found = await importModule(file);
  const handler = exported.reduce((value, key) => value?.[key], found) ?? exported.reduce((value, key) => value?.[key], found.default);
  if (handler === undefined) throw described(new Error(`${name} is undefined or not exported`), "Runtime.HandlerNotFound");
  if (typeof handler !== "function") throw described(new Error(`${name} is not a function`), "Runtime.HandlerNotFound");
  return handler;
}

async function importModule(file) {
  try {
    return await import(pathToFileURL(file));
  } catch (error) {
    if (isMissing(error, file)) throw described(error, "Runtime.ImportModuleError");
    if (error instanceof SyntaxError && file.endsWith(".js")) return requireModule(file, error);
    throw described(error, error instanceof SyntaxError ? "Runtime.UserCodeSyntaxError" : undefined);
  }
}

function requireModule(file, error) {
  try {
    return createRequire(file)(file);
  } catch {
    throw described(error, "Runtime.UserCodeSyntaxError");
  }
}

// A handler that gives back no promise has to call back; if it never does, the answer is null once nothing is left to do.
function invoke(handler, event, context) {
  return new Promise((resolve, reject) => {
    const callback = (error, value) => (error === undefined || error === null ? resolve(value) : reject(error));
    context.done = callback;
    context.succeed = resolve;
    context.fail = reject;
    whenNothingIsLeft = () => resolve(null);
    const answer = handler(event, context, callback);
    if (typeof answer?.then === "function") {
      whenNothingIsLeft = () => reject(described(new Error(NEVER_SETTLED), "Runtime.NodeJsExit"));
      answer.then(resolve, reject);
    }
  });
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

// --- the log: one line an entry, as CloudWatch shows it ----------------------

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
    await call("POST", `invocation/${id}/response`, JSON.stringify(value) ?? "null");
  } catch (error) {
    const its = described(error);
    console.error("Invoke Error", JSON.stringify(its));
    await postError(`invocation/${id}/error`, its);
  }
}

async function crash(error, type) {
  const its = described(error, type);
  console.error("Uncaught Exception", JSON.stringify(its));
  await postError(running === undefined ? "init/error" : `invocation/${running}/error`, its);
  process.exit(129);
}

process.on("uncaughtException", (error) => crash(error));
process.on("unhandledRejection", (error) => crash(error, "Runtime.UnhandledPromiseRejection"));
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
  for (;;) await answer(handler).catch(() => process.exit(1)); // the Runtime API is gone
}

main(); // not awaited here: node would end at once when nothing is left to do
