use crate::{
    authn::{AuthnLayer, Outcome, authenticate_fn},
    challenge::Challenge,
    principal::Principal,
};

/// A layer that makes everybody this principal, without any credential and over whatever transport: for unit tests of
/// handlers.
///
/// ```
/// use http::{Request, Response};
/// use portcullis::{Principal, PrincipalKind, SecurityContext, testing::as_principal};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let handler = service_fn(async |request: Request<()>| {
///     let principal = SecurityContext::of(request.extensions()).unwrap().principal().unwrap();
///     Ok::<_, std::convert::Infallible>(Response::new(principal.subject().to_owned()))
/// });
/// let alice = Principal::builder(PrincipalKind::User, "https://id.invalid", "alice", "test").roles(["clerk"]).build();
/// let response = as_principal(alice).layer(handler).oneshot(Request::new(())).await.unwrap();
/// assert_eq!(response.body(), "alice");
/// # }
/// ```
///
/// # Panics
/// Never: the challenge is a constant.
pub fn as_principal(principal: Principal) -> AuthnLayer {
    super::not_for_production();
    let challenge = Challenge::new("Test", "test").unwrap_or_else(|_| unreachable!("a constant that is right"));
    AuthnLayer::new(authenticate_fn(challenge, move |_, _| Outcome::verified(principal.clone()))).dangerous_plain_http()
}
