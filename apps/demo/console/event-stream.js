/**
 * The events of a `text/event-stream`, read with `fetch`: an `EventSource` can neither post nor send the key.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{event: string, data: string}>}
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = '';
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (data.length) yield { event: event || 'message', data: data.join('\n') };
        event = '';
        data = [];
      } else if (!line.startsWith(':')) {
        const [, name, text] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line) ?? [];
        if (name === 'data') data.push(text);
        else if (name === 'event') event = text;
      }
    }
  }
}
