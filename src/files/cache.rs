//! How long others may keep an answer (RFC 9111 section 5.2.2).

use std::time::Duration;

use regex_lite::Regex;

use crate::config::{Expires, ImmutableNames, StaticFiles};

/// The field of an answer whose URL is never used for anything else: a year, as long as it is sensible (RFC 8246 section 2).
const IMMUTABLE: &[u8] = b"max-age=31536000, immutable";

/// Hexadecimal digits of a hash in a name, as Django's ManifestStaticFilesStorage has them.
const HASH: usize = 12;

/// The rule for all files.
#[derive(Debug)]
pub struct CachePolicy {
    /// Value of the field for ordinary names; empty: there is none.
    ordinary: Vec<u8>,
    immutable: ImmutableRule,
    versioned: bool,
}

/// Names whose content never changes.
#[derive(Debug)]
enum ImmutableRule {
    None,
    Hashed,
    Pattern(Box<Regex>),
}

impl CachePolicy {
    /// The rule of these settings.
    ///
    /// # Errors
    /// A pattern that is none, which the settings never have.
    pub fn new(settings: &StaticFiles) -> Result<Self, regex_lite::Error> {
        let ordinary = match settings.expires {
            Expires::Unsaid => Vec::new(),
            Expires::After(Duration::ZERO) => b"no-cache".to_vec(),
            Expires::After(time) => format!("max-age={}", time.as_secs()).into_bytes(),
        };
        let immutable = match &settings.immutable {
            ImmutableNames::None => ImmutableRule::None,
            ImmutableNames::Hashed => ImmutableRule::Hashed,
            ImmutableNames::Pattern(pattern) => ImmutableRule::Pattern(Box::new(Regex::new(pattern)?)),
        };
        Ok(Self { ordinary, immutable, versioned: settings.versioned })
    }

    /// Value of Cache-Control for a file of this name below its directory, asked for with this query; empty: the field is not
    /// sent.
    pub fn value(&self, name: &[u8], query: &[u8]) -> &[u8] {
        let is_immutable = match &self.immutable {
            ImmutableRule::None => false,
            ImmutableRule::Hashed => is_hashed(name),
            ImmutableRule::Pattern(pattern) => std::str::from_utf8(name).is_ok_and(|name| pattern.is_match(name)),
        };
        if is_immutable || (self.versioned && has_version(query)) { IMMUTABLE } else { &self.ordinary }
    }
}

/// Whether a name has a hash before its last extension, or at its end: what [`crate::config::HASHED_NAMES`] matches.
fn is_hashed(name: &[u8]) -> bool {
    let is_hash = |part: &[u8]| part.len() == HASH && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let base = name.rsplit(|&b| b == b'/').next().unwrap_or(name);
    let mut parts = base.rsplit(|&b| b == b'.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(last), Some(_), _) if is_hash(last) => true,
        (Some(last), Some(hash), Some(_)) => !last.is_empty() && is_hash(hash),
        _ => false,
    }
}

/// Whether a query has the parameter `v` with a value.
fn has_version(query: &[u8]) -> bool {
    query.split(|&b| b == b'&').any(|parameter| parameter.len() > 2 && parameter.starts_with(b"v="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HASHED_NAMES;

    fn policy(expires: Expires, immutable: ImmutableNames, versioned: bool) -> CachePolicy {
        CachePolicy::new(&StaticFiles { expires, immutable, versioned, ..StaticFiles::default() }).unwrap()
    }

    fn value(policy: &CachePolicy, name: &str, query: &str) -> String {
        String::from_utf8(policy.value(name.as_bytes(), query.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn hashed_names_are_those_of_the_pattern() {
        let pattern = Regex::new(HASHED_NAMES).unwrap();
        for (name, expected) in [
            ("css/base.0123456789ab.css", true),
            ("base.0123456789ab.css", true),
            ("LICENSE.0123456789ab", true),
            ("js/app.js.0123456789ab.map", true),
            ("base.0123456789AB.css", false),
            ("base.0123456789a.css", false),
            ("base.0123456789abc.css", false),
            ("base.css", false),
            ("0123456789ab.css", false),
            ("0123456789ab", false),
            ("a.0123456789ab/base.css", false),
            ("base.0123456789ab.", false),
            ("base.0123456789ab.min.css", false),
            ("base-0123456789ab.css", false),
            ("a.0123456789ab.0123456789ab", true),
            ("", false),
        ] {
            assert_eq!(is_hashed(name.as_bytes()), expected, "{name}");
            assert_eq!(pattern.is_match(name), expected, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hashed_names_are_those_of_the_pattern_whatever_they_are(
            name in "[a/.]{0,3}(0123456789ab|abcdef|[0-9a-fA-F.]{12}){0,2}[./a]{0,3}(css|0123456789ab)?"
        ) {
            proptest::prop_assert_eq!(is_hashed(name.as_bytes()), Regex::new(HASHED_NAMES).unwrap().is_match(&name), "{}", name);
        }
    }

    #[test]
    fn ordinary_files_have_the_time_of_the_option() {
        let second = Duration::from_secs(1);
        for (expires, expected) in
            [(Expires::Unsaid, ""), (Expires::After(Duration::ZERO), "no-cache"), (Expires::After(60 * second), "max-age=60")]
        {
            let policy = policy(expires, ImmutableNames::Hashed, false);
            assert_eq!(value(&policy, "a.css", "v=1"), expected);
            assert_eq!(value(&policy, "a.0123456789ab.css", ""), "max-age=31536000, immutable");
        }
    }

    #[test]
    fn a_pattern_takes_the_place_of_hashes() {
        let vite = policy(Expires::Unsaid, ImmutableNames::Pattern("-[A-Za-z0-9_-]{8}\\.".into()), false);
        assert_eq!(value(&vite, "assets/index-BTZ9Xk_3.js", ""), "max-age=31536000, immutable");
        assert_eq!(value(&vite, "a.0123456789ab.css", ""), "");
        let none = policy(Expires::Unsaid, ImmutableNames::None, false);
        assert_eq!(value(&none, "a.0123456789ab.css", ""), "");
        assert_eq!(vite.value(b"\xff-BTZ9Xk_3.js", b""), b"", "a name that is no text matches no pattern");
    }

    #[test]
    fn a_version_in_the_query_counts_only_if_asked_for() {
        let tornado = policy(Expires::Unsaid, ImmutableNames::None, true);
        for (query, expected) in
            [("v=1", true), ("a=1&v=2", true), ("v=", false), ("v", false), ("", false), ("vv=1", false), ("a=v=1", false)]
        {
            assert_eq!(!value(&tornado, "a.css", query).is_empty(), expected, "{query}");
        }
    }
}
