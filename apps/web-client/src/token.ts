import type { Platform } from './options.js';

/** Whether a token is a JWT whose `exp` has passed. Of other tokens the server alone knows. */
export function isExpired(token: string, { now, atob }: Pick<Platform, 'now' | 'atob'>): boolean {
  try {
    const claims = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(atob(claims)).exp * 1000 <= now();
  } catch {
    return false;
  }
}
