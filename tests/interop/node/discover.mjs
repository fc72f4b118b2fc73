// From a refusal to an answer, as a client finds its way that knows nothing but the URL of an API: oauth4webapi reads the
// challenge of a 401, the metadata of the resource (RFC 9728) and of its issuer (RFC 8414), gets a token, and asks again.
//
// node discover.mjs PACKAGES RESOURCE CLIENT SECRET: PACKAGES holds node_modules. The output is one JSON object.

import { createRequire } from "node:module";

// The packages stand in the folder that is named, not beside this file.
const [packages, resource, client_id, secret] = process.argv.slice(2);
const oauth = await import(createRequire(`${packages}/`).resolve("oauth4webapi"));
const url = new URL(resource);

const ask = (token) => oauth.protectedResourceRequest(token, "GET", url);
const refused = await ask("no.good.token").then(
  () => {
    throw new Error("a bad token passed");
  },
  (error) => {
    if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error;
    return error;
  },
);
const [challenge] = refused.cause;

// Derived from the identifier, as RFC 9728 §3.1 says, and not taken from the challenge: both must lead to one place.
const response = await oauth.resourceDiscoveryRequest(url);
const found = response.url;
const metadata = await oauth.processResourceDiscoveryResponse(url, response);

const issuer = new URL(metadata.authorization_servers[0]);
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer));
const client = { client_id };
const parameters = { resource: metadata.resource, scope: metadata.scopes_supported[0] };
const grant = await oauth.clientCredentialsGrantRequest(as, client, oauth.ClientSecretBasic(secret), parameters);
const { access_token } = await oauth.processClientCredentialsResponse(as, client, grant);

const answer = await ask(access_token);
console.log(
  JSON.stringify({
    refused: refused.status,
    scheme: challenge.scheme,
    error: challenge.parameters.error,
    named: challenge.parameters.resource_metadata,
    found,
    metadata,
    status: answer.status,
    body: await answer.text(),
  }),
);
