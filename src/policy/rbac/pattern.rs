//! `resource:action` with wildcards.

/// Whether a pattern stands for a permission.
///
/// Both are segments between colons. `*` stands for exactly one segment; as the last segment, for one or more. Other
/// segments are compared byte for byte.
pub(super) fn matches(pattern: &str, permission: &str) -> bool {
    let mut segments = permission.split(':');
    let mut parts = pattern.split(':').peekable();
    while let Some(part) = parts.next() {
        let Some(segment) = segments.next() else { return false };
        if part == "*" {
            if parts.peek().is_none() {
                return true;
            }
        } else if part != segment {
            return false;
        }
    }
    segments.next().is_none()
}

/// Whether it has a wildcard.
pub(super) fn is_wild(pattern: &str) -> bool {
    pattern.contains('*')
}

/// Whether each `*` is a segment of its own.
pub(super) fn is_sound(pattern: &str) -> bool {
    pattern.split(':').all(|part| part == "*" || !part.contains('*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_a_whole_segment() {
        for (pattern, permission, expected) in [
            ("orders:read", "orders:read", true),
            ("orders:*", "orders:read", true),
            ("orders:*", "orders:items:read", true),
            ("orders:*", "orders", false),
            ("orders:*", "ordersX:read", false),
            ("orders:*", "Orders:read", false),
            ("*:read", "orders:read", true),
            ("*:read", "orders:items:read", false),
            ("*:read", "read", false),
            ("orders:*:read", "orders:items:read", true),
            ("orders:*:read", "orders:read", false),
            ("*:*", "orders:items:read", true),
            ("*:*", "orders", false),
            ("*", "orders:items:read", true),
            ("orders:read", "orders:read:all", false),
            ("orders", "orders:read", false),
        ] {
            assert_eq!(matches(pattern, permission), expected, "{pattern} {permission}");
        }
        for (pattern, sound) in [("*", true), ("a:*", true), ("ord*", false), ("a:*b", false), ("**", false)] {
            assert_eq!(is_sound(pattern), sound, "{pattern}");
        }
    }

    /// By definition: every way to let the last star take more than one segment.
    fn naive(pattern: &[&str], permission: &[&str]) -> bool {
        match (pattern, permission) {
            ([], []) => true,
            (["*"], [_, ..]) => true,
            (["*", rest @ ..], [_, after @ ..]) => naive(rest, after),
            ([part, rest @ ..], [segment, after @ ..]) => part == segment && naive(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_the_definition_says(
            pattern in prop::collection::vec(prop_oneof![Just("*"), Just("a"), Just("b"), Just("")], 1..5),
            permission in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("")], 1..5),
        ) {
            prop_assert_eq!(matches(&pattern.join(":"), &permission.join(":")), naive(&pattern, &permission));
        }

        #[test]
        fn without_a_star_it_is_equality(a in "[ab:]{0,6}", b in "[ab:]{0,6}") {
            prop_assert_eq!(matches(&a, &b), a == b);
        }
    }
}
