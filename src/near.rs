//! What somebody may have meant.

/// The longest name that is compared, in bytes: longer ones are no typing mistakes.
const MAX_LEN: usize = 128;

/// Names much like this one, as the end of a sentence; nothing if there are none.
pub(crate) fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    if name.len() > MAX_LEN {
        return String::new();
    }
    let mut close: Vec<(usize, &str)> = known
        .into_iter()
        .map(|known| (distance(name, known), known))
        .filter(|(distance, known)| *distance <= 3 && *distance < known.len())
        .collect();
    close.sort_unstable();
    let close: Vec<String> = close.iter().take(3).map(|(_, name)| format!("{name:?}")).collect();
    if close.is_empty() { close.concat() } else { format!("; did you mean {}?", close.join(" or ")) }
}

/// How many bytes must be inserted, removed or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (before, x) in a.bytes().enumerate() {
        let (mut diagonal, mut left) = (before, before + 1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("clark", "clerk", 1), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
