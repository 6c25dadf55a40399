/**
 * Order of two cursors, `epoch.offset`: negative when `a` comes first, 0 for the same place. `undefined` when they are
 * of different epochs, which have no order. Offsets go beyond 2^53, so they are compared as text.
 */
export function order(a: string, b: string): number | undefined {
  const [epochA, offsetA = ''] = a.split('.');
  const [epochB, offsetB = ''] = b.split('.');
  if (epochA !== epochB) return undefined;
  return offsetA.length - offsetB.length || (offsetA < offsetB ? -1 : +(offsetA > offsetB));
}

/** The part of `Storage` that a cursor needs. */
export interface CursorStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/** The cursor of a connection in a storage. A storage that refuses is warned about once, then left alone. */
export class StoredCursor {
  #storage: CursorStorage | null;
  readonly #key: string;

  constructor(storage: CursorStorage | null, key: string) {
    this.#storage = storage;
    this.#key = key;
  }

  read(): string | null {
    return this.#attempt(storage => storage.getItem(this.#key)) ?? null;
  }

  write(cursor: string): void {
    this.#attempt(storage => storage.setItem(this.#key, cursor));
  }

  #attempt<T>(use: (storage: CursorStorage) => T): T | undefined {
    try {
      return this.#storage ? use(this.#storage) : undefined;
    } catch (error) {
      this.#storage = null;
      console.warn('realtime: cursor not kept:', error);
      return undefined;
    }
  }
}
