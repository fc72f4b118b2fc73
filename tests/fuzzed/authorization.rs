//! Each line of the input is one `Authorization` field. It is read only if it stands alone and is a scheme, spaces and a
//! token68, and then it is read as what it is; everything else is refused.

use http::{HeaderValue, Request, header::AUTHORIZATION};
use portcullis::{MAX_CREDENTIAL_LEN, RejectionKind, RequestHead};

use super::memory::lines;

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    let mut request = Request::new(());
    let values: Vec<_> = lines(data).filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    request.headers_mut().extend(values.iter().map(|value| (AUTHORIZATION, value.clone())));
    let head = RequestHead::of(&request);

    match head.authorization() {
        Ok(None) => assert!(values.is_empty()),
        Ok(Some(credential)) => {
            assert_eq!(values.len(), 1);
            assert_eq!(expected(&values[0]), Some((credential.scheme(), credential.token())));
        }
        Err(rejection) => {
            assert_eq!(rejection.kind(), RejectionKind::InvalidRequest);
            assert!(values.len() > 1 || expected(&values[0]).is_none());
        }
    }
    match head.single_header(&AUTHORIZATION) {
        Ok(text) => assert!(values.len() < 2 && text.map(str::as_bytes) == values.first().map(HeaderValue::as_bytes)),
        Err(_) => assert!(!values.is_empty()),
    }
}

/// The grammar, read once more in another way: backwards from the token.
fn expected(value: &HeaderValue) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.len() <= MAX_CREDENTIAL_LEN)?;
    let (front, token) = text.rsplit_once(' ')?;
    let scheme = front.trim_end_matches(' ');
    let body = token.trim_end_matches('=');
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let fits = !scheme.is_empty() && scheme.chars().all(is_scheme) && !body.is_empty() && body.chars().all(is_token);
    fits.then_some((scheme, token))
}
