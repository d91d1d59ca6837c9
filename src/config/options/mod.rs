//! The one table of options. It feeds the command line, the environment, the file, `--help`, `--print-config`, the man page and
//! their tests: an option is one row in [`TABLE`] and one field of [`Settings`](super::Settings).
//!
//! Spelling: a row's name is that of the command line (gunicorn's where gunicorn has the option). The file takes it with `-` or
//! `_` between the words, the environment as `TAPSTER_` and the name in capitals with `_`.

mod bounds;
mod option;
mod table;

pub use option::{Opt, PREFIX, Section, Sources, ValueKind};
pub use table::TABLE;

/// A name less similar than this (Jaro-Winkler, 0 to 1) is no suggestion: below it, suggestions are noise.
const SIMILAR: f64 = 0.8;

/// The option with this name or alias, written with `-` or `_`.
pub fn find(name: &str) -> Option<&'static Opt> {
    let name = name.replace('-', "_");
    TABLE.iter().find(|option| option.keys().any(|key| key == name))
}

/// The option among `allowed` whose name is most like this one.
pub fn similar(name: &str, allowed: impl Fn(&Opt) -> bool) -> Option<&'static Opt> {
    let name = name.replace('-', "_").to_ascii_lowercase();
    let likeness = |option: &Opt| option.keys().map(|key| strsim::jaro_winkler(&key, &name)).fold(0.0, f64::max);
    let rated = TABLE.iter().filter(|option| allowed(option)).map(|option| (likeness(option), option));
    rated.filter(|(rate, _)| *rate >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, option)| option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_option() {
        for option in TABLE {
            let others = || TABLE.iter().filter(|other| *other != option);
            assert!(others().all(|other| other.short.is_none() || other.short != option.short), "{option:?}");
            for key in option.keys() {
                assert!(others().all(|other| other.keys().all(|k| k != key)), "{key}");
                assert_eq!(find(&key), Some(option));
            }
        }
        assert_eq!(TABLE.iter().filter(|option| option.kind == ValueKind::Positional).count(), 1);
    }

    #[test]
    fn every_row_is_whole() {
        for option in TABLE {
            assert!(option.help.ends_with('.') && !option.help.contains("  "), "{option:?}");
            assert_eq!(option.value.is_empty(), matches!(option.kind, ValueKind::Flag | ValueKind::Switch), "{option:?}");
            assert_eq!(option.set.is_none(), !option.sources.file(), "{option:?}: what the file gives is a setting");
            assert!(option.kind != ValueKind::Switch || option.sources == Sources::CommandLine, "{option:?}");
            assert!(option.separator.is_none() || option.kind == ValueKind::List, "{option:?}");
            assert!(option.bare.is_none() || option.kind == ValueKind::Text, "{option:?}");
            assert!(Section::ALL.contains(&option.section), "{option:?}");
        }
    }

    #[test]
    fn names_are_found_with_dashes_and_underscores() {
        let field_size = find("limit-request-field_size").unwrap();
        assert_eq!(find("limit_request_field_size"), Some(field_size));
        assert_eq!(field_size.variable(), "TAPSTER_LIMIT_REQUEST_FIELD_SIZE");
        assert_eq!(find("log-file"), find("error_logfile"));
        assert_eq!(find("Bind"), None);
    }

    #[test]
    fn a_misspelt_name_is_recognized_and_nonsense_is_not() {
        let guess = |name| similar(name, |_| true).map(|option| option.name);
        assert_eq!(guess("wrokers"), Some("workers"));
        assert_eq!(guess("keepalive"), Some("keep-alive"));
        assert_eq!(guess("ERROR_LOG"), Some("error-logfile"));
        assert_eq!(guess("zzz"), None);
        assert_eq!(similar("wrokers", |option| option.name != "workers"), None);
    }
}
