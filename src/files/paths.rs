//! From the path of a request to the name of a file below one of the mapped directories.
//!
//! A path is decoded once (RFC 3986 section 2.4) and matched by whole segments, so `/static` has no part in `/static-old`. What a
//! client has no honest reason to send is not mended but not found: `.` and `..`, empty segments, malformed percent-encoding, NUL.
//! A backslash is an ordinary byte, and names are bytes, not text. Names that begin with a dot are never served: they are what
//! tools keep for themselves (`.git`, `.env`, `.htpasswd`).

use std::ops::Range;

use crate::config::StaticMap;
use crate::http::bytes::hex;

/// Longest name that is looked for, in bytes: what the kernel takes (PATH_MAX) without its NUL.
const LONGEST: usize = 4095;

/// The mapped prefixes, those with more bytes first.
#[derive(Debug)]
pub struct Maps(Vec<MappedPrefix>);

#[derive(Debug)]
struct MappedPrefix {
    /// Empty for `/`, else with a slash at its begin and none at its end.
    path: Vec<u8>,
    /// Place of its directory in the order of the settings.
    directory: usize,
}

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedName {
    /// Place of the directory in the order of the settings.
    pub directory: usize,
    /// Whether the application has a request for which there is no file.
    pub falls_through: bool,
    /// Where the name below the directory is in the decoded path, without a slash at its begin or end; empty for the directory
    /// itself. `None`: no such name can be served.
    pub name: Option<Range<usize>>,
    /// Whether the path ends as that of a directory does, with a slash.
    pub is_directory: bool,
}

impl Maps {
    /// The prefixes of these maps.
    pub fn new(maps: &[StaticMap]) -> Self {
        let prefix = |(directory, map): (usize, &StaticMap)| MappedPrefix { path: map.prefix.clone().into_bytes(), directory };
        let mut prefixes: Vec<MappedPrefix> = maps.iter().enumerate().map(prefix).collect();
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
        Self(prefixes)
    }

    /// What the decoded path of a request means, from the byte `from` on, where the root path of the application ends. `None`: no
    /// map has it. `is_sound`: its percent-encoding was well-formed.
    pub fn locate(&self, path: &[u8], from: usize, is_sound: bool) -> Option<MappedName> {
        let below = path.get(from..)?;
        let owns = |prefix: &&MappedPrefix| matches!(below.strip_prefix(&*prefix.path), Some([] | [b'/', ..]));
        let MappedPrefix { path: prefix, directory } = self.0.iter().find(owns)?;
        let start = (from + prefix.len() + 1).min(path.len());
        let is_directory = path.last() == Some(&b'/');
        let end = if is_directory { (path.len() - 1).max(start) } else { path.len() };
        let proper = is_sound && end - start <= LONGEST && is_proper(&path[start..end]);
        // The slash that ends the prefix's own path must not be taken for another one's.
        let proper = proper && !(is_directory && path.len() > start && path[start..] == *b"/");
        Some(MappedName {
            directory: *directory,
            falls_through: prefix.is_empty(),
            name: proper.then_some(start..end),
            is_directory,
        })
    }
}

/// Whether a name may be looked for: empty, or segments of which none is empty, hidden or a step in the tree, without NUL.
fn is_proper(name: &[u8]) -> bool {
    name.is_empty() || name.split(|&b| b == b'/').all(|segment| !matches!(segment, [] | [b'.', ..]) && !segment.contains(&0))
}

/// Appends a path with each `%xx` replaced by its byte, once; a malformed one stays as it is. Returns whether there was none.
pub fn decode(path: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = path.iter().position(|&b| b == b'%') else {
        out.extend_from_slice(path);
        return true;
    };
    out.extend_from_slice(&path[..first]);
    let (mut at, mut is_sound) = (first, true);
    while let Some(&byte) = path.get(at) {
        let decoded = match path[at..] {
            [b'%', high, low, ..] => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        is_sound &= byte != b'%' || decoded.is_some();
        out.push(decoded.unwrap_or(byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    is_sound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(prefixes: &[&str]) -> Maps {
        let map = |prefix: &&str| StaticMap { prefix: (*prefix).into(), directory: "/srv".into() };
        Maps::new(&prefixes.iter().map(map).collect::<Vec<_>>())
    }

    /// Directory and name that a path has as sent; `None` for the application, an empty list for what is not found.
    fn name(maps: &Maps, path: &str) -> Option<Vec<(usize, String)>> {
        let mut decoded = Vec::new();
        let is_sound = decode(path.as_bytes(), &mut decoded);
        let place = maps.locate(&decoded, 0, is_sound)?;
        let name = place.name.map(|at| (place.directory, decoded[at].escape_ascii().to_string()));
        Some(name.into_iter().collect())
    }

    #[test]
    fn prefixes_are_matched_by_whole_segments_and_the_longest_wins() {
        let maps = maps(&["/static", "/static/admin", "/media"]);
        for (path, expected) in [
            ("/static/a.css", Some((0, "a.css"))),
            ("/static/admin/a.css", Some((1, "a.css"))),
            ("/static/administrator/a.css", Some((0, "administrator/a.css"))),
            ("/st%61tic/a.css", Some((0, "a.css"))),
            ("/static%2fa.css", Some((0, "a.css"))),
            ("/media/", Some((2, ""))),
            ("/media", Some((2, ""))),
        ] {
            let expected = expected.map(|(at, name)| vec![(at, name.to_owned())]);
            assert_eq!(name(&maps, path), expected, "{path}");
        }
        for path in ["/", "/static-old/a", "/staticx", "/Static/a", "/x/static/a", "", "static/a"] {
            assert_eq!(name(&maps, path), None, "{path}");
        }
    }

    #[test]
    fn the_root_has_every_path_and_leaves_what_it_lacks_to_the_application() {
        let maps = maps(&["", "/static"]);
        let place = maps.locate(b"/robots.txt", 0, true).unwrap();
        assert_eq!((place.falls_through, place.name), (true, Some(1..11)));
        assert!(!maps.locate(b"/static/robots.txt", 0, true).unwrap().falls_through);
        assert_eq!(maps.locate(b"/", 0, true).unwrap().name, Some(1..1));
        assert_eq!(maps.locate(b"//", 0, true).unwrap().name, None);
    }

    #[test]
    fn what_no_honest_client_sends_is_not_found() {
        let maps = maps(&["/s"]);
        for path in [
            "/s/../etc/passwd",
            "/s/..",
            "/s/a/../b",
            "/s/%2e%2e/etc/passwd",
            "/s/%2E./etc/passwd",
            "/s/..%2fetc/passwd",
            "/s/.",
            "/s/./a",
            "/s/a/.",
            "/s/.env",
            "/s/a/.git/config",
            "/s/%2eenv",
            "/s//a",
            "/s/a//b",
            "/s//",
            "/s/a//",
            "/s/a%2f%2fb",
            "/s/a%00b",
            "/s/a%",
            "/s/a%2",
            "/s/a%zz",
            "/s/a%+1",
        ] {
            assert_eq!(name(&maps, path), Some(vec![]), "{path}");
        }
        assert_eq!(name(&maps, &format!("/s/{}", "a".repeat(LONGEST + 1))), Some(vec![]));
        assert!(name(&maps, &format!("/s/{}", "a".repeat(LONGEST))).is_some_and(|found| found.len() == 1));
    }

    #[test]
    fn names_are_bytes_that_are_decoded_once() {
        let maps = maps(&["/s"]);
        for (path, expected) in [
            ("/s/a\\..\\b", "a\\\\..\\\\b"),
            ("/s/%252e%252e/a", "%2e%2e/a"),
            ("/s/%e9%ff", "\\xe9\\xff"),
            ("/s/%E4%BD%A0", "\\xe4\\xbd\\xa0"),
            ("/s/a+b%20c", "a+b c"),
            ("/s/a;b=c", "a;b=c"),
            ("/s/..a/b", ""),
            ("/s/a..b/c...", "a..b/c..."),
            ("/s/a%3fb", "a?b"),
            ("/s/a/", "a"),
        ] {
            let expected = if expected.is_empty() { vec![] } else { vec![(0, expected.to_owned())] };
            assert_eq!(name(&maps, path), Some(expected), "{path}");
        }
    }

    #[test]
    fn the_root_path_of_the_application_comes_first() {
        let maps = maps(&["/static"]);
        let path = b"/shop/static/a.css";
        let place = maps.locate(path, 5, true).unwrap();
        assert_eq!(&path[place.name.unwrap()], b"a.css");
        assert!(maps.locate(path, 0, true).is_none());
    }
}
