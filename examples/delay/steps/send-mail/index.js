// One program for three steps with different environment variables. The edges between them wait for days, at no cost.
const { readFileSync } = require("node:fs");

const { event, ctx } = JSON.parse(readFileSync(0, "utf8"));
const to = event.user.email ?? "ada@example.com";

// A step can run more than once. Pass the key to a mail service that supports one, so that the mail is sent once.
console.error(`sending with idempotency key ${ctx.idempotency_key}`);
console.log(JSON.stringify({ to, subject: process.env.SUBJECT }));
