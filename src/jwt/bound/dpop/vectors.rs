//! The examples of RFC 9449.

use http::{Method, Request};

use super::*;
use crate::principal::{Confirmation, PrincipalKind};

/// §4.1: a request for a token, so without `ath`.
const OF_A_TOKEN_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
/// §7.1: a request for a resource, with the token below.
const OF_A_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const MADE_AT: u64 = 1_562_262_618;
/// §6.1.
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

struct Asked<'a> {
    url: &'a str,
    method: Method,
    path: &'a str,
    proof: &'a str,
    token: &'a str,
    jkt: &'a str,
    at: u64,
}

/// The requests of §7.1, as we may be asked.
fn asked() -> Asked<'static> {
    Asked {
        url: "https://resource.example.org",
        method: Method::GET,
        path: "/protectedresource",
        proof: OF_A_REQUEST,
        token: TOKEN,
        jkt: JKT,
        at: MADE_AT,
    }
}

/// Why it is refused, if it is.
async fn refusal(prover: &Prover, asked: &Asked<'_>) -> Option<String> {
    let jkt = confirmation::hash(asked.jkt).unwrap();
    let principal = crate::Principal::builder(PrincipalKind::User, "https://server.example.com", "someone", "jwt")
        .confirmation(Confirmation::new().with_key_thumbprint(jkt))
        .build();
    let request = Request::builder().method(&asked.method).uri(asked.path).header(PROOF, asked.proof).body(()).unwrap();
    let at = Instants::new(asked.at * 1_000_000_000, 0);
    let checked = prover.check(&principal, asked.token, &RequestHead::of(&request), at).await;
    checked.err().map(|rejection| rejection.reason().to_owned())
}

fn prover(url: &str) -> Prover {
    Dpop::at([url]).unwrap().build(&Challenge::new("DPoP", "api").unwrap()).unwrap()
}

#[tokio::test]
async fn the_example_of_a_resource_passes_once() {
    let prover = prover(asked().url);
    assert_eq!(refusal(&prover, &asked()).await, None);
    assert_eq!(refusal(&prover, &asked()).await.as_deref(), Some("the proof was used before"));
    let (before, after) = (Asked { at: MADE_AT - 5, ..asked() }, Asked { at: MADE_AT + 29, ..asked() });
    for asked in [&before, &after] {
        assert_eq!(refusal(&self::prover(asked.url), asked).await, None, "{}", asked.at);
    }
}

#[tokio::test]
async fn anywhere_else_it_is_refused() {
    let other_signature = OF_A_TOKEN_REQUEST.rsplit_once('.').unwrap().1;
    let resigned = format!("{}.{other_signature}", OF_A_REQUEST.rsplit_once('.').unwrap().0);
    let rows = [
        ("the proof is for another method", Asked { method: Method::POST, ..asked() }),
        ("the proof is for another URL", Asked { path: "/other", ..asked() }),
        ("the proof is for another URL", Asked { url: "https://resource.example.com", ..asked() }),
        ("the proof is too old", Asked { at: MADE_AT + 30, ..asked() }),
        ("the proof is from the future", Asked { at: MADE_AT - 6, ..asked() }),
        ("the proof is for another token", Asked { token: "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxV", ..asked() }),
        (
            "the token is bound to another key than the proof's",
            Asked { jkt: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", ..asked() },
        ),
        ("the proof's signature is not good", Asked { proof: &resigned, ..asked() }),
        (
            "the proof has no ath",
            Asked {
                url: "https://server.example.com",
                method: Method::POST,
                path: "/token",
                proof: OF_A_TOKEN_REQUEST,
                ..asked()
            },
        ),
    ];
    for (reason, asked) in rows {
        assert_eq!(refusal(&prover(asked.url), &asked).await.as_deref(), Some(reason));
    }
}

#[test]
fn the_example_of_a_token_request_is_signed_by_the_same_key() {
    // A resource takes no such proof, so only its parts are looked at here.
    let (message, signature) = OF_A_TOKEN_REQUEST.rsplit_once('.').unwrap();
    let mut buffer = proof::buffer(OF_A_REQUEST).unwrap();
    let proof = proof::read(OF_A_REQUEST, &mut buffer, &[Algorithm::ES256]).unwrap();
    assert_eq!(proof.thumbprint(), Ok(confirmation::hash(JKT).unwrap()));
    assert!(proof.verifies(message, signature));
}
