//! Requests that other sites cause, which browsers send with what shows who their user is.

use bytes::Bytes;
use http::{Request, header};

use super::{
    caller::Caller,
    profile::Route,
    run::{Run, with},
};

/// An origin that is nobody's of the service.
const ELSEWHERE: &str = "https://mallory.invalid";

/// By the browser of somebody who may use the route.
pub(super) async fn caused(run: &mut Run, route: &Route) {
    let Some((_, who)) = run.users(route).into_iter().find(|(_, who)| who.is_by_browser()) else { return };
    let attack = match (route.websocket, route.method.is_safe()) {
        (true, _) => "csrf-websocket",
        (false, false) => "csrf-origin",
        (false, true) => return,
    };
    let mut words = vec![
        ("another Origin".to_owned(), Some(ELSEWHERE.to_owned()), None),
        ("another Origin, Sec-Fetch-Site: cross-site".to_owned(), Some(ELSEWHERE.to_owned()), Some("cross-site")),
        ("Origin: null".to_owned(), Some("null".to_owned()), None),
        ("Sec-Fetch-Site: cross-site".to_owned(), None, Some("cross-site")),
        ("Sec-Fetch-Site: same-site".to_owned(), None, Some("same-site")),
    ];
    for like in like_its_own(run) {
        words.push((format!("Origin: {like}"), Some(like), None));
    }
    for (sent, origin, site) in words {
        let Some(request) = run.ask(route) else { return };
        let request = run.outside(request, &who, origin.as_deref(), site);
        run.refused(attack, &sent, request).await;
    }
    let Some(request) = run.ask(route) else { return };
    let request = run.outside(request, &who, None, None);
    let attack = if route.websocket { attack } else { "csrf-no-origin" };
    run.refused(attack, "neither Origin nor Sec-Fetch-Site", request).await;
}

/// Origins that one who looks at a part of them takes for the service's own.
fn like_its_own(run: &Run) -> Vec<String> {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let of_host = || run.profile.host.as_ref().and_then(text).map(|host| format!("https://{host}"));
    let Some(own) = run.profile.origin.as_ref().and_then(text).or_else(of_host) else { return Vec::new() };
    let Some((_, host)) = own.split_once("://") else { return Vec::new() };
    vec![format!("{own}.mallory.invalid"), format!("https://mallory-{host}"), format!("https://mallory.invalid/{host}")]
}

impl Run {
    /// The request of somebody's browser that a page of this origin has caused.
    pub(super) fn caused_elsewhere(&self, request: Request<Bytes>, who: &Caller, origin: &str) -> Request<Bytes> {
        self.outside(request, who, Some(origin), Some("cross-site"))
    }

    /// The request of somebody's browser, which says this of where it comes from.
    fn outside(
        &self,
        request: Request<Bytes>,
        who: &Caller,
        origin: Option<&str>,
        site: Option<&str>,
    ) -> Request<Bytes> {
        let mut request = self.by(request, who);
        request.headers_mut().remove(header::ORIGIN);
        request.headers_mut().remove("sec-fetch-site");
        let said = [("origin", origin), ("sec-fetch-site", site)];
        let said = said.into_iter().filter_map(|(name, value)| Some((name, value?)));
        said.fold(request, |request, (name, value)| with(request, name, value))
    }
}
