import { t } from './i18n.js';

const TIMEOUT_MS = 10_000;

/** A request which the server refused, which did not reach it (status 0), or whose answer cannot be read. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Sends one JSON request and returns the parsed reply.
 * @param {string} method
 * @param {string} path
 * @param {{token?: string, body?: object}} [options]
 * @returns {Promise<any>}
 * @throws {ApiError}
 */
export async function request(method, path, { token, body } = {}) {
  const headers = {};
  if (token) headers.Authorization = bearer(token);
  if (body) headers['Content-Type'] = 'application/json';

  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ApiError(0, t('The server cannot be reached.'));
  }
  const reply = await response.json().catch(() => null);
  // With `auth.errorStatus: 200` a refused login shows in the reply alone.
  const status = response.ok ? (reply?.code ?? response.status) : response.status;
  if (status !== 200) throw new ApiError(status, reply?.msg || t('The server answered with status {0}.', status));
  // The page of a proxy, or a body that was cut off.
  if (reply === null) throw new ApiError(status, t('The answer cannot be read.'));
  return reply;
}

/** @param {string} token */
function bearer(token) {
  return `Bearer ${token}`;
}
