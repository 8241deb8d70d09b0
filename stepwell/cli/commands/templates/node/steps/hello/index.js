// What this prints on stdout is the step's output, stderr is its log. A non-zero exit is a failure, to be retried.
const { readFileSync } = require("node:fs");

// The input: { event, steps, errors, async, ctx }
const { event, ctx } = JSON.parse(readFileSync(0, "utf8"));

console.error(`attempt ${ctx.attempt}`);
console.log(JSON.stringify({ hello: event.user.name ?? "world" }));
