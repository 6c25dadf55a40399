// The part of Vite's types that the example needs.
interface ImportMeta {
  readonly env: { VITE_APP_CLIENT_ID: string; VITE_APP_WEBSOCKET: string; VITE_APP_SSE: string };
}
