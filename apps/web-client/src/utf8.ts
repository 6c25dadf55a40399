/**
 * Decoder of UTF-8 that is cut anywhere, as `TextDecoder` with `stream: true`. Of what is no UTF-8 it makes U+FFFD, if not
 * always as many; overlong forms and surrogates it lets through.
 */
export class Utf8Decoder {
  #begun = false;
  /** Of a character that is cut: its bits so far, and the number of bytes to come. */
  #bits = 0;
  #missing = 0;

  decode(bytes: Uint8Array): string {
    let text = '';
    for (const byte of bytes) {
      const follows = (byte & 0xc0) === 0x80;
      if (this.#missing && !follows) text += '\ufffd';
      if (follows && this.#missing) {
        this.#bits = (this.#bits << 6) | (byte & 0x3f);
        if (!--this.#missing) text += this.#bits > 0x10ffff ? '\ufffd' : String.fromCodePoint(this.#bits);
      } else {
        this.#missing = byte < 0xc0 || byte > 0xf4 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        this.#bits = byte & (0x3f >> this.#missing);
        if (byte < 0x80) text += String.fromCharCode(byte);
        else if (!this.#missing) text += '\ufffd';
      }
    }
    if (this.#begun || !text) return text;
    this.#begun = true;
    return text.replace(/^\ufeff/, '');
  }
}

/** Binary string of a base64 text, as `atob`. */
export function fromBase64(text: string): string {
  let binary = '';
  let bits = 0;
  let count = 0;
  for (const character of text.replace(/=/g, '')) {
    bits = (bits << 6) | ALPHABET.indexOf(character);
    count += 6;
    if (count > 7) binary += String.fromCharCode((bits >> (count -= 8)) & 0xff);
  }
  return binary;
}

const letters = 'abcdefghijklmnopqrstuvwxyz';
const ALPHABET = `${letters.toUpperCase()}${letters}0123456789+/`;
