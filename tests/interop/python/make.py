"""Prints tokens of PyJWT and jwcrypto as JSON: good ones, and what they make when they are told to break the rules.

A document holds `library`, `keys` (algorithm, kid, and pem, der and jwk, or secret), `good` (name, algorithm, token) and `bad`
(name, algorithm, token, because: the kind of reason that the refusal must name).
"""

import base64
import json
import sys
import warnings

import jwcrypto.jwe
import jwcrypto.jwk
import jwcrypto.jws
import jwcrypto.jwt
import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from importlib.metadata import version
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

warnings.simplefilter("ignore")  # weak secrets are the point of some rows

ISSUER = "https://id.example.com"
CLAIMS = {"iss": ISSUER, "sub": "alice", "aud": "orders-api", "exp": 9000000000, "iat": 1700000000, "client_id": "web", "jti": "t-1"}
TYPE = {"typ": "at+jwt"}

# What a refusal must name; tests/jwt_interop.rs has the words.
FORM, JSON, ALGORITHM, HEADER, CLAIM, SIGNATURE = "form", "json", "algorithm", "header", "claim", "signature"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def text(value):
    return json.dumps(value, separators=(",", ":")).encode()


def but(**changes):
    claims = {**CLAIMS, **changes}
    return {name: value for name, value in claims.items() if value is not None}


def spki(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key):
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def by_hand(header, claims, sign):
    message = f"{b64(text(header))}.{b64(text(claims))}"
    return f"{message}.{b64(sign(message.encode()))}"


class Lax(HMACAlgorithm):
    """Takes a public key for a secret, as PyJWT did before it was a vulnerability."""

    def prepare_key(self, key):
        return key


LAX = jwt.PyJWS()
LAX.unregister_algorithm("HS256")
LAX.register_algorithm("HS256", Lax(Lax.SHA256))


def pyjwt():
    # 2049 bits: a signature has room for one more modulus.
    rsa_key, rsa_large = (rsa.generate_private_key(65537, bits) for bits in (2049, 4096))
    ec_keys = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    private = {name: ec.generate_private_key(curve) for name, curve in ec_keys.items()}
    private |= {name: rsa_key for name in ("RS256", "RS384", "PS256", "PS384")}
    private |= {name: rsa_large for name in ("RS512", "PS512")}
    private["EdDSA"] = ed25519.Ed25519PrivateKey.generate()
    to_jwk = {"E": ECAlgorithm, "R": RSAAlgorithm, "P": RSAAlgorithm}

    def jwk(name, key):
        return (OKPAlgorithm if name == "EdDSA" else to_jwk[name[0]]).to_jwk(key, as_dict=True)

    keys = []
    for name, key in private.items():
        public = key.public_key()
        keys.append({"algorithm": name, "kid": None, "pem": pem(public), "der": b64(spki(public))})
        # RSA JWKs of PyJWT name no algorithm, and then are for RS256.
        keys[-1]["jwk"] = jwk(name, public) | ({"alg": name} if name[0] in "RP" else {})
    secrets = {"HS256": bytes(range(32)), "HS384": bytes(range(48)), "HS512": bytes(range(64))}
    keys += [{"algorithm": name, "kid": None, "secret": b64(secret)} for name, secret in secrets.items()]

    good, bad = [], []

    def accept(name, algorithm, claims, headers):
        key = (private | secrets)[algorithm]
        good.append({"name": name, "algorithm": algorithm, "token": jwt.encode(claims, key, algorithm, headers)})

    def refuse(name, algorithm, token, because):
        bad.append({"name": name, "algorithm": algorithm, "token": token, "because": because})

    def payload(name, data, because):
        refuse(name, "ES256", jwt.PyJWS().encode(data, private["ES256"], "ES256", TYPE), because)

    for algorithm in private | secrets:
        accept("plain", algorithm, CLAIMS, TYPE)
        accept("several audiences", algorithm, but(aud=["billing-api", "orders-api"]), TYPE)
        accept("not ASCII", algorithm, but(name="Zoë \U0001f600", address={"street": ["a", None]}), TYPE)
        accept("a fraction", algorithm, but(exp=8999999999.25, nbf=1.5), TYPE)
        accept("more parameters", algorithm, CLAIMS, TYPE | {"x": {"y": [1, None]}, "a": "é"})
    accept("the long media type", "ES512", CLAIMS, {"typ": "application/at+jwt"})

    es, rs, ed = private["ES256"], private["RS256"], private["EdDSA"]
    mallory = ec.generate_private_key(ec.SECP256R1())
    mallory_jwk = ECAlgorithm.to_jwk(mallory.public_key(), as_dict=True)

    for algorithm in ("ES256", "RS256", "EdDSA"):
        unsigned = jwt.encode(CLAIMS, None, "none", TYPE)
        refuse("alg none", algorithm, unsigned, FORM)
        refuse("alg none with a signature", algorithm, unsigned + "AAAA", ALGORITHM)
        public = private[algorithm].public_key()
        forms = {
            "PEM": pem(public).encode(),
            "PEM without its last line break": pem(public).strip().encode(),
            "PEM with CRLF": pem(public).replace("\n", "\r\n").encode(),
            "DER": spki(public),
            "JWK": json.dumps(jwk(algorithm, public)).encode(),
            "JWK, compact": text(jwk(algorithm, public)),
            "JWK Set": text({"keys": [jwk(algorithm, public)]}),
        }
        if algorithm == "RS256":
            forms["PKCS#1 PEM"] = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
            forms["PKCS#1 DER"] = public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
            forms["modulus"] = public.public_numbers().n.to_bytes(257, "big")
        elif algorithm == "ES256":
            forms["point"] = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            forms["compressed point"] = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        else:
            forms["point"] = public.public_bytes_raw()
        for form, secret in forms.items():
            token = LAX.encode(text(CLAIMS), secret, "HS256", TYPE)
            refuse(f"HS256 with the public key in {form}", algorithm, token, ALGORITHM)

    # Keys and places of keys that the header brings.
    refuse("jwk", "ES256", jwt.encode(CLAIMS, mallory, "ES256", TYPE | {"jwk": mallory_jwk}), HEADER)
    refuse("jwk, ours", "ES256", jwt.encode(CLAIMS, es, "ES256", TYPE | {"jwk": jwk("ES256", es.public_key())}), HEADER)
    kids = {
        "kid a path": "../../../../../../dev/null",
        "kid a path, percent-encoded": "..%2f..%2fdev%2fnull",
        "kid with NUL": "main.pem\0.txt",
        "kid SQL": "x' UNION SELECT 'secret' -- ",
        "kid a command": "$(cat /etc/passwd)|x;",
        "kid a URL": "https://mallory.example/jwks.json",
        "kid LDAP": "*)(uid=*))(|(uid=*",
    }
    for name, kid in kids.items():
        refuse(name, "ES256", jwt.encode(CLAIMS, mallory, "ES256", TYPE | {"kid": kid}), SIGNATURE)
        for secret in (b"", b"secret"):
            token = LAX.encode(text(CLAIMS), secret, "HS256", TYPE | {"kid": kid})
            refuse(f"{name}, HS256 with {secret}", "HS256", token, SIGNATURE)
    for name, value in {
        "jku": "https://mallory.example/jwks.json",
        "x5u": "https://mallory.example/cert.pem",
        "x5c": [base64.b64encode(spki(mallory.public_key())).decode()],
    }.items():
        refuse(name, "ES256", jwt.encode(CLAIMS, mallory, "ES256", TYPE | {name: value}), SIGNATURE)

    # Extensions. `b64` as PyJWT writes it, and with the payload put in.
    for names in (["exp"], ["https://example.com/must"], ["b64"], [], "exp", None, [1]):
        header = TYPE | {"alg": "ES256", "crit": names}
        token = by_hand(header, CLAIMS, lambda message: ECAlgorithm(ECAlgorithm.SHA256).sign(message, es))
        refuse(f"crit of {names}", "ES256", token, HEADER)
    refuse("crit by PyJWT", "ES256", jwt.encode(CLAIMS, es, "ES256", TYPE | {"crit": ["x"], "x": 1}), HEADER)
    encoded = b64(text(CLAIMS))
    detached = jwt.PyJWS().encode(encoded.encode(), es, "ES256", TYPE | {"b64": False})
    refuse("detached", "ES256", detached, FORM)
    refuse("b64", "ES256", detached.replace("..", f".{encoded}."), HEADER)

    # Signatures by the right key in the wrong form.
    for algorithm, hash_ in (("ES256", hashes.SHA256()), ("ES384", hashes.SHA384()), ("ES512", hashes.SHA512())):
        header = TYPE | {"alg": algorithm}
        key = private[algorithm]
        token = by_hand(header, CLAIMS, lambda message: key.sign(message, ec.ECDSA(hash_)))
        refuse("signature in DER", algorithm, token, SIGNATURE)
        other = hashes.SHA512() if algorithm == "ES256" else hashes.SHA256()
        hand = ECAlgorithm(lambda: other)
        refuse("another hash", algorithm, by_hand(header, CLAIMS, lambda message: hand.sign(message, key)), SIGNATURE)
        foreign = private["ES384" if algorithm == "ES256" else "ES256"]
        unchecked = ECAlgorithm(lambda: hash_)
        token = by_hand(header, CLAIMS, lambda message: unchecked.sign(message, foreign))
        refuse("another curve", algorithm, token, SIGNATURE)
    pss = lambda mgf, salt: padding.PSS(mgf=padding.MGF1(mgf), salt_length=salt)
    for name, algorithm, scheme, hash_ in [
        ("PSS without salt", "PS256", pss(hashes.SHA256(), 0), hashes.SHA256()),
        ("PSS with a short salt", "PS256", pss(hashes.SHA256(), 20), hashes.SHA256()),
        ("PSS with the longest salt", "PS256", pss(hashes.SHA256(), padding.PSS.MAX_LENGTH), hashes.SHA256()),
        ("PSS with MGF1 of SHA-1", "PS256", pss(hashes.SHA1(), 32), hashes.SHA256()),
        ("PSS as PKCS#1", "RS256", pss(hashes.SHA256(), 32), hashes.SHA256()),
        ("PKCS#1 as PSS", "PS256", padding.PKCS1v15(), hashes.SHA256()),
        ("PKCS#1 with another hash", "RS256", padding.PKCS1v15(), hashes.SHA512()),
        ("PKCS#1 with SHA-1", "RS256", padding.PKCS1v15(), hashes.SHA1()),
    ]:
        header = TYPE | {"alg": algorithm}
        token = by_hand(header, CLAIMS, lambda message: rs.sign(message, scheme, hash_))
        refuse(name, algorithm, token, SIGNATURE)
    for algorithm in ("RS256", "PS256"):
        message, _, signature = jwt.encode(CLAIMS, rs, algorithm, TYPE).rpartition(".")
        number = int.from_bytes(base64.urlsafe_b64decode(signature + "=="), "big")
        larger = number + rs.public_key().public_numbers().n
        refuse("signature and modulus", algorithm, f"{message}.{b64(larger.to_bytes(257, 'big'))}", SIGNATURE)
        refuse("a leading zero", algorithm, f"{message}.{b64(number.to_bytes(258, 'big'))}", SIGNATURE)

    # Algorithms that PyJWT has and we do not.
    refuse("ES256K", "ES256", jwt.encode(CLAIMS, ec.generate_private_key(ec.SECP256K1()), "ES256K", TYPE), ALGORITHM)
    refuse("ES521", "ES512", jwt.encode(CLAIMS, private["ES512"], "ES521", TYPE), ALGORITHM)
    refuse("Ed448", "EdDSA", jwt.encode(CLAIMS, ed448.Ed448PrivateKey.generate(), "EdDSA", TYPE), SIGNATURE)

    # JSON that Python writes or reads.
    for name, value in (("NaN", float("nan")), ("Infinity", float("inf")), ("-Infinity", float("-inf"))):
        payload(f"exp {name}", text(but(exp=value)), JSON)
        payload(f"unknown claim {name}", text(but(x=value)), JSON)
    plain = json.dumps(CLAIMS)
    payload("UTF-16", plain.encode("utf-16"), JSON)
    payload("UTF-32", plain.encode("utf-32"), JSON)
    payload("UTF-16 without a mark", plain.encode("utf-16-le"), JSON)
    payload("UTF-8 with a mark", plain.encode("utf-8-sig"), JSON)
    payload("Latin-1", plain.replace("alice", "Zoë").encode("latin-1"), JSON)
    payload("half a pair", text(but(x="\ud800")), JSON)
    payload("sub twice", text(CLAIMS)[:-1] + b',"sub":"mallory"}', JSON)
    payload("deep", text(CLAIMS)[:-1] + b',"x":' + b"[" * 4000 + b"]" * 4000 + b"}", JSON)
    payload("1 MiB", text(but(x="a" * 786_000)), FORM)
    payload("not an object", text([CLAIMS]), JSON)

    # Claims.
    for name, claims in [
        ("another issuer", but(iss=ISSUER + "/")),
        ("no issuer", but(iss=None)),
        ("another audience", but(aud="billing-api")),
        ("no audience", but(aud=None)),
        ("no subject", but(sub=None)),
        ("expired", but(exp=1700000000)),
        ("no expiry", but(exp=None)),
        ("expiry in milliseconds", but(exp=9000000000000)),
        ("expiry a string", but(exp="9000000000")),
        ("not yet", but(nbf=8000000000)),
        ("from the future", but(iat=8000000000)),
    ]:
        payload(name, text(claims), CLAIM)
    refuse("the type PyJWT writes", "ES256", jwt.encode(CLAIMS, es, "ES256"), HEADER)
    refuse("EdDSA by another key", "EdDSA", jwt.encode(CLAIMS, ed25519.Ed25519PrivateKey.generate(), "EdDSA", TYPE), SIGNATURE)
    refuse("ES256 for an EdDSA key", "EdDSA", jwt.encode(CLAIMS, es, "ES256", TYPE), ALGORITHM)
    refuse("EdDSA for an ES256 key", "ES256", jwt.encode(CLAIMS, ed, "EdDSA", TYPE), ALGORITHM)
    return {"library": f"PyJWT {version('pyjwt')}", "keys": keys, "good": good, "bad": bad}


def with_jwcrypto():
    JWK = jwcrypto.jwk.JWK
    kinds = {f"{kind}{bits}": {"kty": "RSA", "size": 2048} for kind in ("RS", "PS") for bits in (256, 384, 512)}
    kinds |= {f"HS{bits}": {"kty": "oct", "size": bits} for bits in (256, 384, 512)}
    kinds |= {f"ES{bits}": {"kty": "EC", "crv": f"P-{521 if bits == 512 else bits}"} for bits in (256, 384, 512)}
    kinds["EdDSA"] = {"kty": "OKP", "crv": "Ed25519"}
    private = {name: JWK.generate(**kind, kid=f"{name}-1", use="sig", alg=name) for name, kind in kinds.items()}
    keys, good, bad = [], [], []
    for name, key in private.items():
        if name.startswith("HS"):
            keys.append({"algorithm": name, "kid": f"{name}-1", "secret": key.export(as_dict=True)["k"]})
        else:
            text_ = key.export_to_pem().decode()
            der = "".join(line for line in text_.splitlines() if not line.startswith("-"))
            der = b64(base64.b64decode(der))
            public = key.export_public(as_dict=True)
            keys.append({"algorithm": name, "kid": f"{name}-1", "pem": text_, "der": der, "jwk": public})

    def token(algorithm, header, claims, key):
        made = jwcrypto.jwt.JWT(header={"alg": algorithm} | header, claims=claims, algs=[algorithm])
        made.make_signed_token(key)
        return made.serialize()

    def refuse(name, algorithm, value, because):
        bad.append({"name": name, "algorithm": algorithm, "token": value, "because": because})

    for name, key in private.items():
        for what, header in [("with kid", TYPE | {"kid": f"{name}-1"}), ("without kid", TYPE)]:
            good.append({"name": what, "algorithm": name, "token": token(name, header, CLAIMS, key)})

    es = private["ES256"]
    signed = jwcrypto.jws.JWS(text(CLAIMS))
    signed.add_signature(es, None, json.dumps(TYPE | {"alg": "ES256"}), None)
    refuse("flattened JSON", "ES256", signed.serialize(), FORM)
    signed.add_signature(private["ES384"], None, json.dumps(TYPE | {"alg": "ES384"}), None)
    refuse("general JSON", "ES256", signed.serialize(), FORM)
    unencoded = jwcrypto.jws.JWS(b64(text(CLAIMS)))
    unencoded.add_signature(es, None, json.dumps(TYPE | {"alg": "ES256", "b64": False, "crit": ["b64"]}), None)
    refuse("b64", "ES256", unencoded.serialize(compact=True), HEADER)

    secret = JWK.generate(kty="oct", size=256)
    for more in ({}, {"zip": "DEF"}, {"cty": "JWT"}):
        header = TYPE | {"alg": "dir", "enc": "A256GCM"} | more
        inner = token("ES256", TYPE, CLAIMS, es) if "cty" in more else text(CLAIMS)
        encrypted = jwcrypto.jwe.JWE(inner, json.dumps(header))
        encrypted.add_recipient(secret)
        refuse(f"JWE {more}", "ES256", encrypted.serialize(compact=True), FORM)
        refuse(f"JWS with {more}", "ES256", token("ES256", TYPE | more | {"enc": "A256GCM"}, CLAIMS, es), HEADER)
    refuse("nested", "ES256", token("ES256", TYPE | {"cty": "JWT"}, CLAIMS, es), HEADER)
    refuse("zip", "ES256", token("ES256", TYPE | {"zip": "DEF"}, CLAIMS, es), HEADER)
    mallory = JWK.generate(kty="EC", crv="P-256", kid="ES256-1")
    refuse("another key of the same id", "ES256", token("ES256", TYPE | {"kid": "ES256-1"}, CLAIMS, mallory), SIGNATURE)
    refuse("an unknown id", "ES256", token("ES256", TYPE | {"kid": "ES256-2"}, CLAIMS, es), SIGNATURE)
    brought = TYPE | {"jwk": mallory.export_public(as_dict=True)}
    refuse("jwk", "ES256", token("ES256", brought, CLAIMS, mallory), HEADER)
    return {"library": f"jwcrypto {version('jwcrypto')}", "keys": keys, "good": good, "bad": bad}


json.dump([pyjwt(), with_jwcrypto()], sys.stdout)
