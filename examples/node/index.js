// A step can be any program. This one reads its input from stdin, and prints its output to stdout.
const { readFileSync } = require("node:fs");

const { event } = JSON.parse(readFileSync(0, "utf8"));
const items = event.data.items ?? [{ sku: "tea", price: 4.5, quantity: 2 }];

const total = items.reduce((sum, item) => sum + item.price * item.quantity, 0);
console.error(`${items.length} item(s)`); // stderr is the step's log
console.log(JSON.stringify({ total, free_shipping: total >= 50 }));
