// One program for three steps, which differ in their environment. The edges between them wait for days, at no cost.
const { readFileSync } = require("node:fs");

const { event, ctx } = JSON.parse(readFileSync(0, "utf8"));
const to = event.user.email ?? "ada@example.com";

// Steps run at least once: hand the key on to a service that takes one, and a mail is sent once.
console.error(`sending with idempotency key ${ctx.idempotency_key}`);
console.log(JSON.stringify({ to, subject: process.env.SUBJECT }));
