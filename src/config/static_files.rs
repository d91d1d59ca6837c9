//! Files that the server sends itself: `--static-map` and what belongs to it.

use std::path::PathBuf;
use std::time::Duration;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use super::value;

/// Names that never get another content, by default: with twelve hexadecimal digits before the last extension, or at the end, as
/// Django's ManifestStaticFilesStorage makes them. Fewer digits, or other letters, are found in names of everybody's making, and
/// such a file would stay with its readers for a year.
pub const HASHED_NAMES: &str = r"\.[0-9a-f]{12}(\.[^/.]+)?$";

/// Longest time that a cache may keep a file, as an option says: ten years.
const EXPIRES_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the options for static files say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StaticFiles {
    /// `--static-map`, in order; no prefix comes twice.
    pub maps: Vec<StaticMap>,
    /// `--static-index`: name of the file that stands for a directory.
    pub index: Option<String>,
    /// `--static-expires`; default 0.
    pub expires: Expires,
    /// `--static-immutable`; default [`HASHED_NAMES`].
    pub immutable: ImmutableNames,
    /// `--static-versioned`: whether `?v=` makes any name immutable; default off.
    pub versioned: bool,
    /// `--static-precompressed`: whether compressed forms are looked for; default off.
    pub precompressed: bool,
    /// `--static-symlinks`; default follow.
    pub links: LinkPolicy,
    /// `--mime-type`, in order.
    pub mime_types: Vec<MimeType>,
}

/// A prefix of paths, and the directory with its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticMap {
    /// Empty for `/`, else with a slash at its begin and none at its end; decoded.
    pub prefix: String,
    /// As it was given; relative to `--chdir`, or to where the server was started.
    #[serde(with = "super::paths")]
    pub directory: PathBuf,
}

/// How long others may keep an ordinary file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expires {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// So long without asking; zero: they ask each time.
    After(Duration),
}

/// Names that never get another content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImmutableNames {
    /// None.
    #[default]
    None,
    /// Those of [`HASHED_NAMES`].
    Hashed,
    /// Those in which this regular expression is found; it is one.
    Pattern(String),
}

/// What becomes of symbolic links below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkPolicy {
    /// They are followed wherever they lead.
    #[default]
    Follow,
    /// They are followed as long as they stay below the directory.
    Beneath,
    /// They are not followed.
    Deny,
}

/// The media type of an extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MimeType {
    /// Without its dot.
    pub extension: String,
    /// Value of Content-Type.
    pub name: String,
}

impl StaticMap {
    /// Reads `/prefix=DIR`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "must be a path, = and a directory, such as /static=/srv/site/static";
        let (prefix, directory) = text.split_once('=').ok_or(form)?;
        let prefix = value::decoded_path(prefix)?;
        if directory.is_empty() {
            return Err(form.into());
        }
        Ok(Self { prefix, directory: value::path(directory)? })
    }

    /// The path as it was given, for messages.
    pub fn shown(&self) -> &str {
        if self.prefix.is_empty() { "/" } else { &self.prefix }
    }
}

impl StaticFiles {
    /// Adds a map.
    pub(super) fn add(&mut self, map: StaticMap) -> Result<(), String> {
        if self.maps.iter().any(|other| other.prefix == map.prefix) {
            return Err(format!("names {} for the second time; leave one out", map.shown()));
        }
        self.maps.push(map);
        Ok(())
    }
}

impl Expires {
    /// Reads a time, or `none`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Unsaid);
        }
        let time = value::duration(text, Duration::ZERO, EXPIRES_MAX).map_err(|why| format!("{why}, or none"))?;
        match time.subsec_nanos() {
            0 => Ok(Self::After(time)),
            _ => Err("must be whole seconds, the unit of Cache-Control".into()),
        }
    }
}

impl ImmutableNames {
    /// Reads a regular expression, or `none`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "" => Err("is empty and would match every name; write none".into()),
            HASHED_NAMES => Ok(Self::Hashed),
            pattern => match Regex::new(pattern) {
                Ok(_) => Ok(Self::Pattern(pattern.into())),
                Err(error) => Err(format!("is no regular expression: {error}")),
            },
        }
    }
}

impl LinkPolicy {
    /// Reads `follow`, `beneath` or `deny`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "follow" => Ok(Self::Follow),
            "beneath" => Ok(Self::Beneath),
            "deny" => Ok(Self::Deny),
            _ => Err("must be follow, beneath or deny".into()),
        }
    }
}

impl MimeType {
    /// Reads `ext=type/subtype`, maybe with parameters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || String::from("must be an extension, = and a media type, such as wasm=application/wasm");
        let (extension, name) = text.split_once('=').ok_or_else(form)?;
        let extension = extension.strip_prefix('.').unwrap_or(extension);
        let is_token = |part: &str| {
            let is_mark = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || is_mark(b))
        };
        let (essence, _) = name.split_once(';').unwrap_or((name, ""));
        let sound = essence.trim_end().split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
        let printable = name.bytes().all(|b| matches!(b, b' '..=b'~'));
        if !sound || !printable || name.ends_with(' ') || extension.is_empty() || extension.contains(['.', '/']) {
            return Err(form());
        }
        Ok(Self { extension: extension.into(), name: name.into() })
    }
}

/// Reads the name of a file that stands for a directory.
pub(super) fn index(text: &str) -> Result<String, String> {
    match text {
        _ if text.contains(['/', '\0']) => Err("must be the name of a file, without a slash".into()),
        "" | "." | ".." => Err("must be the name of a file, such as index.html".into()),
        _ if text.starts_with('.') => Err("begins with a dot, and such files are never sent".into()),
        _ => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_a_path_and_a_directory() {
        for (text, prefix, directory) in [
            ("/static=/srv/static", "/static", "/srv/static"),
            ("/static/=static", "/static", "static"),
            ("/=public", "", "public"),
            ("/a/b=/srv/a=b", "/a/b", "/srv/a=b"),
            ("/.well-known=/srv/acme", "/.well-known", "/srv/acme"),
            ("/m\u{e9}dia=/srv", "/m\u{e9}dia", "/srv"),
        ] {
            let map = StaticMap::parse(text).unwrap();
            assert_eq!((map.prefix.as_str(), map.directory), (prefix, directory.into()), "{text}");
        }
        for text in
            ["", "/static", "static=/srv", "/static=", "/a//b=/srv", "/a/../b=/srv", "/./a=/srv", "/a%20b=/srv", "/a?b=/srv"]
        {
            assert!(StaticMap::parse(text).is_err(), "{text}");
        }
        let mut files = StaticFiles::default();
        files.add(StaticMap::parse("/a=/srv").unwrap()).unwrap();
        let why = files.add(StaticMap::parse("/a/=/other").unwrap()).unwrap_err();
        assert_eq!(why, "names /a for the second time; leave one out");
    }

    #[test]
    fn times_of_caches_are_whole_seconds() {
        let after = |seconds| Expires::After(Duration::from_secs(seconds));
        for (text, expected) in [
            ("none", Expires::Unsaid),
            ("0", after(0)),
            ("1m", after(60)),
            ("720h", after(2_592_000)),
            ("87600h", after(315_360_000)),
        ] {
            assert_eq!(Expires::parse(text), Ok(expected), "{text}");
        }
        for text in ["", "500ms", "-1", "1y", "87601h", "None"] {
            assert!(Expires::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_must_be_one() {
        assert_eq!(ImmutableNames::parse(HASHED_NAMES), Ok(ImmutableNames::Hashed));
        assert_eq!(ImmutableNames::parse("none"), Ok(ImmutableNames::None));
        assert_eq!(ImmutableNames::parse("-[0-9]+"), Ok(ImmutableNames::Pattern("-[0-9]+".into())));
        for text in ["", "(", "[a", "a{2,1}", "(?=a)"] {
            assert!(ImmutableNames::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_media_type_has_two_parts_and_maybe_parameters() {
        for text in ["wasm=application/wasm", ".x=text/plain; charset=utf-8", "a=image/svg+xml", "7z=a/b", "a=a/b;c=\"d\""] {
            assert!(MimeType::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a",
            "=a/b",
            "a=",
            "a=b",
            "a=/b",
            "a=b/",
            "a.b=c/d",
            "a=b/c/d",
            "a=b c/d",
            "a=b/c\r\nX: y",
            "a=b/\u{e9}",
            "a=b/c ",
        ] {
            assert!(MimeType::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_index_is_a_name() {
        assert_eq!(index("index.html"), Ok("index.html".into()));
        for text in ["", ".", "..", "a/b", ".index", "a\0"] {
            assert!(index(text).is_err(), "{text:?}");
        }
    }
}
