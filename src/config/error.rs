//! What can be wrong with the configuration: where, which option, which value, why, and what to do, in one line.

use std::fmt;
use std::path::PathBuf;

use super::options::{Opt, ValueKind};
use super::origin::Origin;

/// Longest value repeated in a message, in characters; the rest says nothing new.
const SHOWN_MAX: usize = 200;

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A value is out of its bounds, malformed, or contradicts another one.
    Value {
        /// The option.
        option: &'static Opt,
        /// The offending value.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// Why it cannot be, and what would be right.
        why: String,
    },
    /// A key of the file is no option.
    UnknownKey {
        /// As written.
        key: String,
        /// Where.
        origin: Origin,
        /// The option that was probably meant.
        suggestion: Option<&'static Opt>,
    },
    /// A setting of gunicorn that is refused: the whole sentence.
    Setting(String),
    /// The file as a whole cannot be used.
    File {
        /// Path as given.
        path: PathBuf,
        /// Line, when one is to blame.
        line: Option<usize>,
        /// Why, and what to do.
        why: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { option, value, origin, why } => write!(f, "{}: {why}", NamedOption { option, value, origin }),
            Self::UnknownKey { key, origin, suggestion } => {
                write!(f, "{} ({origin}): no such option; ", shown(key))?;
                match suggestion {
                    Some(option) => write!(f, "did you mean {}?", option.key()),
                    None => f.write_str("'tapster --help' lists them all, with - or _ between the words"),
                }
            }
            Self::Setting(text) => f.write_str(text),
            Self::File { path, line, why } => {
                write!(f, "configuration file {}", shown(&path.to_string_lossy()))?;
                match line {
                    Some(line) => write!(f, " line {line}: {why}"),
                    None => write!(f, ": {why}"),
                }
            }
        }
    }
}

impl std::error::Error for Error {}

/// Names an option as its source spells it, with the value and the source.
struct NamedOption<'a> {
    option: &'a Opt,
    value: &'a str,
    origin: &'a Origin,
}

impl fmt::Display for NamedOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, origin } = self;
        let value = shown(value);
        match origin {
            Origin::Environment(variable) => write!(f, "{variable}={value} (environment)"),
            Origin::File { .. } => write!(f, "{} = {value} ({origin})", option.key()),
            Origin::Call => write!(f, "{}={value} ({origin})", option.key()),
            Origin::CommandLine | Origin::GunicornArguments | Origin::GunicornDefault | Origin::Default => match option.kind {
                ValueKind::Positional => write!(f, "{} {value} ({origin})", option.value),
                ValueKind::Text
                | ValueKind::Number
                | ValueKind::Octal
                | ValueKind::List
                | ValueKind::Flag
                | ValueKind::Switch => {
                    write!(f, "--{} {value} ({origin})", option.name)
                }
            },
        }
    }
}

/// A value as a message shows it: on one line, visible, not endless.
pub fn shown(value: &str) -> String {
    let cut: String = value.chars().take(SHOWN_MAX).collect();
    let dots = if cut.len() < value.len() { "..." } else { "" };
    if value.is_empty() || value.contains(|c: char| c.is_control()) || value.trim() != value {
        return format!("{cut:?}{dots}");
    }
    format!("{cut}{dots}")
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_shown_value_is_one_visible_line() {
        assert_eq!(shown("a b"), "a b");
        assert_eq!(shown(""), "\"\"");
        assert_eq!(shown(" a"), "\" a\"");
        assert_eq!(shown("a\nb\u{1b}"), "\"a\\nb\\u{1b}\"");
        assert_eq!(shown(&"x".repeat(300)), format!("{}...", "x".repeat(200)));
    }
}
