// oidc-provider as the tests need it: its clients, its tokens, and two grants more.
//
// A request for a token may carry a `wish`, a form parameter with JSON that no real provider has:
//
//   alg       the signature algorithm of the token
//   lifetime  in seconds
//   claims    claims to set, or with null to leave out: also `exp`, `aud` or `iss`, for tokens that must be refused
//   header    the same for the members of its header
//
// All else is OAuth as it is spoken everywhere, and all tokens are made and signed by the provider itself.

import { createLocalJWKSet, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';
// What the grants of the provider itself are made of; its documentation sends authors of further grants there.
import * as grants from 'oidc-provider/lib/helpers/grants.js';

const USER_GRANT = 'urn:palisade:test:user';
const EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const LIFETIME_SECONDS = 300;

const wish = (ctx) => JSON.parse(ctx.oidc.body?.wish ?? '{}');
const lifetime = (ctx) => wish(ctx).lifetime ?? LIFETIME_SECONDS;
const certificate = (ctx) => ctx.socket.getPeerX509Certificate();
const words = (text) => text?.split(' ') ?? [];

/** A provider with the keys that the ring has now. `agents` are names with their SPIFFE IDs. */
export function makeProvider(issuer, ring, agents, store) {
  const provider = new Provider(issuer, {
    jwks: { keys: ring.all },
    adapter: adapter(clients(agents), store),
    clientAuthMethods: ['client_secret_basic', 'tls_client_auth'],
    // The back channels of the tests are on loopback, which the provider's own dispatcher refuses.
    fetch: (url, { dispatcher: _refuses, ...options }) => fetch(url, options),
    ttl: { AccessToken: lifetime, ClientCredentials: lifetime },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        tlsClientAuth: true,
        getCertificate: certificate,
        certificateAuthorized: (ctx) => ctx.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) =>
          property === 'tls_client_auth_san_uri' &&
          words(certificate(ctx).subjectAltName?.replaceAll(',', '')).includes(`URI:${expected}`),
      },
      resourceIndicators: {
        enabled: true,
        // Every resource exists, and has the scopes that it is asked for. Without one, tokens are opaque.
        getResourceServerInfo: (ctx, resource) => ({
          audience: resource,
          scope: ctx.oidc.params.scope ?? '',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: wish(ctx).alg ?? 'ES256' } },
        }),
      },
    },
    extraTokenClaims: (ctx) => ctx.state.claims,
    formats: {
      customizers: {
        jwt(ctx, _token, jwt) {
          jwt.payload = wished(jwt.payload, wish(ctx).claims);
          jwt.header = wished({}, wish(ctx).header);
        },
      },
    },
  });
  const parameters = ['resource', 'scope'];
  provider.registerGrantType(USER_GRANT, user, [...parameters, 'sub']);
  provider.registerGrantType(EXCHANGE_GRANT, (ctx) => exchange(ctx, ring), [
    ...parameters,
    ...['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type'],
  ]);
  provider.on('server_error', (_ctx, error) => console.error(error));
  return provider;
}

/** `members` as somebody wishes them; JSON has no `undefined`, and leaves such a member out. */
function wished(members, wishes = {}) {
  const absent = ([name, value]) => [name, value === null ? undefined : value];
  return { ...members, ...Object.fromEntries(Object.entries(wishes).map(absent)) };
}

/** Each agent is two clients: its name, with a secret; and its SPIFFE ID, with its certificate, to which its tokens are bound. */
function clients(agents) {
  const common = {
    grant_types: ['client_credentials', USER_GRANT, EXCHANGE_GRANT],
    redirect_uris: [],
    response_types: [],
  };
  const both = Object.entries(agents).flatMap(([name, id]) => [
    { ...common, client_id: name, client_secret: 'secret', token_endpoint_auth_method: 'client_secret_basic' },
    {
      ...common,
      client_id: id,
      token_endpoint_auth_method: 'tls_client_auth',
      tls_client_auth_san_uri: id,
      tls_client_certificate_bound_access_tokens: true,
    },
  ]);
  return new Map(both.map((client) => [`Client ${client.client_id}`, client]));
}

/** What the provider remembers; in `store`, which outlives it. */
function adapter(clients, store) {
  return (model) => ({
    find: async (id) => clients.get(`${model} ${id}`) ?? store.get(`${model} ${id}`),
    upsert: async (id, payload) => void store.set(`${model} ${id}`, payload),
    destroy: async (id) => void store.delete(`${model} ${id}`),
  });
}

/** A token of a user who logged in somewhere, without a browser: `sub` says who. */
async function user(ctx) {
  const { provider, client, params } = ctx.oidc;
  if (!params.sub) throw new errors.InvalidRequest('no sub');
  await issue(ctx, new provider.AccessToken({ client, accountId: params.sub, scope: params.scope }));
}

/**
 * RFC 8693: the client, or whom its `actor_token` is about, acts for the subject from now on. Who acted until now is nested
 * in `act`. A scope that the subject token has not is refused; the new token does not outlive it.
 */
async function exchange(ctx, ring) {
  const { provider, client, params } = ctx.oidc;
  const subject = await believed(provider, ring, params.subject_token, params.subject_token_type);
  const actor = params.actor_token
    ? await believed(provider, ring, params.actor_token, params.actor_token_type)
    : { sub: client.clientId };
  const scope = params.scope ?? subject.scope;
  const more = words(scope).find((one) => !words(subject.scope).includes(one));
  if (more) throw new errors.InvalidScope('the subject token has it not', more);
  // What `issue` resolves the resource with.
  params.scope = scope;
  const { groups, acr, amr, auth_time, sid, act } = subject;
  ctx.state.claims = { groups, acr, amr, auth_time, sid, act: { sub: actor.sub, act } };
  const left = subject.exp - Math.floor(Date.now() / 1000);
  const expiresIn = Math.min(left, lifetime(ctx));
  await issue(ctx, new provider.AccessToken({ client, accountId: subject.sub, scope, expiresIn }), ACCESS_TOKEN);
}

async function believed(provider, ring, token, type) {
  if (type !== ACCESS_TOKEN) throw new errors.InvalidRequest('only access tokens are exchanged');
  try {
    const keys = createLocalJWKSet({ keys: ring.published });
    return (await jwtVerify(token, keys, { issuer: provider.issuer, typ: 'at+jwt' })).payload;
  } catch (cause) {
    throw new errors.InvalidRequest(`not a token of this provider: ${cause.message}`, undefined, { cause });
  }
}

/** What `client_credentials` does, for a token that is made already: its resource, its binding, the answer. */
async function issue(ctx, token, issuedTokenType) {
  const { provider, client } = ctx.oidc;
  const dPoP = await grants.validateDpop(provider, ctx);
  const [resource] = await grants.resolveRequestedResources(provider, ctx);
  if (resource) token.resourceServer = resource;
  const bound = grants.checkMtlsCert(provider, ctx);
  if (bound) token.setThumbprint('x5t', bound);
  if (dPoP) {
    await grants.checkDpopReplay(provider, ctx, dPoP, client.clientId);
    token.setThumbprint('jkt', dPoP.thumbprint);
  }
  ctx.oidc.entity('AccessToken', token);
  ctx.body = grants.buildTokenResponse(provider, {
    accessToken: await token.save(),
    issuedTokenType,
    expiresIn: token.expiration,
    scope: token.scope,
    tokenType: token.tokenType,
  });
}
