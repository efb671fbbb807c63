// The provider's signing keys: those that sign, those that are published before they sign, and those that signed once.

import { generateKeyPair } from 'node:crypto';
import { promisify } from 'node:util';

import { calculateJwkThumbprint } from 'jose';

const generate = promisify(generateKeyPair);

// One key, one algorithm; but the Ed25519 key says none, for it has two names for one algorithm: `EdDSA` and `Ed25519`.
const KINDS = [
  [{ alg: 'RS256' }, 'rsa', { modulusLength: 2048 }],
  [{ alg: 'PS256' }, 'rsa', { modulusLength: 2048 }],
  [{ alg: 'ES256' }, 'ec', { namedCurve: 'P-256' }],
  [{ alg: 'ES384' }, 'ec', { namedCurve: 'P-384' }],
  [{}, 'ed25519', {}],
];

const fresh = () =>
  Promise.all(
    KINDS.map(async ([members, kind, options]) => {
      const { privateKey } = await generate(kind, options);
      const key = privateKey.export({ format: 'jwk' });
      return { ...key, ...members, use: 'sig', kid: await calculateJwkThumbprint(key) };
    }),
  );

export class KeyRing {
  #signing = [];
  #announced = [];
  #retired = [];

  /** Publish new keys that do not sign yet. */
  async announce() {
    this.#announced = await fresh();
  }

  /** Sign with the announced keys, or with new ones; what signed until now stays published. */
  async rotate() {
    if (this.#announced.length === 0) await this.announce();
    this.#retired.push(...this.#signing);
    [this.#signing, this.#announced] = [this.#announced, []];
  }

  /** Publish those no longer that do not sign any more. */
  drop() {
    this.#retired = [];
  }

  /** All that are published, private parts included. The provider signs with the first that fits. */
  get all() {
    return [...this.#signing, ...this.#announced, ...this.#retired];
  }

  /** The same without what is private. */
  get published() {
    return this.all.map(({ d, p, q, dp, dq, qi, ...key }) => key);
  }
}
