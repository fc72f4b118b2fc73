//! Guard: may this principal do that?
//!
//! [`require`] makes a layer, and a rule of a stack's route table, from a [`Requirement`]. An [`Authorizer`] asks the
//! policy from within a handler.
//!
//! A request passes the guard when
//! 1. authentication ran outside it,
//! 2. it found an identity,
//! 3. the requirement is allowed: not denied, and not undecided,
//! 4. every obligation of the policy's answer is one that the application declared to fulfil.
//!
//! | status | when |
//! |---|---|
//! | `401` | nobody is authenticated, whatever the requirement says, with the challenges of the authentication layer (RFC 9110 §15.5.2) |
//! | `403` | the requirement is denied (RFC 9110 §15.5.4) |
//! | `403` | only scopes are missing, of a token; `WWW-Authenticate: Bearer realm="..", error="insufficient_scope", scope=".."` (RFC 6750 §3.1), or `DPoP` for a token that is bound to a key (RFC 9449 §7.1), `Cookie` or `JWT` where none is taken in `Authorization` |
//! | `401` | only the strength of the authentication is missing, of a token, by a condition or by a policy that [says so](crate::policy::Verdict::step_up); `error="insufficient_user_authentication"` (RFC 9470 §3) |
//! | `400` | the request does not name the thing that the guard is about |
//! | `404` | the requirement is denied, and the guard [hides](GuardLayer::hide) the route |
//! | `500` | no authentication outside, no policy where one is asked, or an obligation that nobody declared; the log says which |
//! | `503` | the policy cannot decide |
//!
//! Stack it inside authentication and the limits, around a router or around one route. Guards nest; each decides.
//!
//! # Requirements
//! | write | passes |
//! |---|---|
//! | [`Permission`](crate::policy::Permission) handle | who holds it by a role of its policy |
//! | [`Role`](crate::policy::Role) handle | who has the role, or one that inherits it, in the tenant of the thing |
//! | [`role`] | whose credential asserts a role of exactly this name |
//! | [`scope`] | whose credential carries the scope |
//! | [`policy`] | whom the policy backend allows the action; may wait |
//! | [`owner`], [`same_tenant`], [`attribute`], [`relation`] | whose relation to the thing ([`GuardLayer::on`]) is right |
//! | [`network`], [`during`] | who comes from there, at that time |
//! | [`acr`], [`amr`], [`factors`], [`authenticated_within`] | who proved strongly and lately enough who they are |
//! | [`predicate`], [`check`] | who passes a test of your own |
//! | [`authenticated`] | anybody with an identity |
//! | [`all`], [`any`], [`not`] | three-valued: cannot decide is neither allow nor deny, and `not` leaves it so, as it does a [firm](crate::policy::Verdict::firm) denial |
//!
//! What is in memory is asked at once, without a box; a policy that must wait is asked only if the rest does not settle the
//! answer. Each condition that is asked is a decision in the audit record, and so is the outcome of a combination.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use portcullis::{
//!     Challenge, Principal, PrincipalKind,
//!     authn::{AuthnLayer, Outcome, authenticate_fn},
//!     guard::{all, not, require, role, scope},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let devices = authenticate_fn(Challenge::new("Device", "factory")?, |head, _| match head.authorization() {
//!     Ok(Some(credential)) if credential.is_scheme("Device") => Outcome::verified(
//!         Principal::builder(PrincipalKind::Service, "factory", credential.token(), "device").scopes(["press"]).build(),
//!     ),
//!     Ok(_) => Outcome::Absent,
//!     Err(rejection) => Outcome::Refused(rejection),
//! });
//! let press = |scope_name| Ok::<_, portcullis::ConfigError>(require(all((scope(scope_name)?, not(role("retired")?)))));
//! let service = |guard| {
//!     ServiceBuilder::new()
//!         .layer(AuthnLayer::new(devices.clone()).dangerous_plain_http()) // no TLS in this example
//!         .layer(guard)
//!         .service(service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(String::new()))))
//! };
//!
//! let request = || Request::get("/press").header("authorization", "Device d1").body(()).unwrap();
//! assert_eq!(service(press("press")?).oneshot(request()).await?.status(), 200);
//!
//! let refused = service(press("drill")?).oneshot(request()).await?;
//! assert_eq!(refused.status(), 403);
//! let challenge = r#"Bearer realm="api", error="insufficient_scope", scope="drill""#;
//! assert_eq!(refused.headers()["www-authenticate"], challenge);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authorizer;
mod evaluate;
mod hours;
mod layer;
mod predicate;
mod requirement;
mod resource;
#[cfg(feature = "stack")]
mod review;
mod route;
mod rule;
#[cfg(feature = "policy-files")]
mod table;
mod truth;

pub use authorizer::{Authorizer, Permit};
pub use hours::{Hours, Weekday};
pub use layer::{GuardLayer, require};
pub use predicate::{
    acr, amr, attribute, authenticated_within, during, factors, network, owner, predicate, relation, same_tenant,
};
#[doc(hidden)]
pub use requirement::Nodes;
pub use requirement::{Requirement, Requirements, all, any, authenticated, check, not, policy, role, scope};
pub use resource::{PathParams, ResourceSource, from_head, from_path};
#[cfg(all(feature = "stack", feature = "rbac"))]
pub(crate) use review::role_policy;
#[cfg(feature = "stack")]
pub(crate) use review::{Asked, Review, decides_by_roles};
#[cfg(feature = "stack")]
pub(crate) use route::parameters_of;
pub use rule::{Rule, deny, public};
#[cfg(feature = "policy-files")]
pub use table::{RouteRules, RuleNames};
