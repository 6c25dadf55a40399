// What the types of the client let pass, and what they do not. Only checked, never run: see `npm run check`.
import { connect } from '@realtime/client';

const realtime = connect({ url: '/resource', token: '' });

realtime.on('order', ({ data, topic }) => [data.length, topic?.length], 'order:7');
realtime.on('*', ({ data }) => data.length, 'order:7');
realtime.on('gap', ({ spread }) => spread.toFixed());
const named: string = 'order';
realtime.on(named, ({ data }) => data.length, 'order:7');

// They are of the connection and of no topic, so that the handler would never be called.
// @ts-expect-error
realtime.on('gap', () => {}, 'order:7');
// @ts-expect-error
realtime.on('status', () => {}, 'order:7');
// @ts-expect-error
realtime.on('bus', () => {}, 'order:7');
// @ts-expect-error
realtime.on('topics', () => {}, 'order:7');
