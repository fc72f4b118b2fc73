//! What the RFCs sign, each provider verifies, and each refuses the same forgeries.

use base64::Engine;

use super::NotAKey;
use crate::jwt::{
    Algorithm,
    algorithm::{Curve, Family},
    token::BASE64,
};

const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const FRODO: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9h\
    ZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";

struct Example {
    name: &'static str,
    algorithm: Algorithm,
    /// `k`; `n` with `e` of 65537; `x` and `y`; or `x`.
    key: &'static [&'static str],
    header: &'static str,
    payload: &'static str,
    signature: &'static str,
}

const EXAMPLES: [Example; 9] = [
    Example {
        name: "RFC 7515 A.1",
        algorithm: Algorithm::HS256,
        key: &["AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"],
        header: "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
        payload: JOE,
        signature: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    },
    Example {
        name: "RFC 7515 A.2",
        algorithm: Algorithm::RS256,
        key: &["ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
            T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
            dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
            GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"],
        header: "eyJhbGciOiJSUzI1NiJ9",
        payload: JOE,
        signature: "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9\
            uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
            _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq\
            Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    },
    Example {
        name: "RFC 7515 A.3",
        algorithm: Algorithm::ES256,
        key: &["f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"],
        header: "eyJhbGciOiJFUzI1NiJ9",
        payload: JOE,
        signature: "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    },
    Example {
        name: "RFC 7515 A.4",
        algorithm: Algorithm::ES512,
        key: &[
            "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
            "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
        ],
        header: "eyJhbGciOiJFUzUxMiJ9",
        payload: "UGF5bG9hZA",
        signature: "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCA\
            PZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
    },
    Example {
        name: "RFC 7520 §4.1",
        algorithm: Algorithm::RS256,
        key: &["n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRB\
            SFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD\
            1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_\
            qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw"],
        header: "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        payload: FRODO,
        signature: "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi8\
            4wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocS\
            adnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJu\
            shZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
    },
    Example {
        name: "RFC 7520 §4.2",
        algorithm: Algorithm::PS384,
        key: &["n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRB\
            SFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD\
            1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_\
            qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw"],
        header: "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        payload: FRODO,
        signature: "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItl\
            lVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0\
            TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0\
            uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
    },
    Example {
        name: "RFC 7520 §4.3",
        algorithm: Algorithm::ES512,
        key: &[
            "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
            "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
        ],
        header: "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        payload: FRODO,
        signature: "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_\
            sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
    },
    Example {
        name: "RFC 7520 §4.4",
        algorithm: Algorithm::HS256,
        key: &["hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"],
        header: "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9",
        payload: FRODO,
        signature: "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
    },
    Example {
        name: "RFC 8037 A.4",
        algorithm: Algorithm::EdDSA,
        key: &["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"],
        header: "eyJhbGciOiJFZERTQSJ9",
        payload: "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        signature: "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    },
];

/// The order of the group (SEC 2 §2.4.2, §2.5.1, §2.6.1).
fn order(curve: Curve) -> Vec<u8> {
    let hex = match curve {
        Curve::P256 => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        Curve::P384 => {
            "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973"
        }
        Curve::P521 => {
            "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5\
             c9b8899c47aebb6fb71e91386409"
        }
    };
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Signatures that are none, whatever the key.
fn forgeries(family: Family, good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut rows = vec![
        ("empty", vec![]),
        ("one byte", vec![0]),
        ("zeros", vec![0; good.len()]),
        ("ones", vec![0xff; good.len()]),
        ("cut behind", good[..good.len() - 1].to_vec()),
        ("cut in front", good[1..].to_vec()),
        ("zero behind", [good, &[0]].concat()),
        ("zero in front", [&[0], good].concat()),
        ("twice", [good, good].concat()),
    ];
    for bit in [0, 7, good.len() * 4, good.len() * 8 - 1] {
        let mut changed = good.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        rows.push(("a bit changed", changed));
    }
    if let Family::Ec(curve) = family {
        let (order, bytes) = (order(curve), curve.bytes());
        let (r, s) = good.split_at(bytes);
        let mut one = vec![0; bytes];
        one[bytes - 1] = 1;
        let zero = &vec![0; bytes][..];
        let der_integer = |number: &[u8]| {
            let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
            let sign: &[u8] = if number[0] >= 0x80 { &[0] } else { &[] };
            [&[2, u8::try_from(number.len() + sign.len()).unwrap()], sign, &number].concat()
        };
        let content = [der_integer(r), der_integer(s)].concat();
        let length = u8::try_from(content.len()).unwrap();
        let head = if length < 0x80 { vec![0x30, length] } else { vec![0x30, 0x81, length] };
        rows.extend([
            ("r zero", [zero, s].concat()),
            ("s zero", [r, zero].concat()),
            ("r the order", [&order, s].concat()),
            ("s the order", [r, &order].concat()),
            ("both the order", [&order[..], &order].concat()),
            ("r one, s the order", [&one[..], &order].concat()),
            ("both one", [&one[..], &one].concat()),
            ("r and s exchanged", [s, r].concat()),
            ("DER", [head, content].concat()),
        ]);
    }
    rows
}

/// The same examples and forgeries for each provider.
macro_rules! provider {
    ($name:ident, $feature:literal, $module:ident) => {
        #[cfg(feature = $feature)]
        mod $name {
            use super::{super::$module::Verifier, *};

            fn verifier(example: &Example) -> Result<Verifier, NotAKey> {
                let key: Vec<Vec<u8>> = example.key.iter().map(|part| BASE64.decode(part).unwrap()).collect();
                match (example.algorithm.family(), &key[..]) {
                    (Family::Hmac(hash), [k]) => Verifier::hmac(hash, k),
                    (Family::Rsa(padding, hash), [n]) => Verifier::rsa(padding, hash, n, &[1, 0, 1]),
                    (Family::Ec(curve), [x, y]) => Verifier::ec(curve, &[&[4][..], x, y].concat()),
                    (Family::Ed25519, [x]) => Verifier::ed25519(x.as_slice().try_into().unwrap()),
                    (family, _) => panic!("{}: {family:?} has other parts", example.name),
                }
            }

            #[test]
            fn examples_of_the_rfcs() {
                for example in &EXAMPLES {
                    let key = verifier(example).unwrap();
                    let message = format!("{}.{}", example.header, example.payload);
                    let signature = BASE64.decode(example.signature).unwrap();
                    assert!(key.verifies(message.as_bytes(), &signature), "{}", example.name);
                    assert!(key.clone().verifies(message.as_bytes(), &signature), "{}, cloned", example.name);
                    let other = message.replacen("eyJ", "eyK", 1);
                    assert!(!key.verifies(other.as_bytes(), &signature), "{}, changed", example.name);
                    for (name, forged) in forgeries(example.algorithm.family(), &signature) {
                        assert!(!key.verifies(message.as_bytes(), &forged), "{}: {name}", example.name);
                    }
                }
            }

            #[test]
            fn points_that_are_none() {
                for curve in [Curve::P256, Curve::P384, Curve::P521] {
                    let bytes = curve.bytes();
                    let rows = [
                        ("no point", vec![]),
                        ("infinity", vec![0]),
                        ("zeros", [&[4][..], &vec![0; 2 * bytes]].concat()),
                        ("beyond the field", [&[4][..], &vec![0xff; 2 * bytes]].concat()),
                        ("one coordinate", [&[4][..], &vec![7; bytes]].concat()),
                        ("hybrid", [&[6][..], &vec![7; 2 * bytes]].concat()),
                    ];
                    for (name, point) in rows {
                        assert!(Verifier::ec(curve, &point).is_err(), "{curve:?}: {name}");
                    }
                }
                // aws-lc-rs looks at the point when it verifies.
                let mut off_the_curve = [0; 32];
                off_the_curve[0] = 2;
                for signature in [[0; 64], [1; 64]] {
                    assert!(!Verifier::ed25519(&off_the_curve).is_ok_and(|key| key.verifies(b"", &signature)));
                }
            }
        }
    };
}

provider!(aws_lc_rs, "jwt", aws_lc);
provider!(pure_rust, "jwt-pure-rust", rust_crypto);
