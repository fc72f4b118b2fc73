//! Other methods than those of the profile.

use http::Method;

use super::{
    profile::Route,
    run::{Run, bearing, with},
};

/// Methods that the profile does not name for the path, by nobody and by somebody.
pub(super) async fn unlisted(run: &mut Run, route: &Route, routes: &[Route]) {
    let listed = |method: &str| {
        let method = if method == "HEAD" { "GET" } else { method };
        routes.iter().any(|held| held.path == route.path && held.method.as_str() == method)
    };
    let token = run.somebody(route).map(|token| token.mint());
    for name in
        ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE", "PROPFIND"].into_iter().filter(|name| !listed(name))
    {
        let Some(request) =
            Method::from_bytes(name.as_bytes()).ok().and_then(|method| run.request(&method, &route.path))
        else {
            continue;
        };
        run.refused("method-unlisted", name, request.clone()).await;
        if let Some(token) = &token {
            run.refused("method-unlisted", name, bearing(request.clone(), token)).await;
        }
        if name == "POST" {
            for field in ["x-http-method-override", "x-http-method", "x-method-override"] {
                let request = with(request.clone(), field, route.method.as_str());
                let request = match &token {
                    Some(token) => bearing(request, token),
                    None => request,
                };
                run.refused("method-override", &format!("{field}: {}", route.method), request).await;
            }
        }
    }
}
