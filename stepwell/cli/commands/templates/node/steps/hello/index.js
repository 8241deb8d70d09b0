// A step: stdout is the output, stderr is the log. A non-zero exit code is a failure, which is retried.
const { readFileSync } = require("node:fs");

// The input: { event, steps, errors, async, ctx }
const { event, ctx } = JSON.parse(readFileSync(0, "utf8"));

console.error(`attempt ${ctx.attempt}`);
console.log(JSON.stringify({ hello: event.user.name ?? "world" }));
