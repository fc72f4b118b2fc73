//! The manual: what the layers do and why, page by page. The same pages are in `docs/`.

macro_rules! pages {
    ($($name:ident $file:literal)*) => {$(
        #[doc = include_str!(concat!("../docs/", $file))]
        pub mod $name {}
    )*};
}

pages! {
    getting_started "getting-started.md"
    checklist "checklist.md"
    choosing "choosing.md"
    stack "stack.md"
    defaults "defaults.md"
    recipes "recipes.md"
    configuration "configuration.md"
    evidence "evidence.md"
    tls "tls.md"
    client_certificates "client-certificates.md"
    jwt "jwt.md"
    introspection "introspection.md"
    sender_constrained "sender-constrained.md"
    revocation "revocation.md"
    long_lived "long-lived.md"
    api_keys "api-keys.md"
    rate_limit "rate-limit.md"
    guard "guard.md"
    policy "policy.md"
    audit "audit.md"
    health "health.md"
    grpc "grpc.md"
    roll_out "roll-out.md"
    extending "extending.md"
    testing "testing.md"
    reliability "reliability.md"
    operations "operations.md"
    migration "migration.md"
    threat_model "threat-model.md"
    comparison "comparison.md"
    stability "stability.md"
    performance "performance.md"
}
