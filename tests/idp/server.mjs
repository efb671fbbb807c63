// The identity provider of the tests: `node server.mjs CONFIG`, with CONFIG as JSON:
//
//   certificate, key  files: what it shows as a TLS server for 127.0.0.1
//   trusted           files: authorities of the client certificates that it accepts
//   agents            names with their SPIFFE IDs
//
// When it is ready it prints one line: {"issuer": …, "port": …, "control": …}. `control` is a port for the test's wishes:
// each is a POST with JSON to one of the paths below, answered when it is done.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { Readable } from 'node:stream';
import { json } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';

import { KeyRing } from './keys.mjs';
import { makeProvider } from './provider.mjs';

// Standard output is for the one line; the provider gives its hints there.
console.info = console.error;

const config = JSON.parse(process.argv[2]);
const trusted = [...config.trusted];
const ring = new KeyRing();
const store = new Map();
const counts = {};
const sent = {};
const behaviour = {};
const waiting = {};
let down = false;
let issuer;
let provider;
let handler;

const tls = () => ({
  cert: readFileSync(config.certificate),
  key: readFileSync(config.key),
  ca: trusted.map((file) => readFileSync(file)),
});

const server = https.createServer({ ...tls(), requestCert: true, rejectUnauthorized: false }, (request, response) => {
  const path = request.url.split('?')[0];
  counts[path] = (counts[path] ?? 0) + 1;
  answer(path, request, response);
});
// Down, it keeps its port: nobody else can take it meanwhile.
server.prependListener('connection', (socket) => down && socket.destroy());

function answer(path, request, response) {
  const { status, headers = {}, body = '', times = 1, pause, hang } = behaviour[path] ?? {};
  if (hang) return (waiting[path] ??= []).push(() => answer(path, request, response));
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  if (status === undefined) return handler(request, response);
  response.statusCode = status;
  const one = { bytes: 0, ended: false };
  (sent[path] ??= []).push(one);
  // Whoever has read enough may hang up.
  pipeline(Readable.from(repeated(body, times, pause, one)), response)
    .catch(() => {})
    .finally(() => (one.ended = true));
}

/** A text so many times, in pieces of about 64 KiB; or, with a pause between them in milliseconds, one by one. */
async function* repeated(text, times, pause, one) {
  const each = pause ? 1 : Math.max(1, Math.floor(65_536 / (text.length || 1)));
  for (let left = times; left > 0; left -= each) {
    const piece = Buffer.from(text.repeat(Math.min(each, left)));
    yield piece;
    one.bytes += piece.length;
    if (pause) await setTimeout(pause);
  }
}

// The keys of a provider are fixed: new keys, new provider, behind the same port.
const publish = () => {
  provider = makeProvider(issuer, ring, config.agents, store);
  handler = provider.callback();
};

const wishes = {
  /** New keys are published, and do not sign yet. */
  '/announce': async () => {
    await ring.announce();
    publish();
  },
  /** The announced keys sign, or new ones; the old ones stay published. */
  '/rotate': async () => {
    await ring.rotate();
    publish();
  },
  /** The old keys are no longer published. */
  '/drop': () => {
    ring.drop();
    publish();
  },
  /**
   * How a path is answered from now on: with `status`, `headers` and `body` (`times` over, `pause` milliseconds between
   * them); by the provider, with further `headers`; or not at all (`hang`) until the next wish about this path, by which all who wait are answered then.
   */
  '/behave': ({ path, ...how }) => {
    behaviour[path] = how;
    const released = waiting[path] ?? [];
    waiting[path] = [];
    for (const again of released) again();
  },
  /** Every connection ends, and every new one at once. */
  '/down': () => {
    down = true;
    server.closeAllConnections();
  },
  '/up': () => {
    down = false;
  },
  /** Client certificates of another authority count too. */
  '/trust': ({ file }) => {
    trusted.push(file);
    server.setSecureContext(tls());
  },
  /** The back channel of a client leads to `uri`, and a session of it ends: with `session` that one, else all of the user's. */
  '/logout': async ({ client, subject, session, uri }) => {
    const found = await provider.Client.find(client);
    Object.assign(found, { backchannelLogoutUri: uri, backchannelLogoutSessionRequired: Boolean(session) });
    await found.backchannelLogout(subject, session);
  },
  /** How many requests there were, by path. */
  '/requests': () => counts,
  /** Of the answers with a body that was wished for, by path: how many bytes of it could be sent, and if that has ended. */
  '/sent': () => sent,
};

const control = http.createServer(async (request, response) => {
  try {
    const done = await wishes[request.url](await json(request));
    response.end(JSON.stringify(done ?? {}));
  } catch (error) {
    response.writeHead(400).end(String(error));
  }
});

await ring.rotate();
await Promise.all([server, control].map((one) => once(one.listen(0, '127.0.0.1'), 'listening')));
const { port } = server.address();
issuer = `https://127.0.0.1:${port}`;
publish();
console.log(JSON.stringify({ issuer, port, control: control.address().port }));
