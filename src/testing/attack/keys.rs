//! API keys that nobody may accept.

use http::{HeaderName, HeaderValue};

use super::{profile::Route, run::Run};

/// Keys that are not the whole key.
pub(super) async fn altered(run: &mut Run, route: &Route) {
    for (name, key) in run.profile.keys.clone() {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let shorter: String = key.chars().take(key.chars().count().saturating_sub(1)).collect();
        let last = if key.ends_with('0') { "1" } else { "0" };
        let public: String = key.chars().take(key.chars().count() / 2).collect();
        for (sent, altered) in [
            ("the last character changed", format!("{shorter}{last}")),
            ("without the last character", shorter),
            ("a character more", format!("{key}0")),
            ("half of the key", public),
        ] {
            let (Some(mut request), Ok(value)) = (run.ask(route), HeaderValue::from_str(&altered)) else {
                continue;
            };
            request.headers_mut().insert(name.clone(), value);
            run.refused("key-altered", sent, request).await;
        }
        for parameter in ["api_key", "apikey", "key"] {
            if let Some(request) = run.ask_at(route, &format!("{}?{parameter}={key}", route.path)) {
                run.refused("credential-in-url", parameter, request).await;
            }
        }
    }
}
