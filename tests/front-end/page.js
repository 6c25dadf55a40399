// The calls that plus-ui 5.x makes in its layout, and a journal of what they lead to.
//
// The address names the release of VueUse and the login: `/?vueuse=13&token=…`.

import { createApp, onMounted, watch } from 'vue';

const address = new URLSearchParams(location.search);
const { useEventSource, useWebSocket } = await import(`vueuse-${address.get('vueuse')}`);
const token = address.get('token');
const CLIENT_ID = 'web';
const BASE_API = '/dev-api';

/** What the page has gone through; `toasts` is what its visitor has been shown. */
const journal = {
  toasts: [],
  sockets: { dialed: 0, connected: 0, disconnected: 0, failed: 0, sent: [], received: [] },
  streams: { dialed: 0, opened: 0, errors: [], failed: 0 },
};
window.journal = journal;

window.WebSocket = class extends WebSocket {
  constructor(...how) {
    super(...how);
    journal.sockets.dialed += 1;
    this.addEventListener('message', (event) => journal.sockets.received.push(event.data));
  }

  send(data) {
    journal.sockets.sent.push(data);
    super.send(data);
  }
};

window.EventSource = class extends EventSource {
  constructor(...how) {
    super(...how);
    journal.streams.dialed += 1;
    this.addEventListener('open', () => (journal.streams.opened += 1));
    this.addEventListener('error', () => journal.streams.errors.push(this.readyState));
  }
};

function initWebSocket(url) {
  useWebSocket(`${url}?Authorization=Bearer ${token}&clientid=${CLIENT_ID}`, {
    autoReconnect: { retries: 3, delay: 1000, onFailed: () => (journal.sockets.failed += 1) },
    heartbeat: { message: JSON.stringify({ type: 'ping' }), interval: 10000, pongTimeout: 2000 },
    onConnected: () => (journal.sockets.connected += 1),
    onDisconnected: () => (journal.sockets.disconnected += 1),
    onMessage: (_, event) => {
      if (event.data.indexOf('ping') > 0) return;
      journal.toasts.push(event.data);
    },
  });
}

function initSSE(url) {
  const { data, error } = useEventSource(`${url}?Authorization=Bearer ${token}&clientid=${CLIENT_ID}`, [], {
    autoReconnect: { retries: 5, delay: 5000, onFailed: () => (journal.streams.failed += 1) },
  });
  watch(error, () => (error.value = null));
  watch(data, () => {
    if (!data.value) return;
    journal.toasts.push(data.value);
    data.value = null;
  });
}

/** The part of signing out that goes to the push server. */
window.closeStream = () =>
  fetch(`${BASE_API}/resource/sse/close`, {
    headers: { Authorization: `Bearer ${token}`, clientid: CLIENT_ID },
  }).then((answer) => answer.json());

createApp({
  setup() {
    onMounted(() => initWebSocket(`ws://${location.host}${BASE_API}/resource/websocket`));
    onMounted(() => initSSE(`${BASE_API}/resource/sse`));
    return () => null;
  },
}).mount('#app');
