// An AWS Lambda handler. The event argument is the step's input, the returned value its output, and console output its log.
export const handler = async ({ event }) => {
  const { street = " 12  main street ", city = "springfield" } = event.data;
  console.log("normalising");
  return { street: tidy(street), city: tidy(city) };
};

const tidy = (text) =>
  text
    .trim()
    .split(/\s+/)
    .map((word) => word[0].toUpperCase() + word.slice(1))
    .join(" ");
