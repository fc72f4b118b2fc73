//! The conformance suite of authenticators, run on what this crate has and on what a user writes.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use http::{HeaderName, Request};
use portcullis::{
    Challenge, Instants, Now, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead, StoreError,
    StoreErrorKind,
    api_key::{
        ApiKey, ApiKeyAdmin, ApiKeyAuthenticator, ApiKeyStore, Found, KeyId, Lookup, MemoryKeyStore, NewApiKey,
        Revocation,
    },
    authn::{Authenticator, FnAuthenticator, Identity, Outcome, authenticate_fn, both, one_of},
    conformance::{self, AuthenticatorFixture},
};
use support::{NOW, get, with};

const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

/// A store that is asked over the network: no `find_now`.
#[derive(Debug)]
struct Remote {
    keys: Arc<MemoryKeyStore>,
    /// Of this one it cannot tell.
    lost: KeyId,
}

#[async_trait]
impl ApiKeyStore for Remote {
    async fn find(&self, lookup: Lookup) -> Found {
        tokio::task::yield_now().await;
        if *lookup.id() == self.lost {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "remote"));
        }
        self.keys.find(lookup).await
    }
}

fn assert_broken(suite: Result<(), tokio::task::JoinError>, expected: &str) {
    let panic = suite.expect_err(expected).into_panic();
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    assert!(said.contains(expected), "{said:?} does not say {expected:?}");
}

fn key(store: &MemoryKeyStore) -> ApiKey {
    let (key, record) = NewApiKey::for_subject("billing").mint(AT).unwrap();
    store.add(record).unwrap();
    key
}

/// Device 4711 is good, every other device is bad.
fn devices() -> FnAuthenticator<impl Fn(&RequestHead<'_>, Instants) -> Outcome + Send + Sync + 'static> {
    authenticate_fn(Challenge::new("Device", "factory").unwrap(), |head, _| match head.authorization() {
        Ok(Some(credential)) if credential.is_scheme("Device") => match credential.token() {
            "4711-secret" => Outcome::verified(device()),
            "away-secret" => Rejection::new(RejectionKind::Unavailable, "the factory is away").into(),
            _ => Rejection::new(RejectionKind::InvalidCredential, "unknown device").into(),
        },
        Ok(_) => Outcome::Absent,
        Err(rejection) => rejection.into(),
    })
}

fn device() -> Principal {
    Principal::builder(PrincipalKind::Service, "factory", "press", "device").build()
}

fn in_header(value: &str) -> Request<()> {
    with(get("/"), "x-api-key", value)
}

fn authorized(value: &str) -> Request<()> {
    with(get("/"), "authorization", value)
}

fn fixture() -> AuthenticatorFixture {
    AuthenticatorFixture::new(AT).absent(get("/")).absent(authorized("Bearer eyJh.e30.sig"))
}

#[tokio::test]
async fn api_keys_keep_the_contract() {
    let store = Arc::new(MemoryKeyStore::new());
    let (good, revoked) = (key(&store), key(&store));
    store.revoke(&revoked.id(), &Revocation::new(NOW, "leaked").unwrap()).await.unwrap();
    let (unknown, _) = NewApiKey::for_subject("billing").mint(AT).unwrap();
    let fixture = fixture()
        .good(in_header(good.expose()))
        .good(authorized(&format!("ApiKey {}", good.expose())))
        .good(authorized(&format!("Bearer {}", good.expose())))
        .bad(in_header(revoked.expose()))
        .bad(in_header(unknown.expose()))
        .bad(in_header("noise"))
        .bad(authorized("Bearer pc_v1_noise"))
        .absent(authorized("Basic YWxpY2U6aHVudGVyMg=="));
    let authenticator = ApiKeyAuthenticator::new(Arc::clone(&store));
    conformance::authenticator(&authenticator, &fixture).await;
    let shared: Arc<dyn Authenticator> = Arc::new(authenticator);
    conformance::authenticator(&shared, &fixture).await;

    let lost = key(&store);
    let fixture = fixture.unavailable(in_header(lost.expose()));
    conformance::authenticator(&ApiKeyAuthenticator::new(Remote { keys: store, lost: lost.id() }), &fixture).await;
}

#[tokio::test]
async fn functions_keep_the_contract() {
    let fixture = fixture()
        .good(authorized("Device 4711-secret"))
        .bad(authorized("Device 0000-secret"))
        .unavailable(authorized("Device away-secret"));
    conformance::authenticator(&devices(), &fixture).await;
}

/// Vouchers of a number each, of which each is good once, or as often as it comes.
fn vouchers(once: bool) -> FnAuthenticator<impl Fn(&RequestHead<'_>, Instants) -> Outcome + Send + Sync + 'static> {
    let taken = Mutex::new(HashSet::new());
    authenticate_fn(Challenge::new("Once", "factory").unwrap(), move |head, _| match head.authorization() {
        Ok(Some(credential)) if credential.is_scheme("Once") => {
            let is_new = credential.token().starts_with("voucher-")
                && (taken.lock().unwrap().insert(credential.token().to_owned()) || !once);
            if is_new {
                Outcome::verified(device())
            } else {
                Rejection::new(RejectionKind::InvalidCredential, "taken, or never given out").into()
            }
        }
        Ok(_) => Outcome::Absent,
        Err(rejection) => rejection.into(),
    })
}

fn once_fixture() -> AuthenticatorFixture {
    let number = AtomicU32::new(1_000);
    fixture()
        .good_once(move || authorized(&format!("Once voucher-{}", number.fetch_add(1, Ordering::Relaxed))))
        .bad(authorized("Once nothing-of-value"))
}

#[tokio::test]
async fn what_counts_once_keeps_the_contract() {
    conformance::authenticator(&vouchers(true), &once_fixture()).await;
    let of_two = one_of((devices(), vouchers(true)));
    conformance::authenticator(&of_two, &once_fixture().good(authorized("Device 4711-secret"))).await;
}

#[tokio::test]
async fn what_is_said_to_count_once_does() {
    let suite = tokio::spawn(async { conformance::authenticator(&vouchers(false), &once_fixture()).await });
    assert_broken(suite.await, "refused with 401 when it comes again");
    let as_always = fixture().good(authorized("Once voucher-1")).bad(authorized("Once nothing-of-value"));
    let suite = tokio::spawn(async move { conformance::authenticator(&vouchers(true), &as_always).await });
    assert_broken(suite.await, "authenticate_now and authenticate agree");
}

#[tokio::test]
async fn one_of_keeps_the_contract() {
    let store = MemoryKeyStore::new();
    let good = key(&store);
    let fixture = fixture()
        .good(in_header(good.expose()))
        .good(authorized("Device 4711-secret"))
        .bad(in_header("noise"))
        .bad(authorized("Device 0000-secret"))
        .bad(with(in_header(good.expose()), "authorization", "Device 4711-secret"))
        .bad(with(in_header("noise"), "authorization", "Device 4711-secret"))
        .bad(with(in_header(good.expose()), "authorization", "Device 0000-secret"));
    conformance::authenticator(&one_of((ApiKeyAuthenticator::new(store), devices())), &fixture).await;
}

#[tokio::test]
async fn both_keeps_the_contract() {
    let store = MemoryKeyStore::new();
    let good = key(&store);
    let fixture = fixture()
        .good(with(in_header(good.expose()), "authorization", "Device 4711-secret"))
        .bad(in_header(good.expose()))
        .bad(authorized("Device 4711-secret"))
        .bad(with(in_header("noise"), "authorization", "Device 4711-secret"))
        .bad(with(in_header(good.expose()), "authorization", "Device 0000-secret"));
    conformance::authenticator(&both(ApiKeyAuthenticator::new(store), devices()), &fixture).await;
}

/// An authenticator as a user writes one, with a mistake.
#[derive(Debug)]
struct Careless(Mistake);

#[derive(Clone, Copy, Debug)]
enum Mistake {
    NoChallenge,
    FirstOfTwo,
    ClaimsEverything,
    BadIsAbsent,
    BadIs500,
    ShowsTheToken,
    TwinsDisagree,
    OtherHeader,
    DisclosesAll,
    SeesWhatIsTaken,
    AnOutageIsBad,
    KnowsOneSpelling,
    TakesTheBeginning,
    IgnoresTheEnd,
}

#[async_trait]
impl Authenticator for Careless {
    fn challenges(&self) -> Vec<Challenge> {
        match self.0 {
            Mistake::NoChallenge => Vec::new(),
            _ => devices().challenges(),
        }
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        match self.0 {
            Mistake::OtherHeader => vec![HeaderName::from_static("x-device")],
            _ => devices().credential_headers(),
        }
    }

    fn discloses(&self, head: &RequestHead<'_>) -> bool {
        match self.0 {
            Mistake::DisclosesAll => true,
            Mistake::SeesWhatIsTaken => {
                head.authorization().is_ok_and(|found| found.is_some_and(|it| it.is_scheme("Device")))
            }
            _ => false,
        }
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        match self.0 {
            Mistake::TwinsDisagree => Now::Known(Outcome::Absent),
            _ => Now::Known(self.answer(head, at)),
        }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        self.answer(head, at)
    }
}

impl Careless {
    fn answer(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        let right = match devices().authenticate_now(head, at) {
            Now::Known(outcome) => outcome,
            Now::Wait => panic!("a function answers at once"),
        };
        let value = head.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        match (self.0, value, right) {
            (Mistake::SeesWhatIsTaken, Some(value), Outcome::Absent) if value == "Device 4711-secret" => {
                Outcome::verified(device())
            }
            (Mistake::FirstOfTwo, Some(value), _) if value == "Device 4711-secret" => Outcome::verified(device()),
            (Mistake::KnowsOneSpelling, Some(value), Outcome::Verified(_)) if !value.starts_with("Device ") => {
                Outcome::Absent
            }
            (Mistake::TakesTheBeginning, Some(value), _)
                if value.starts_with("Device 4711-secret") && head.authorization().is_ok() =>
            {
                Outcome::verified(device())
            }
            (Mistake::IgnoresTheEnd, _, Outcome::Verified(_)) => {
                let press = Principal::builder(PrincipalKind::Service, "factory", "press", "device");
                Outcome::verified(press.expires_at(NOW + 60).build())
            }
            (Mistake::ClaimsEverything, Some(_), Outcome::Absent) => {
                Rejection::new(RejectionKind::InvalidCredential, "not a device").into()
            }
            (mistake, Some(value), Outcome::Refused(refused)) if refused.kind() == RejectionKind::InvalidCredential => {
                match mistake {
                    Mistake::BadIsAbsent => Outcome::Absent,
                    Mistake::BadIs500 => Rejection::new(RejectionKind::Misconfigured, "bad").into(),
                    Mistake::ShowsTheToken => Rejection::new(refused.kind(), format!("bad: {value}")).into(),
                    _ => refused.into(),
                }
            }
            (Mistake::AnOutageIsBad, _, Outcome::Refused(refused)) if refused.kind() == RejectionKind::Unavailable => {
                Rejection::new(RejectionKind::InvalidCredential, "nobody knows it").into()
            }
            (_, _, right) => right,
        }
    }
}

#[tokio::test]
async fn a_careless_authenticator_is_found_out() {
    for (mistake, expected) in [
        (Mistake::NoChallenge, "a 401 needs a challenge"),
        (Mistake::FirstOfTwo, "two lines of authorization are refused"),
        (Mistake::ClaimsEverything, "without a credential the answer is Absent"),
        (Mistake::BadIsAbsent, "a bad credential is refused"),
        (Mistake::BadIs500, "a bad credential is refused with 401 or 400"),
        (Mistake::ShowsTheToken, "no Debug shows a credential"),
        (Mistake::TwinsDisagree, "authenticate_now and authenticate agree"),
        (Mistake::OtherHeader, "credential_headers names the field"),
        (Mistake::DisclosesAll, "a credential of another kind is not disclosed"),
        (Mistake::SeesWhatIsTaken, "does not show is not looked at"),
        (Mistake::KnowsOneSpelling, "a scheme is the same in whatever case"),
        (Mistake::TakesTheBeginning, "a credential that is longer by one character is another one"),
        (Mistake::IgnoresTheEnd, "at the second of Principal::expires_at a credential has ended"),
        (Mistake::AnOutageIsBad, "what cannot be checked is Unavailable"),
    ] {
        let suite = tokio::spawn(async move {
            let fixture = fixture()
                .good(authorized("Device 4711-secret"))
                .bad(authorized("Device 0000-secret"))
                .unavailable(authorized("Device away-secret"));
            let fixture = match mistake {
                Mistake::DisclosesAll | Mistake::SeesWhatIsTaken => fixture.discloses(),
                _ => fixture,
            };
            conformance::authenticator(&Careless(mistake), &fixture).await;
        });
        assert_broken(suite.await, expected);
    }
}

/// A cookie, read with or without a mistake.
#[derive(Debug)]
struct Cookie(CookieMistake);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CookieMistake {
    None,
    ForgetsAuthorization,
    /// Without the name that stands before it.
    ShowsItsValue,
    IsSentOnPurpose,
    IsRefusedAlways,
}

#[async_trait]
impl Authenticator for Cookie {
    fn challenges(&self) -> Vec<Challenge> {
        devices().challenges()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![HeaderName::from_static("cookie")]
    }

    async fn authenticate(&self, head: &RequestHead<'_>, _: Instants) -> Outcome {
        let identity = Identity::from(device());
        match (head.single_header(&HeaderName::from_static("cookie")), self.0) {
            (Ok(Some("session=4711-secret")), mistake) => Outcome::Verified(match mistake {
                CookieMistake::ForgetsAuthorization => identity.ambient(),
                CookieMistake::IsSentOnPurpose => identity.leaving_authorization(),
                _ => identity.ambient().leaving_authorization(),
            }),
            (Ok(Some(_)), CookieMistake::IsRefusedAlways) => {
                Rejection::new(RejectionKind::InvalidCredential, "bad").into()
            }
            (Ok(Some(pair)), CookieMistake::ShowsItsValue) => {
                let (_, value) = pair.split_once('=').unwrap();
                let reason = format!("{value} is no session");
                Outcome::RefusedIfNeeded(Rejection::new(RejectionKind::InvalidCredential, reason))
            }
            (Ok(Some(_)), _) => Outcome::RefusedIfNeeded(Rejection::new(RejectionKind::InvalidCredential, "bad")),
            (Ok(None), _) => Outcome::Absent,
            (Err(rejection), _) => Outcome::RefusedIfNeeded(rejection),
        }
    }
}

#[tokio::test]
async fn a_cookie_keeps_the_contract() {
    let suite = async |mistake| {
        let cookie = |value| with(get("/"), "cookie", value);
        let fixture = fixture().good(cookie("session=4711-secret")).bad(cookie("session=0000-secret"));
        conformance::authenticator(&Cookie(mistake), &fixture).await;
    };
    suite(CookieMistake::None).await;
    for (mistake, expected) in [
        (CookieMistake::ForgetsAuthorization, "an unread Authorization beside the credential"),
        (CookieMistake::ShowsItsValue, "no Debug shows a credential"),
        (CookieMistake::IsSentOnPurpose, "who comes by a cookie alone is told so"),
        (CookieMistake::IsRefusedAlways, "a bad cookie is RefusedIfNeeded"),
    ] {
        assert_broken(tokio::spawn(suite(mistake)).await, expected);
    }
}
