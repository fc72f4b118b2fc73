//! Templates of paths.

/// Whether a segment starts with `:` or `*`: parameters to axum before 0.8, which has panicked at them since, and text to
/// the matcher, so that a line with one would name no request.
pub(crate) fn has_old_parameter(path: &str) -> bool {
    path.split('/').any(|segment| segment.starts_with([':', '*']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_old_are_found() {
        for path in ["/:id", "/*rest", "/orders/:id", "/:tenant/orders", "/files/*rest", "/*", "/:", ":id", "/a/:id/"] {
            assert!(has_old_parameter(path), "{path}");
        }
        for path in ["", "/", "/orders:cancel", "/{id}:cancel", "/{*rest}", "/a*", "/a:/b*/c"] {
            assert!(!has_old_parameter(path), "{path}");
        }
    }
}
