use sqlx::{Database, Encode, QueryBuilder, Type};

use super::{columns::seconds, statements};
use crate::api_key::{KeyFilter, KeyId, MAX_PAGE};

/// The statement for a page. Values are bound; what is pushed is text of this file. None if nothing can fit. `position` is the
/// database's function that says where in a text another one begins, counted from one.
pub(super) fn page<DB: Database>(
    filter: &KeyFilter,
    after: Option<&KeyId>,
    limit: usize,
    position: &'static str,
) -> Option<QueryBuilder<DB>>
where
    String: for<'q> Encode<'q, DB> + Type<DB>,
    Vec<u8>: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    if is_impossible(filter) {
        return None;
    }
    let mut query = QueryBuilder::new(statements::SELECT);
    query.push(" WHERE TRUE");
    if let Some(after) = after {
        query.push(" AND k.id > ").push_bind(after.as_bytes().to_vec());
    }
    if let Some(tenant) = filter.by_tenant() {
        query.push(" AND k.tenant = ").push_bind(tenant.unwrap_or_default().to_owned());
    }
    if let Some(subject) = filter.by_subject() {
        query.push(" AND k.subject = ").push_bind(subject.to_owned());
    }
    match filter.by_environment() {
        Some(Some(environment)) => {
            query.push(" AND k.environment = ").push_bind(environment.to_owned());
        }
        Some(None) => {
            query.push(" AND k.environment IS NULL");
        }
        None => {}
    }
    if let Some(at) = filter.by_activity().map(seconds) {
        query.push(" AND d.subject IS NULL AND k.revoked_at IS NULL AND (k.expires IS NULL OR k.expires > ");
        query.push_bind(at).push(") AND (k.not_before IS NULL OR k.not_before <= ").push_bind(at).push(")");
    }
    if let Some(text) = filter.by_name() {
        query.push(" AND ").push(position).push("(k.name, ").push_bind(text.to_owned()).push(") > 0");
    }
    let limit = i64::try_from(limit.min(MAX_PAGE)).unwrap_or_default();
    query.push(" ORDER BY k.id LIMIT ").push_bind(limit);
    Some(query)
}

/// Whether it asks for a text that no record has: an empty tenant, which is how none is written, or a text with a zero, which
/// PostgreSQL does not take.
fn is_impossible(filter: &KeyFilter) -> bool {
    let texts =
        [filter.by_tenant().flatten(), filter.by_subject(), filter.by_environment().flatten(), filter.by_name()];
    filter.by_tenant() == Some(Some("")) || texts.into_iter().flatten().any(|text| text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_record_has_is_not_asked_for() {
        let all = KeyFilter::all;
        for filter in [
            all().tenant(""),
            all().tenant("a\0"),
            all().subject("\0"),
            all().environment("a\0b"),
            all().name_contains("\0"),
        ] {
            assert!(is_impossible(&filter), "{filter:?}");
        }
        for filter in [all(), all().without_tenant(), all().subject(""), all().name_contains("")] {
            assert!(!is_impossible(&filter), "{filter:?}");
        }
    }
}
