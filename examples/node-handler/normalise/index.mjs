// A plain AWS Lambda handler: the input is the event, what it returns is the output, what it prints is log.
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
