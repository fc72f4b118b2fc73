//! The metadata of an API (RFC 9728): what is in it, where it stands, who may read it, and that it is true.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod support;

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{Method, Request, StatusCode, header};
use portcullis::{
    Connection, Secret, TlsVersion,
    guard::{authenticated, public, require},
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, Key, KeySet, MetadataUrl, ResourceMetadata,
        ResourceMetadataBuilder, bound::Dpop,
    },
    stack::Stack,
    tls::TlsLayer,
};
use serde_json::{Value, json};
use support::text;
use tower::ServiceExt;

const RESOURCE: &str = "https://api.example.com/orders";
const ISSUER: &str = "https://id.example.com";

fn metadata() -> ResourceMetadataBuilder {
    ResourceMetadata::builder(RESOURCE).authorization_server(ISSUER)
}

fn jwt() -> JwtAuthenticatorBuilder {
    let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32])).unwrap()]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens("orders-api").algorithms([Algorithm::HS256]);
    JwtAuthenticator::builder().issuer(issuer)
}

fn document(builder: ResourceMetadataBuilder) -> Value {
    serde_json::from_str(builder.build().unwrap().json()).unwrap()
}

fn request(method: Method, path: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
    request
}

#[test]
fn the_document_says_what_it_was_told_and_no_more() {
    assert_eq!(
        document(ResourceMetadata::builder("https://api.example.com/")),
        json!({"resource": "https://api.example.com/", "bearer_methods_supported": ["header"]}),
    );
    let all = metadata()
        .authorization_server("https://login.example.org/tenant")
        .jwks_uri("https://api.example.com/jwks?v=1")
        .scopes(["orders:read", "orders:write"])
        .signing_algorithms([Algorithm::ES256])
        .name("Orders")
        .name_in("de", "Bestellungen")
        .name_in("zh-Hant", "訂單")
        .documentation("https://docs.example.com/orders#start")
        .policy_uri("https://example.com/privacy")
        .terms_of_service("https://example.com/terms")
        .certificate_bound()
        .dpop_algorithms([Algorithm::ES256, Algorithm::EdDSA])
        .dpop_required()
        .authorization_details_types(["payment_initiation"]);
    let expected = json!({
        "resource": RESOURCE,
        "authorization_servers": [ISSUER, "https://login.example.org/tenant"],
        "jwks_uri": "https://api.example.com/jwks?v=1",
        "scopes_supported": ["orders:read", "orders:write"],
        "bearer_methods_supported": [],
        "resource_signing_alg_values_supported": ["ES256"],
        "resource_name": "Orders",
        "resource_name#de": "Bestellungen",
        "resource_name#zh-Hant": "訂單",
        "resource_documentation": "https://docs.example.com/orders#start",
        "resource_policy_uri": "https://example.com/privacy",
        "resource_tos_uri": "https://example.com/terms",
        "tls_client_certificate_bound_access_tokens": true,
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "dpop_bound_access_tokens_required": true,
        "authorization_details_types_supported": ["payment_initiation"],
    });
    assert_eq!(document(all), expected);
}

#[test]
fn what_cannot_stand_in_it_is_refused_at_build() {
    type Change = fn(ResourceMetadataBuilder) -> ResourceMetadataBuilder;
    let bad: [(&str, Change); 24] = [
        ("plain HTTP issuer", |of| of.authorization_server("http://id.example.org")),
        ("issuer with a query", |of| of.authorization_server("https://id.example.org?a")),
        ("issuer with a fragment", |of| of.authorization_server("https://id.example.org#a")),
        ("issuer with a user", |of| of.authorization_server("https://a@id.example.org")),
        ("issuer twice", |of| of.authorization_server(ISSUER)),
        ("keys over plain HTTP", |of| of.jwks_uri("http://api.example.com/jwks")),
        ("documentation as script", |of| of.documentation("javascript:alert(1)")),
        ("policy as data", |of| of.policy_uri("data:text/html,x")),
        ("terms without a host", |of| of.terms_of_service("https:///terms")),
        ("a line break in a URL", |of| of.documentation("https://docs.example.com/\r\nSet-Cookie: a=b")),
        ("two scopes in one", |of| of.scopes(["orders:read orders:write"])),
        ("an empty scope", |of| of.scopes([""])),
        ("a quote in a scope", |of| of.scopes(["a\"b"])),
        ("a scope twice", |of| of.scopes(["a", "b", "a"])),
        ("a symmetric algorithm", |of| of.signing_algorithms([Algorithm::HS256])),
        ("a symmetric proof", |of| of.dpop_algorithms([Algorithm::ES256, Algorithm::HS512])),
        ("an algorithm twice", |of| of.dpop_algorithms([Algorithm::ES256, Algorithm::ES256])),
        ("an empty name", |of| of.name("")),
        ("a name that moves the cursor", |of| of.name("Orders\u{1b}[2J")),
        ("a name twice", |of| of.name("Orders").name("Bestellungen")),
        ("a language twice", |of| of.name_in("de", "a").name_in("DE", "b")),
        ("a language that is none", |of| of.name_in("de#x", "a")),
        ("an empty type", |of| of.authorization_details_types([""])),
        ("kept for two days", |of| of.max_age(Duration::from_secs(2 * 86_400))),
    ];
    for (name, change) in bad {
        assert!(change(metadata()).build().is_err(), "{name}");
    }
    for resource in ["http://api.example.com", "https://api.example.com/a#b", "https://api.example.com/a?b", "urn:a"] {
        let error = ResourceMetadata::builder(resource).build().unwrap_err();
        assert_eq!((error.setting(), error.value()), ("resource", format!("{resource:?}").as_str()));
    }
}

#[tokio::test]
async fn who_has_no_credential_reads_it_through_a_closed_stack() {
    let metadata = metadata().max_age(Duration::from_secs(600)).build().unwrap();
    let jwt = jwt().resource_metadata(&metadata).build().unwrap();
    let app = Router::new().route("/orders", get(async || "orders")).merge(metadata.router());
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(jwt)
        .route(metadata.route(), public())
        .route("GET /orders", require(authenticated()))
        .build()
        .unwrap();
    let app = stack.protect(app);
    let send = async |request| app.clone().oneshot(request).await.unwrap();

    let refused = send(request(Method::GET, "/orders")).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = format!(r#"Bearer realm="api", resource_metadata="{}""#, metadata.url());
    assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], challenge);
    let mut bad = request(Method::GET, "/orders");
    bad.headers_mut().insert(header::AUTHORIZATION, "Bearer a.b.c".parse().unwrap());
    let refused = send(bad).await;
    assert!(refused.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().contains(metadata.url()), "RFC 9728 §5.1");

    // The path of the URL in the challenge.
    let path = metadata.url().strip_prefix("https://api.example.com").unwrap();
    assert_eq!(path, metadata.path());
    for method in [Method::GET, Method::HEAD] {
        let response = send(request(method.clone(), path)).await;
        assert_eq!(response.status(), StatusCode::OK, "{method}");
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=600");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        assert_eq!(headers[header::CONTENT_LENGTH], metadata.json().len().to_string());
        let body = text(response).await;
        assert_eq!(body, if method == Method::GET { metadata.json() } else { "" });
    }
    // Nothing of the host that the client names is in it.
    let mut elsewhere = request(Method::GET, path);
    elsewhere.headers_mut().insert(header::HOST, "evil.example".parse().unwrap());
    elsewhere.headers_mut().insert("x-forwarded-host", "evil.example".parse().unwrap());
    assert_eq!(text(send(elsewhere).await).await, metadata.json());

    for (name, method, path, status) in [
        ("another method", Method::POST, path, StatusCode::UNAUTHORIZED),
        ("preflight", Method::OPTIONS, path, StatusCode::UNAUTHORIZED),
        ("root", Method::GET, "/.well-known/oauth-protected-resource", StatusCode::UNAUTHORIZED),
        ("below", Method::GET, "/.well-known/oauth-protected-resource/orders/7", StatusCode::UNAUTHORIZED),
        ("upper case", Method::GET, "/.well-known/oauth-protected-resource/Orders", StatusCode::UNAUTHORIZED),
        ("dots", Method::GET, "/.well-known/../.well-known/oauth-protected-resource/orders", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(send(request(method, path)).await.status(), status, "{name}");
    }
    let alone = metadata.router().oneshot(request(Method::POST, path)).await.unwrap();
    assert_eq!(alone.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn a_document_that_is_not_true_is_refused_by_the_authenticator() {
    let check = |metadata: ResourceMetadataBuilder, jwt: JwtAuthenticatorBuilder| {
        jwt.resource_metadata(&metadata.build().unwrap()).build().map(drop).map_err(|error| error.value().to_owned())
    };
    let dpop = || Dpop::at(["https://api.example.com"]).unwrap();
    assert_eq!(check(metadata(), jwt()), Ok(()));
    assert_eq!(check(ResourceMetadata::builder(RESOURCE), jwt()), Ok(()), "issuers need not be named");
    assert_eq!(check(metadata().certificate_bound(), jwt()), Ok(()), "bound tokens pass as others do");
    assert_eq!(check(metadata().dpop_algorithms([Algorithm::ES256]), jwt().dpop(dpop())), Ok(()));
    assert_eq!(check(metadata().dpop_required(), jwt().dpop(dpop().required())), Ok(()));
    assert_eq!(check(metadata().certificate_bound(), jwt().certificate_bound()), Ok(()));

    for (name, metadata, jwt, value) in [
        (
            "another issuer",
            metadata().authorization_server("https://evil.example"),
            jwt(),
            "authorization server \"https://evil.example\"",
        ),
        (
            "almost the issuer",
            ResourceMetadata::builder(RESOURCE).authorization_server("https://id.example.com/"),
            jwt(),
            "authorization server \"https://id.example.com/\"",
        ),
        ("no Authorization", metadata(), jwt().without_authorization().header("x-token"), "bearer"),
        ("bearer tokens after all", metadata().without_bearer(), jwt(), "no bearer"),
        ("bearer tokens though bound ones are demanded", metadata(), jwt().dpop(dpop().required()), "bearer"),
        ("bound ones not demanded", metadata().dpop_required(), jwt().dpop(dpop()), "no bearer"),
        ("not said", metadata().without_bearer(), jwt().dpop(dpop().required()), "dpop_required"),
        ("certificates not said", metadata(), jwt().certificate_bound(), "certificate_bound"),
        ("no proofs at all", metadata().dpop_algorithms([Algorithm::ES256]), jwt(), "DPoP algorithm ES256"),
        (
            "an algorithm too many",
            metadata().dpop_algorithms([Algorithm::ES256, Algorithm::PS512]),
            jwt().dpop(dpop().algorithms([Algorithm::ES256])),
            "DPoP algorithm PS512",
        ),
    ] {
        assert_eq!(check(metadata, jwt).unwrap_err(), value, "{name}");
    }
    // Another authenticator beside takes the tokens of the other issuer, and of no third one.
    let two = metadata().authorization_server("https://opaque.example.com").build().unwrap();
    assert!(jwt().resource_metadata(MetadataUrl::from(&two).beside("https://opaque.example.com")).build().is_ok());
    assert!(jwt().resource_metadata(MetadataUrl::from(&two).beside("https://opaque.example.com/")).build().is_err());
    // Served by somebody else: what it says is not known here.
    assert!(
        jwt().resource_metadata("https://gateway.example.com/.well-known/oauth-protected-resource").build().is_ok()
    );
    for url in ["http://gateway.example.com/x", "/.well-known/x", "https://gateway.example.com/x#y", "https://a\"b"] {
        assert!(jwt().resource_metadata(url).build().is_err(), "{url}");
    }
}
