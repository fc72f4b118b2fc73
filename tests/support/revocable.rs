//! Stores of revocations whatever they are kept in, and tokens to look at through them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "../jwt/mint.rs"]
pub mod mint;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mint::{AUDIENCE, HEADER, ISSUER, key, token};
use portcullis::{
    Clock, SystemClock,
    jwt::{Algorithm, Issuer, JwtAuthenticator, KeySet},
    revocation::{Revocation, RevocationKind, RevocationLimits, RevocationStore, Standing, TokenMarks},
};

/// A busy machine is no reason to distrust, where a test is not about that.
pub fn patient() -> RevocationLimits {
    RevocationLimits::new().max_age(Duration::from_secs(30))
}

pub fn impatient() -> RevocationLimits {
    RevocationLimits::new().max_age(Duration::from_secs(1))
}

/// Waits until it is so. Whoever waits in vain fails after a minute.
#[expect(clippy::disallowed_methods, reason = "how long a test waits for real servers")]
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn now() -> portcullis::Instants {
    SystemClock::new().now()
}

pub fn authenticator(store: &Arc<dyn RevocationStore>) -> JwtAuthenticator {
    let keys = KeySet::new([key(Algorithm::ES256).with_id("k-1")]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(issuer).revocations(Arc::clone(store)).build().unwrap()
}

pub fn minted(jti: &str) -> String {
    let (issued, ends) = (now().unix_seconds() - 5, now().unix_seconds() + 3_600);
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"sub-{jti}","aud":"{AUDIENCE}","exp":{ends},"iat":{issued},"client_id":"client-{jti}","jti":"{jti}","sid":"sid-{jti}"}}"#
    );
    token(Algorithm::ES256, HEADER, &claims)
}

pub fn status(jwt: &JwtAuthenticator, token: &str) -> u16 {
    jwt.verify(token, now()).map_or_else(|rejection| rejection.status().as_u16(), |_| 200)
}

pub async fn revoke(store: &dyn RevocationStore, jti: &str) {
    store.revoke(&Revocation::token(ISSUER, jti).unwrap(), now()).await.unwrap();
}

pub fn is_revoked(store: &dyn RevocationStore, jti: &str) -> bool {
    store.state().check_marks(&TokenMarks::new(ISSUER).token(jti), now()) == Standing::Revoked(RevocationKind::Token)
}
