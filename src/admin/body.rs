use ::axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::LengthLimitError;

use super::{Fault, MAX_BODY};

/// All of a body that is said to be JSON, which a form of another site cannot say.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Fault> {
    if !is_of_type(headers, b"application/json") {
        return Err(Fault::not_json());
    }
    to_bytes(body, MAX_BODY).await.map_err(|error| {
        if error.into_inner().is::<LengthLimitError>() {
            Fault::too_large(MAX_BODY)
        } else {
            Fault::body("The body ended early.")
        }
    })
}

/// This type, with whatever parameters, once.
pub(crate) fn is_of_type(headers: &HeaderMap, expected: &[u8]) -> bool {
    let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (fields.next(), fields.next()) else { return false };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(expected)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_json_is_json() {
        let is_json = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::CONTENT_TYPE, HeaderValue::from_static(value)));
            is_of_type(&values.collect(), b"application/json")
        };
        assert!(is_json(&["application/json"]));
        assert!(is_json(&["Application/JSON ; charset=utf-8"]));
        for bad in [&[][..], &["text/plain"], &["application/jsonx"], &["application/json", "application/json"], &[""]]
        {
            assert!(!is_json(bad), "{bad:?}");
        }
    }
}
