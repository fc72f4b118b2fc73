// A client of an OpenID provider and of a service, with proofs of possession (RFC 9449): openid-client.
//
// node dpop_client.mjs PACKAGES ISSUER SERVICE: PACKAGES holds node_modules; NODE_EXTRA_CA_CERTS names who certified the two.
// The first line of the output is `ready`. Then each line of the input is a command, and gets one line of JSON in answer:
//   token RESOURCE ALG   makes a key for ALG and gets a token for the resource that is bound to it: its type and itself.
//   call METHOD PATH     calls the service, as the library does it: all requests that it sent, each with its proof and answer.
//   stranger METHOD PATH the same with the token, and proofs of another key.
//   replay METHOD PATH   the token, and the proof of the last request.
//   bearer METHOD PATH   the token alone, as a bearer token.
// The end of the input ends it.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [packages, issuer, service] = process.argv.slice(2);
const openid = await import(pathToFileURL(createRequire(`${packages}/`).resolve("openid-client")));

const secret = openid.ClientSecretBasic("a secret of the shop, for tests alone");
const config = await openid.discovery(new URL(issuer), "shop", undefined, secret);

// What goes to the service, and what comes back.
let sent = [];
const note = async (request, response) => {
  const { headers } = response;
  sent.push({
    proof: request.headers.dpop,
    status: response.status,
    challenge: headers.get("www-authenticate"),
    nonce: headers.get("dpop-nonce"),
    body: await response.clone().text(),
  });
  return response;
};
config[openid.customFetch] = async (url, options) => {
  const response = await fetch(url, options);
  return url.startsWith(service) ? note({ headers: Object.fromEntries(new Headers(options.headers)) }, response) : response;
};

let token, proofs;

const call = async (handle, method, path) => {
  sent = [];
  try {
    await openid.fetchProtectedResource(config, token, new URL(service + path), method, null, undefined, { DPoP: handle });
  } catch (error) {
    // A refusal is an error to it.
    if (!sent.length) throw error;
  }
  return sent;
};

const plain = async (method, path, headers) => {
  const proof = sent.at(-1)?.proof;
  sent = [];
  const sending = headers(proof);
  await note({ headers: sending }, await fetch(service + path, { method, headers: sending }));
  return sent;
};

const commands = {
  async token(resource, alg) {
    proofs = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair(alg));
    const form = { resource, scope: "orders:read" };
    const answer = await openid.clientCredentialsGrant(config, form, { DPoP: proofs });
    token = answer.access_token;
    return { type: answer.token_type, token };
  },
  call: (method, path) => call(proofs, method, path),
  stranger: async (method, path) =>
    call(openid.getDPoPHandle(config, await openid.randomDPoPKeyPair("ES256")), method, path),
  replay: (method, path) => plain(method, path, (dpop) => ({ authorization: `DPoP ${token}`, dpop })),
  bearer: (method, path) => plain(method, path, () => ({ authorization: `Bearer ${token}` })),
};

const print = (line) => process.stdout.write(`${line}\n`);
print("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = line.split(" ");
  print(JSON.stringify(await commands[name](...args)));
}
process.exit();
