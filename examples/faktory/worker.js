// A worker of Faktory for Node: npm install faktory-worker, then FAKTORY_URL=tcp://:PASSWORD@HOST:7419 node worker.js
const faktory = require("faktory-worker");

faktory.register("SendMail", (input) => async ({ job }) => {
  const sent = { to: input.event.data.args ? input.event.data.args[0] : input.event.data.email };
  const answer = await fetch(job.custom.stepwell_result_url, { method: "POST", body: JSON.stringify(sent) });
  if (!answer.ok) throw new Error(await answer.text());
});

faktory.work({ queues: ["mails"] }).catch((error) => {
  console.error(error);
  process.exit(1);
});
