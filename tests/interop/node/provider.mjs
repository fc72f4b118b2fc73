// An OpenID provider on loopback over HTTPS: oidc-provider, with keys that change when it is told.
//
// node provider.mjs PACKAGES FOLDER: PACKAGES holds node_modules, FOLDER the server's cert.pem and key.pem for `localhost`.
// The first line of the output is the port. Then each line of the input is a command, and gets one line in answer:
//   rotate ALG     makes a new key for ALG, which signs from now on; the old ones stay in the set. Its kid.
//   drop KID       takes a key out of the set.
//   code RESOURCE  an authorization code, as the browser would bring it once alice has logged in; RESOURCE may be missing.
//   logout CLIENT URL SID  posts a logout token to the client's URL, for alice, or for this session of hers; SID may be missing.
//                  `told`, or why the client was not.
//   fetches        how often the JWK Set was asked for.
//   introspections how often it was asked about tokens.
//   key            the private key of the client `orders-api-by-key`, PKCS #8 in base64.
//   stop, start    listens no longer, and again at the same port.
// The end of the input ends it.

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:https";
import { join } from "node:path";
import { createInterface } from "node:readline";

// The output is for answers alone.
console.info = console.log = console.error;

// The packages stand in the folder that is named, not beside this file.
const [packages, folder] = process.argv.slice(2);
const { default: Provider } = await import(createRequire(`${packages}/`).resolve("oidc-provider"));

const REDIRECT = "https://shop.example.com/callback";
const SCOPES = "orders:read orders:write";
const pairs = {
  RS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
  PS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }),
  EdDSA: () => generateKeyPairSync("ed25519"),
};

let made = 0;
const make = (alg) => {
  made += 1;
  return { ...pairs[alg]().privateKey.export({ format: "jwk" }), alg, use: "sig", kid: `${alg}-${made}` };
};
let keys = Object.keys(pairs).map(make);
let fetches = 0;
let introspections = 0;

// A resource is urn:AUDIENCE:ALG; its tokens are JWTs for the audience, signed with the algorithm. A URL is its own audience.
// Those of urn:AUDIENCE:opaque are opaque.
const resource = (ctx, indicator) => {
  const [, audience, alg] = indicator.startsWith("urn:") ? indicator.split(":") : ["", indicator, "ES256"];
  if (alg === "opaque") return { scope: SCOPES, audience, accessTokenFormat: "opaque", accessTokenTTL: 3600 };
  return { scope: SCOPES, audience, accessTokenFormat: "jwt", accessTokenTTL: 3600, jwt: { sign: { alg } } };
};

// Services that only ask about tokens.
const asks = { grant_types: [], redirect_uris: [], response_types: [], token_endpoint_auth_method: "client_secret_basic" };
const own = generateKeyPairSync("ec", { namedCurve: "P-256" });

const configuration = {
  clients: [
    { ...asks, client_id: "orders-api", client_secret: "a secret: of the API, 100 % for tests" },
    {
      ...asks,
      client_id: "orders-api-by-post",
      client_secret: "a secret: of the API, 100 % for tests",
      token_endpoint_auth_method: "client_secret_post",
    },
    {
      ...asks,
      client_id: "orders-api-by-key",
      token_endpoint_auth_method: "private_key_jwt",
      token_endpoint_auth_signing_alg: "ES256",
      jwks: { keys: [{ ...own.publicKey.export({ format: "jwk" }), alg: "ES256", use: "sig", kid: "own" }] },
    },
    {
      client_id: "shop",
      client_secret: "a secret of the shop, for tests alone",
      grant_types: ["authorization_code", "client_credentials"],
      redirect_uris: [REDIRECT],
      id_token_signed_response_alg: "ES256",
    },
  ],
  cookies: { keys: ["for tests alone"] },
  scopes: ["openid", ...SCOPES.split(" ")],
  findAccount: (ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  enabledJWA: { dPoPSigningAlgValues: Object.keys(pairs), idTokenSigningAlgValues: Object.keys(pairs) },
  features: {
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    // Who sends a proof of its key gets a token that is bound to it, once the proof has a nonce.
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: { enabled: true, getResourceServerInfo: resource },
  },
};

const cert = readFileSync(join(folder, "cert.pem"));
const key = readFileSync(join(folder, "key.pem"));
let handle;
const server = createServer({ cert, key }, (request, response) => {
  if (request.url === "/jwks") fetches += 1;
  if (request.url === "/token/introspection") introspections += 1;
  handle(request, response);
});
const listen = (port) =>
  new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", resolve));
await listen(0);
const { port } = server.address();

// A provider does not change its keys, so another one takes its place.
let provider;
const serve = () => {
  provider = new Provider(`https://localhost:${port}`, { ...configuration, jwks: { keys } });
  handle = provider.callback();
};
serve();

const commands = {
  rotate(alg) {
    keys = [make(alg), ...keys];
    serve();
    return keys[0].kid;
  },
  drop(kid) {
    const left = keys.filter((key) => key.kid !== kid);
    if (left.length !== keys.length - 1) throw new Error(`no key ${kid}`);
    keys = left;
    serve();
    return kid;
  },
  async code(indicator) {
    const granted = { accountId: "alice", clientId: "shop" };
    const grant = new provider.Grant(granted);
    grant.addOIDCScope("openid");
    if (indicator) grant.addResourceScope(indicator, SCOPES);
    const grantId = await grant.save();
    const client = await provider.Client.find("shop");
    const scope = indicator ? `openid ${SCOPES}` : "openid";
    const code = { accountId: "alice", client, grantId, gty: "authorization_code", redirectUri: REDIRECT, scope };
    return new provider.AuthorizationCode({ ...code, resource: indicator, nonce: "n-1" }).save();
  },
  async logout(name, url, sid) {
    const client = await provider.Client.find(name);
    client.backchannelLogoutUri = url;
    client.backchannelLogoutSessionRequired = sid !== undefined;
    return client.backchannelLogout("alice", sid).then(
      () => "told",
      (error) => error.message,
    );
  },
  fetches: () => fetches,
  introspections: () => introspections,
  key: () => own.privateKey.export({ format: "der", type: "pkcs8" }).toString("base64"),
  async stop() {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
    return "stopped";
  },
  async start() {
    await listen(port);
    return "started";
  },
};

const print = (line) => process.stdout.write(`${line}\n`);
print(port);
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...told] = line.split(" ");
  print(await commands[name](...told));
}
process.exit();
