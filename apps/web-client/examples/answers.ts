// The answer of a language model in a page: see docs/howto/ai-answers.md.
import { connect } from '@realtime/client';
import { stream } from '@realtime/client/stream';

const realtime = connect({ url: '/resource', token: () => localStorage.getItem('token') ?? '' });

/** Asks, and shows the answer while it is written. */
export async function ask(
  user: number,
  id: string,
  question: string,
  show: (text: string, reset?: boolean, state?: string) => void,
): Promise<void> {
  const answer = stream(realtime, id); // before the request that begins it
  await fetch(`/users/${user}/answers/${id}`, { method: 'POST', body: question });
  for await (const { text, reset, state } of answer) show(text, reset, state);
}
