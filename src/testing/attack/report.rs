use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use super::ATTACKS;

/// An attack that came through, or a door that should be open and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub(super) attack: &'static str,
    pub(super) route: String,
    pub(super) sent: String,
    pub(super) expected: String,
    pub(super) got: String,
}

impl Finding {
    /// The id of the attack.
    #[must_use]
    pub const fn attack(&self) -> &'static str {
        self.attack
    }

    /// The route: a method and a path.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// What was sent, in words.
    #[must_use]
    pub fn sent(&self) -> &str {
        &self.sent
    }

    /// What should have come.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What came.
    #[must_use]
    pub fn got(&self) -> &str {
        &self.got
    }
}

/// What came of the attacks. `Display` is the text.
#[derive(Clone, Debug, Default)]
pub struct AttackReport {
    pub(super) sent: BTreeMap<&'static str, u32>,
    pub(super) findings: Vec<Finding>,
}

impl AttackReport {
    /// Whether nothing came through, and every door that should be open is.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// What came through, in the order in which it was sent.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The attacks that the profile gave no occasion for, in the order of [`ATTACKS`](super::ATTACKS): what is not there is not
    /// proved.
    pub fn not_sent(&self) -> impl Iterator<Item = &'static str> {
        ATTACKS.iter().map(|(attack, _)| *attack).filter(|attack| !self.sent.contains_key(attack))
    }

    /// How many requests each attack sent. An attack that the profile gives no occasion for is not there.
    pub fn sent(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.sent.iter().map(|(attack, count)| (*attack, *count))
    }

    /// The report as JSON: an object with `sent`, a count for each attack; `not_sent`, a list of attacks; and `findings`.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and numbers: nothing that cannot be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The report as JUnit XML: one test case for each attack, skipped if it was not sent.
    #[must_use]
    pub fn to_junit(&self) -> String {
        let failed = self.sent.keys().filter(|attack| self.of(attack).next().is_some()).count();
        let skipped: Vec<_> = self.not_sent().collect();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"portcullis attacks\" tests=\"{}\" failures=\"{failed}\" skipped=\"{}\">\n",
            self.sent.len().saturating_add(skipped.len()),
            skipped.len()
        );
        for attack in self.sent.keys() {
            let failures: Vec<String> = self.of(attack).map(ToString::to_string).collect();
            xml += &format!("  <testcase classname=\"portcullis.attack\" name=\"{attack}\"");
            xml += &match failures.first() {
                None => "/>\n".to_owned(),
                Some(first) => format!(
                    ">\n    <failure message=\"{}\">{}</failure>\n  </testcase>\n",
                    escaped(first),
                    escaped(&failures.join("\n"))
                ),
            };
        }
        for attack in skipped {
            let case = format!("  <testcase classname=\"portcullis.attack\" name=\"{attack}\">");
            xml += &format!("{case}<skipped/></testcase>\n");
        }
        xml + "</testsuite>\n"
    }

    fn of<'a>(&'a self, attack: &'a str) -> impl Iterator<Item = &'a Finding> + 'a {
        self.findings.iter().filter(move |finding| finding.attack == attack)
    }
}

/// XML 1.0 has no control characters at all.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attack, route, sent, expected, got } = self;
        write!(f, "{attack}: {route}, {sent}: expected {expected}, got {got}")
    }
}

impl Serialize for AttackReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            sent: &'a BTreeMap<&'static str, u32>,
            not_sent: Vec<&'static str>,
            findings: &'a [Finding],
        }
        let Self { sent, findings } = self;
        Shown { sent, not_sent: self.not_sent().collect(), findings }.serialize(serializer)
    }
}

impl fmt::Display for AttackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests: u64 = self.sent.values().map(|count| u64::from(*count)).sum();
        writeln!(f, "{requests} requests of {} attacks, {} findings", self.sent.len(), self.findings.len())?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        let not_sent: Vec<_> = self.not_sent().collect();
        if not_sent.is_empty() { Ok(()) } else { writeln!(f, "not sent: {}", not_sent.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_is_escaped() {
        assert_eq!(escaped("<a b=\"c\">&\u{0}\n"), "&lt;a b=&quot;c&quot;&gt;&amp;\u{fffd}\n");
    }
}
