// Prints tokens of jose as JSON, in the form that ../python/make.py describes.

import { webcrypto } from "node:crypto";
import { createRequire } from "node:module";

// Node.js 18, which some distributions still have, does not show it everywhere.
globalThis.crypto ??= webcrypto;

// The packages stand in the folder that is named, not beside this file.
const require = createRequire(`${process.argv[2]}/`);
const jose = await import(require.resolve("jose"));
const version = require("jose/package.json").version;

const ISSUER = "https://id.example.com";
const CLAIMS = { iss: ISSUER, sub: "alice", aud: "orders-api", exp: 9000000000, iat: 1700000000, client_id: "web", jti: "t-1" };
const TYPE = { typ: "at+jwt" };
const bytes = (text) => new TextEncoder().encode(text);
const but = (changes) => ({ ...CLAIMS, ...changes });
const b64 = (data) => jose.base64url.encode(data);
const token = (alg, key, header = TYPE, claims = CLAIMS, options = {}) =>
  new jose.SignJWT(claims).setProtectedHeader({ alg, ...header }).sign(key, options);

const keys = [];
const good = [];
const bad = [];
const pairs = {};
const secrets = {};
const refuse = (name, algorithm, token, because) => bad.push({ name, algorithm, token, because });

const ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];
for (const algorithm of ASYMMETRIC) {
  pairs[algorithm] = await jose.generateKeyPair(algorithm, { extractable: true });
  const pem = await jose.exportSPKI(pairs[algorithm].publicKey);
  const jwk = await jose.exportJWK(pairs[algorithm].publicKey);
  // The thumbprint of RFC 7638 as key id, as many providers do.
  const kid = await jose.calculateJwkThumbprint(jwk);
  const der = b64(Buffer.from(pem.replace(/-----[A-Z ]+-----|\s/g, ""), "base64"));
  keys.push({ algorithm, kid, pem, der, jwk: { ...jwk, kid, alg: algorithm, use: "sig" } });
  const key = pairs[algorithm].privateKey;
  good.push({ name: "with kid", algorithm, token: await token(algorithm, key, { ...TYPE, kid }) });
  good.push({ name: "without kid", algorithm, token: await token(algorithm, key) });
  const more = { ...TYPE, jku: "https://id.example.com/jwks", x: [{ y: null }] };
  good.push({ name: "more parameters", algorithm, token: await token(algorithm, key, more) });
}
// The name of RFC 9864 in the header; the key is the same.
const ed25519 = await jose.importJWK(await jose.exportJWK(pairs.EdDSA.privateKey), "Ed25519");
good.push({ name: "Ed25519 by name", algorithm: "EdDSA", token: await token("Ed25519", ed25519) });
for (const algorithm of ["HS256", "HS384", "HS512"]) {
  const secret = await jose.generateSecret(algorithm, { extractable: true });
  secrets[algorithm] = secret;
  keys.push({ algorithm, kid: null, secret: (await jose.exportJWK(secret)).k });
  good.push({ name: "plain", algorithm, token: await token(algorithm, secret) });
}

const unsecured = new jose.UnsecuredJWT(CLAIMS).encode();
for (const algorithm of ["ES256", "RS256", "EdDSA", "HS256"]) {
  refuse("alg none", algorithm, unsecured, "form");
  refuse("alg none with a signature", algorithm, `${unsecured}AAAA`, "algorithm");
  if (algorithm === "HS256") continue;
  const { pem, der, jwk } = keys.find((key) => key.algorithm === algorithm);
  const forms = {
    PEM: bytes(pem),
    "PEM with a line break": bytes(`${pem.trim()}\n`),
    DER: jose.base64url.decode(der),
    JWK: bytes(JSON.stringify(jwk)),
    "JWK Set": bytes(JSON.stringify({ keys: [jwk] })),
  };
  for (const [form, secret] of Object.entries(forms)) {
    const forged = await token("HS256", secret);
    refuse(`HS256 with the public key in ${form}`, algorithm, forged, "algorithm");
  }
}

const es = pairs.ES256.privateKey;
const mallory = await jose.generateKeyPair("ES256", { extractable: true });
const malloryJwk = await jose.exportJWK(mallory.publicKey);
const ours = keys.find((key) => key.algorithm === "ES256").kid;
for (const [name, header, because] of [
  ["jwk", { jwk: malloryJwk }, "header"],
  ["jwk and our kid", { jwk: malloryJwk, kid: ours }, "header"],
  ["our kid", { kid: ours }, "signature"],
  ["jku", { jku: "https://mallory.example/jwks" }, "signature"],
  ["x5u", { x5u: "https://mallory.example/cert" }, "signature"],
  ["kid a path", { kid: "../../../dev/null" }, "signature"],
  ["kid SQL", { kid: "0' OR '1'='1" }, "signature"],
  ["kid a URL", { kid: "https://mallory.example/jwks#1" }, "signature"],
]) {
  refuse(name, "ES256", await token("ES256", mallory.privateKey, { ...TYPE, ...header }), because);
}
refuse("HS256 with an empty secret", "HS256", await token("HS256", new Uint8Array(32)), "signature");

const extension = "https://example.com/must";
const critical = { ...TYPE, crit: [extension], [extension]: true };
refuse("crit", "ES256", await token("ES256", es, critical, CLAIMS, { crit: { [extension]: true } }), "header");
const payload = b64(bytes(JSON.stringify(CLAIMS)));
for (const b64 of [true, false]) {
  const signer = new jose.FlattenedSign(bytes(b64 ? JSON.stringify(CLAIMS) : payload));
  const jws = await signer.setProtectedHeader({ alg: "ES256", ...TYPE, b64, crit: ["b64"] }).sign(es);
  refuse(`b64 ${b64}`, "ES256", `${jws.protected}.${payload}.${jws.signature}`, "header");
  refuse(`b64 ${b64} as JSON`, "ES256", JSON.stringify({ ...jws, payload }), "form");
}
const general = new jose.GeneralSign(bytes(JSON.stringify(CLAIMS)));
general.addSignature(es).setProtectedHeader({ alg: "ES256", ...TYPE });
refuse("general JSON", "ES256", JSON.stringify(await general.sign()), "form");

const encryption = { alg: "dir", enc: "A256GCM", ...TYPE };
const secret = await jose.generateSecret("A256GCM");
refuse("JWE", "ES256", await new jose.EncryptJWT(CLAIMS).setProtectedHeader(encryption).encrypt(secret), "form");
const inner = bytes(await token("ES256", es));
const nested = new jose.CompactEncrypt(inner).setProtectedHeader({ ...encryption, cty: "JWT" });
refuse("nested in a JWE", "ES256", await nested.encrypt(secret), "form");
const wrapped = new jose.CompactSign(inner).setProtectedHeader({ alg: "ES256", ...TYPE, cty: "JWT" });
refuse("nested in a JWS", "ES256", await wrapped.sign(es), "header");

for (const [name, claims] of [
  ["another issuer", but({ iss: "https://id.example.com/" })],
  ["issuer in an array", but({ iss: [ISSUER] })],
  ["another audience", but({ aud: "billing-api" })],
  ["no audience", but({ aud: undefined })],
  ["expired", but({ exp: 1700000000 })],
  ["no expiry", but({ exp: undefined })],
  ["not yet", but({ nbf: 8000000000 })],
  ["subject a number", but({ sub: 1 })],
  ["bound to a key", but({ cnf: { jkt: await jose.calculateJwkThumbprint(malloryJwk) } })],
]) {
  const signer = new jose.CompactSign(bytes(JSON.stringify(claims))).setProtectedHeader({ alg: "ES256", ...TYPE });
  refuse(name, "ES256", await signer.sign(es), "claim");
}
refuse("typ JWT", "ES256", await token("ES256", es, { typ: "JWT" }), "header");
refuse("no typ", "ES256", await token("ES256", es, {}), "header");
refuse("PS256 for RS256", "RS256", await token("PS256", pairs.PS256.privateKey), "algorithm");

process.stdout.write(JSON.stringify([{ library: `jose ${version}`, keys, good, bad }]));
