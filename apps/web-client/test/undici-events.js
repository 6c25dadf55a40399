// Prints the events that Node's own EventSource reads at an address, one line of JSON each, until `end`. To be run with
// --experimental-eventsource.
const [, , address, ...names] = process.argv;
const source = new EventSource(address);
const take = ({ type, data, lastEventId }) => {
  process.stdout.write(`${JSON.stringify({ event: type, data, id: lastEventId })}\n`);
  if (type === 'end') source.close();
};
for (const name of names) source.addEventListener(name, take);
source.onerror = () => {
  // A stream that breaks off would be read again from its begin.
  source.close();
};
