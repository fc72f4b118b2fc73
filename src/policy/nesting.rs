//! How deeply a document of a policy may be nested. Parsers go deeper for each bracket, sign and operator, and so does whoever frees what they
//! made, until the stack is used up: that ends the process, and a file that is watched must not.

use crate::{error::ConfigError, policy::files::SourceText};

/// What may stand around a place and before it, by its weights.
const MOST: usize = 1_000;

/// How the texts of a language are told from the rest, and what weighs how much in it.
#[derive(Clone, Copy)]
pub(super) enum Language {
    #[cfg(feature = "rego")]
    Rego,
    #[cfg(feature = "cedar")]
    Cedar,
    /// Its types have brackets of their own: `Set<String>`.
    #[cfg(feature = "cedar")]
    CedarSchema,
}

impl Language {
    const fn comment(self) -> &'static str {
        match self {
            #[cfg(feature = "rego")]
            Self::Rego => "#",
            #[cfg(feature = "cedar")]
            Self::Cedar | Self::CedarSchema => "//",
        }
    }

    /// Brackets that surround a place, each way.
    fn around(self, c: char) -> usize {
        match (self, c) {
            // Each is read twice, to see whether it is a comprehension, and what is inside as often for each around it.
            #[cfg(feature = "rego")]
            (Self::Rego, '[' | ']' | '{' | '}') => 60,
            #[cfg(feature = "cedar")]
            (Self::CedarSchema, '<' | '>') => 30,
            #[cfg(feature = "cedar")]
            (Self::Cedar | Self::CedarSchema, '(' | ')' | '[' | ']' | '{' | '}') => 30,
            _ => 0,
        }
    }

    /// What takes the rest of a policy one step deeper.
    const fn operators(self) -> &'static [(&'static str, usize)] {
        match self {
            #[cfg(feature = "rego")]
            Self::Rego => &[],
            #[cfg(feature = "cedar")]
            Self::Cedar => &[("&&", 1), ("||", 1), ("if ", 5), ("if(", 5)],
            #[cfg(feature = "cedar")]
            Self::CedarSchema => &[],
        }
    }

    const fn bounds(self) -> &'static str {
        match self {
            #[cfg(feature = "rego")]
            Self::Rego => "at most 16 braces and brackets around a place, or 200 signs before it",
            #[cfg(feature = "cedar")]
            Self::Cedar | Self::CedarSchema => {
                "at most 33 brackets around a place, or 1 000 `&&` and `||`, or 200 `if` in a policy"
            }
        }
    }
}

/// Refuses a text that is nested too deeply.
pub(super) fn check(SourceText { name, text }: &SourceText, language: Language) -> Result<(), ConfigError> {
    let (mut around, mut signs, mut operators, mut line) = (0_usize, 0_usize, 0_usize, 1_usize);
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let token = token(rest, c, language);
        line = line.saturating_add(token.matches('\n').count());
        around = match c {
            '(' | '[' | '{' | '<' => around.saturating_add(language.around(c)),
            _ => around.saturating_sub(language.around(c)),
        };
        signs = match c {
            '-' | '!' => signs.saturating_add(5),
            c if c.is_whitespace() => signs,
            _ => 0,
        };
        let operator = language.operators().iter().find(|(operator, _)| *operator == token);
        operators = operator.map_or(operators, |(_, weight)| operators.saturating_add(*weight));
        if c == ';' {
            operators = 0;
        }
        if around.saturating_add(signs).saturating_add(operators) > MOST {
            let problem = format!("is nested too deeply: {}", language.bounds());
            return Err(ConfigError::new(format!("{name}:{line}"), token, problem));
        }
        rest = rest.strip_prefix(token).unwrap_or_default();
    }
    Ok(())
}

/// The text, the comment, the operator or the sign that stands next.
fn token(rest: &str, c: char, language: Language) -> &str {
    let end = match c {
        '"' => {
            let mut is_escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !is_escaped;
                is_escaped = *c == '\\' && !is_escaped;
                ends
            });
            end.map(|(at, _)| at.saturating_add(1))
        }
        '`' => rest.char_indices().skip(1).find(|(_, c)| *c == '`').map(|(at, _)| at.saturating_add(1)),
        _ if rest.starts_with(language.comment()) => rest.find('\n'),
        _ => {
            let operator = language.operators().iter().find(|(operator, _)| rest.starts_with(*operator));
            Some(operator.map_or(c.len_utf8(), |(operator, _)| operator.len()))
        }
    };
    end.and_then(|end| rest.get(..end)).unwrap_or(rest)
}
