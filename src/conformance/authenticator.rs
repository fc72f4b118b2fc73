use std::fmt;

use http::{HeaderMap, Request, StatusCode, header};

use crate::{
    authn::{Authenticator, Identity, Outcome},
    clock::Instants,
    head::RequestHead,
    now::Now,
    principal::Slot,
    rejection::{Rejection, RejectionKind},
};

/// How long a value of a cookie is that stands nowhere by chance.
const LONG: usize = 8;

/// Requests that the [`authenticator`] suite sends, and what each of them should come to.
///
/// The suite looks for the credentials in what is shown: make them long enough not to stand there by chance. Values of cookies
/// that are shorter than eight characters are looked for with their names.
///
/// ```
/// use portcullis::{Instants, conformance::AuthenticatorFixture};
///
/// let get = || http::Request::get("/");
/// let fixture = AuthenticatorFixture::new(Instants::new(1_800_000_000_000_000_000, 0))
///     .good(get().header("authorization", "Device secret-of-4711").body(())?)
///     .bad(get().header("authorization", "Device secret-of-nobody").body(())?)
///     .absent(get().body(())?);
/// # let _ = fixture;
/// # Ok::<(), http::Error>(())
/// ```
#[must_use]
#[derive(Debug)]
pub struct AuthenticatorFixture {
    at: Instants,
    good: Vec<Good>,
    bad: Vec<Request<()>>,
    absent: Vec<Request<()>>,
    unavailable: Vec<Request<()>>,
    in_connection: bool,
    discloses: bool,
}

/// How a good request is made. Where a credential counts once, each is another one.
struct Good {
    make: Box<dyn Fn() -> Request<()> + Send + Sync>,
    once: bool,
}

impl Good {
    fn request(&self) -> Request<()> {
        (self.make)()
    }
}

impl fmt::Debug for Good {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Good").field("request", &self.request()).field("once", &self.once).finish()
    }
}

impl AuthenticatorFixture {
    /// No requests yet; all of them will be sent at this time.
    pub const fn new(at: Instants) -> Self {
        Self {
            at,
            good: Vec::new(),
            bad: Vec::new(),
            absent: Vec::new(),
            unavailable: Vec::new(),
            in_connection: false,
            discloses: false,
        }
    }

    /// Adds a request with a good credential. One at least.
    pub fn good(mut self, request: Request<()>) -> Self {
        self.good.push(Good { make: Box::new(move || request.clone()), once: false });
        self
    }

    /// Adds requests with a good credential that counts once, such as a signature that is remembered: `make` makes another one each
    /// time. The suite asks about each a second time too, by either twin, and it must be refused then.
    pub fn good_once(mut self, make: impl Fn() -> Request<()> + Send + Sync + 'static) -> Self {
        self.good.push(Good { make: Box::new(make), once: true });
        self
    }

    /// Adds a request with a credential of the right kind that is not accepted. One at least.
    pub fn bad(mut self, request: Request<()>) -> Self {
        self.bad.push(request);
        self
    }

    /// Adds a request with a credential that cannot be checked, since whoever knows it gives no answer. They are sent after the
    /// others.
    pub fn unavailable(mut self, request: Request<()>) -> Self {
        self.unavailable.push(request);
        self
    }

    /// Says that credentials of this kind are facts of the connection, such as a certificate, and in no header field. The
    /// requests carry a [`Connection`](crate::Connection) then.
    pub const fn in_connection(mut self) -> Self {
        self.in_connection = true;
        self
    }

    /// Says that the authenticator [hands](Authenticator::discloses) credentials of this kind to somebody else, to learn whose they
    /// are: those of at least one request here.
    pub const fn discloses(mut self) -> Self {
        self.discloses = true;
        self
    }

    /// Adds a request without a credential of this kind. One at least.
    pub fn absent(mut self, request: Request<()>) -> Self {
        self.absent.push(request);
        self
    }
}

/// Checks an [`Authenticator`]. What comes in a `Cookie` alone must be [ambient](crate::authn::Identity::ambient), and
/// [`RefusedIfNeeded`](Outcome::RefusedIfNeeded) if it is bad.
///
/// # Panics
/// If the authenticator breaks the contract of its trait, a request of the fixture does not come to what it should, or the
/// fixture lacks one of the three kinds.
pub async fn authenticator(authenticator: &dyn Authenticator, fixture: &AuthenticatorFixture) {
    let AuthenticatorFixture { at, good, bad, absent, unavailable, in_connection, discloses } = fixture;
    for (kind, count) in [("good", good.len()), ("bad", bad.len()), ("absent", absent.len())] {
        assert!(count > 0, "the fixture needs a {kind} request");
    }
    assert!(!authenticator.challenges().is_empty(), "a 401 needs a challenge (RFC 9110 §15.5.2)");
    assert_eq!(
        authenticator.credential_headers().is_empty(),
        *in_connection,
        "a credential comes in some header field, or the fixture says that it is of the connection"
    );

    let disclosed = |request: &Request<()>| authenticator.discloses(&RequestHead::of(request));
    let tells = |requests: &[Request<()>]| requests.iter().any(disclosed);
    let of_good: Vec<_> = good.iter().map(Good::request).collect();
    assert_eq!(tells(&of_good) || tells(bad), *discloses, "who discloses credentials says so, and so does the fixture");
    assert!(!tells(absent), "a credential of another kind is not disclosed");
    for request in of_good.iter().chain(bad).filter(|request| disclosed(request)) {
        another_s_is_not_seen(authenticator, request, *at).await;
    }

    for good in good {
        let request = good.request();
        let outcome = if good.once {
            ask_once(authenticator, &request, &good.request(), *at).await
        } else {
            ask(authenticator, &request, *at).await
        };
        assert!(matches!(outcome, Outcome::Verified(_)), "a good credential is verified, not {outcome:?}");
        if let Outcome::Verified(identity) = &outcome
            && in_cookie_alone(authenticator, &request)
        {
            assert!(identity.is_ambient(), "who comes by a cookie alone is told so, with Identity::ambient");
        }
        if !in_connection {
            nothing_twice(authenticator, good, *at).await;
        }
        nothing_unclaimed_beside(authenticator, good, *at).await;
        if let Outcome::Verified(identity) = &outcome
            && !good.once
        {
            nothing_like_it(authenticator, &request, *at).await;
            nothing_ended(authenticator, &request, identity, *at).await;
        }
    }
    for request in bad {
        let outcome = ask(authenticator, request, *at).await;
        let refused = matches!(&outcome, Outcome::Refused(rejection) | Outcome::RefusedIfNeeded(rejection)
            if matches!(rejection.status(), StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST));
        assert!(refused, "a bad credential is refused with 401 or 400, not {outcome:?}");
        if in_cookie_alone(authenticator, request) {
            let if_needed = matches!(outcome, Outcome::RefusedIfNeeded(_));
            assert!(if_needed, "a bad cookie is RefusedIfNeeded, since clients send it by themselves, not {outcome:?}");
        }
    }
    for request in absent {
        let outcome = ask(authenticator, request, *at).await;
        assert!(matches!(outcome, Outcome::Absent), "without a credential the answer is Absent, not {outcome:?}");
    }
    for request in unavailable {
        let outcome = ask(authenticator, request, *at).await;
        let says_so = matches!(&outcome, Outcome::Refused(rejection) | Outcome::RefusedIfNeeded(rejection)
            if rejection.kind() == RejectionKind::Unavailable);
        assert!(says_so, "what cannot be checked is Unavailable, and no bad credential: {outcome:?}");
    }
    strange_schemes(authenticator, *at).await;
}

/// Whether of all fields that may carry the credential there is a `Cookie`, and nothing else.
fn in_cookie_alone(authenticator: &dyn Authenticator, request: &Request<()>) -> bool {
    let names = authenticator.credential_headers();
    let mut carried = names.iter().filter(|name| request.headers().contains_key(*name)).peekable();
    carried.peek().is_some() && carried.all(|name| *name == header::COOKIE)
}

/// Whatever field the credential came in, it may not come in two of them (RFC 9110 §5.3).
async fn nothing_twice(authenticator: &dyn Authenticator, good: &Good, at: Instants) {
    let mut carried = false;
    for name in authenticator.credential_headers() {
        let mut doubled = good.request();
        let Some(value) = doubled.headers().get(&name).cloned() else { continue };
        carried = true;
        doubled.headers_mut().append(&name, value);
        refused_as_malformed(&ask(authenticator, &doubled, at).await, name.as_str());
    }
    assert!(carried, "credential_headers names the field that the credential came in");
}

/// A credential in a field of its own does not excuse an `Authorization` that nobody reads.
async fn nothing_unclaimed_beside(authenticator: &dyn Authenticator, good: &Good, at: Instants) {
    let mut beside = good.request();
    if beside.headers().contains_key(header::AUTHORIZATION) {
        return;
    }
    beside.headers_mut().insert(header::AUTHORIZATION, header::HeaderValue::from_static("Conformance-Suite abc"));
    let outcome = if good.once {
        authenticator.authenticate(&RequestHead::of(&beside), at).await
    } else {
        ask(authenticator, &beside, at).await
    };
    let noticed = match &outcome {
        Outcome::Verified(identity) => identity.has_left_authorization(),
        // Refused here, or by the layer, since nobody claims the field.
        Outcome::Refused(_) | Outcome::RefusedIfNeeded(_) | Outcome::Absent => true,
    };
    assert!(noticed, "an unread Authorization beside the credential is told, with Identity::leaving_authorization");
}

/// A scheme in another case is the same one (RFC 9110 §11.1); a credential with more or less in it is another one.
async fn nothing_like_it(authenticator: &dyn Authenticator, request: &Request<()>, at: Instants) {
    let Some(value) = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let Some((scheme, credential)) = value.split_once(' ') else { return };
    let changed = |value: &str| {
        let mut changed = request.clone();
        let value = header::HeaderValue::from_str(value).ok()?;
        changed.headers_mut().insert(header::AUTHORIZATION, value);
        Some(changed)
    };
    for scheme in [scheme.to_ascii_lowercase(), scheme.to_ascii_uppercase()] {
        let Some(changed) = changed(&format!("{scheme} {credential}")) else { continue };
        let outcome = ask(authenticator, &changed, at).await;
        assert!(matches!(outcome, Outcome::Verified(_)), "a scheme is the same in whatever case, not {outcome:?}");
    }
    let mut shorter = credential.to_owned();
    let last = shorter.pop();
    for (name, other) in
        [("longer", Some(format!("{credential}x"))), ("shorter", last.filter(|last| *last != '=').map(|_| shorter))]
    {
        let Some(changed) = other.and_then(|other| changed(&format!("{scheme} {other}"))) else { continue };
        let outcome = ask(authenticator, &changed, at).await;
        assert!(
            !matches!(outcome, Outcome::Verified(_)),
            "a credential that is {name} by one character is another one"
        );
    }
}

/// When its end has come, a credential is not good any more, be it remembered or not.
async fn nothing_ended(authenticator: &dyn Authenticator, request: &Request<()>, identity: &Identity, at: Instants) {
    for slot in [Slot::Subject, Slot::Client] {
        let end = identity.in_slot(slot).map_or(u64::MAX, crate::Principal::ends_at_nanos);
        if end == u64::MAX {
            continue;
        }
        assert!(end > at.unix_nanos(), "who has ended by Principal::expires_at is not verified: {end}");
        let outcome = ask(authenticator, request, Instants::new(end, at.monotonic_nanos())).await;
        assert!(
            !matches!(outcome, Outcome::Verified(_)),
            "at the second of Principal::expires_at a credential has ended"
        );
    }
}

/// What another authenticator has taken goes to nobody.
async fn another_s_is_not_seen(authenticator: &dyn Authenticator, request: &Request<()>, at: Instants) {
    let head = RequestHead::of(request).without_authorization();
    let outcomes = [Now::Known(authenticator.authenticate(&head, at).await), authenticator.authenticate_now(&head, at)];
    for outcome in outcomes {
        let unseen = match &outcome {
            Now::Known(Outcome::Verified(identity)) => identity.has_left_authorization(),
            Now::Known(Outcome::Refused(_)) => false,
            Now::Known(Outcome::Absent | Outcome::RefusedIfNeeded(_)) | Now::Wait => true,
        };
        assert!(unseen, "an Authorization that RequestHead::authorization does not show is not looked at: {outcome:?}");
    }
}

async fn strange_schemes(authenticator: &dyn Authenticator, at: Instants) {
    if !authenticator.credential_headers().contains(&header::AUTHORIZATION) {
        return;
    }
    let strange = |values: &[&'static str]| {
        let mut request = Request::new(());
        for value in values {
            request.headers_mut().append(header::AUTHORIZATION, header::HeaderValue::from_static(value));
        }
        request
    };
    let one = strange(&["Conformance-Suite abc"]);
    assert!(!authenticator.discloses(&RequestHead::of(&one)), "a scheme that nobody knows is not disclosed");
    let outcome = ask(authenticator, &one, at).await;
    assert!(matches!(outcome, Outcome::Absent), "a scheme that nobody knows is Absent, not {outcome:?}");
    let outcome = ask(authenticator, &strange(&["Conformance-Suite abc", "Conformance-Suite def"]), at).await;
    refused_as_malformed(&outcome, "authorization");
}

fn refused_as_malformed(outcome: &Outcome, name: &str) {
    let malformed = matches!(outcome, Outcome::Refused(rejection) | Outcome::RefusedIfNeeded(rejection)
        if rejection.kind() == RejectionKind::InvalidRequest);
    assert!(malformed, "two lines of {name} are refused with 400, not {outcome:?}");
}

/// Asks about two requests whose credentials count once: each twin about one of them, and then the other one about the same.
async fn ask_once(
    authenticator: &dyn Authenticator,
    request: &Request<()>,
    other: &Request<()>,
    at: Instants,
) -> Outcome {
    let refused_again = |outcome: &Outcome| {
        let refused = matches!(outcome, Outcome::Refused(rejection) | Outcome::RefusedIfNeeded(rejection)
            if rejection.status() == StatusCode::UNAUTHORIZED);
        assert!(refused, "a credential that counts once is refused with 401 when it comes again, not {outcome:?}");
    };
    let head = RequestHead::of(request);
    let outcome = authenticator.authenticate(&head, at).await;
    let again = ask(authenticator, request, at).await;
    refused_again(&again);
    shows_no_credential(authenticator, request, &outcome);

    let other_head = RequestHead::of(other);
    if let Now::Known(at_once) = authenticator.authenticate_now(&other_head, at) {
        let agree = matches!((&at_once, &outcome), (Outcome::Verified(_), Outcome::Verified(_)));
        assert!(agree, "authenticate_now and authenticate agree: {at_once:?}, {outcome:?}");
        refused_again(&ask(authenticator, other, at).await);
    }
    outcome
}

/// Asks both twins, and looks for the credential in what they say.
async fn ask(authenticator: &dyn Authenticator, request: &Request<()>, at: Instants) -> Outcome {
    let head = RequestHead::of(request);
    let waited = authenticator.authenticate(&head, at).await;
    match authenticator.authenticate_now(&head, at) {
        Now::Known(at_once) => {
            assert!(same(&at_once, &waited), "authenticate_now and authenticate agree: {at_once:?}, {waited:?}");
        }
        Now::Wait => {}
    }
    shows_no_credential(authenticator, request, &waited);
    waited
}

fn shows_no_credential(authenticator: &dyn Authenticator, request: &Request<()>, outcome: &Outcome) {
    for (whose, shown) in [("outcome", format!("{outcome:?}")), ("authenticator", format!("{authenticator:?}"))] {
        for secret in credentials(authenticator, request.headers()) {
            assert!(!shown.contains(&secret), "no Debug shows a credential: that of the {whose} does");
        }
    }
}

/// The credentials themselves: the last word of each field that may carry one, without the padding of Base64; of cookies each
/// value, without its name if it is [`LONG`].
fn credentials(authenticator: &dyn Authenticator, headers: &HeaderMap) -> Vec<String> {
    let mut found = Vec::new();
    for name in authenticator.credential_headers() {
        for value in headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()) {
            if name == header::COOKIE {
                let alone = |pair: &str| match pair.split_once('=') {
                    Some((_, value)) if value.len() >= LONG => value.trim_matches('"').to_owned(),
                    Some(_) | None => pair.to_owned(),
                };
                found.extend(value.split(';').map(|pair| alone(pair.trim())));
            } else {
                found.extend(value.split(' ').next_back().map(|word| word.trim_end_matches('=').to_owned()));
            }
        }
    }
    found.retain(|credential| !credential.is_empty());
    found
}

fn same(one: &Outcome, other: &Outcome) -> bool {
    let client_sees = |rejection: &Rejection| (rejection.kind(), rejection.challenges().clone());
    match (one, other) {
        (Outcome::Absent, Outcome::Absent) => true,
        (Outcome::Verified(one), Outcome::Verified(other)) => one == other,
        (Outcome::Refused(one), Outcome::Refused(other))
        | (Outcome::RefusedIfNeeded(one), Outcome::RefusedIfNeeded(other)) => client_sees(one) == client_sees(other),
        (Outcome::Absent | Outcome::Verified(_) | Outcome::Refused(_) | Outcome::RefusedIfNeeded(_), _) => false,
    }
}
