//! From the name of a header field, as sent, to its environ key: a bounded cache.
//!
//! The same few names come with every request, in the same spelling. A table of pairs of slots holds the key object of each and
//! the last value seen with it; a third name for a pair overwrites one. Names and values are compared by all their bytes, never
//! by hash alone, and the objects are immutable, so nothing of one client can show up in the request of another.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::text;
use crate::http::hash::mix;

/// Slots of the table; a power of two, so that the top bits of the hash are the index.
const SLOTS: usize = 256;

/// Longest name that is kept, in bytes; longer ones are rare and computed each time.
const NAME_MAX: usize = 64;

/// Longest value that is kept, in bytes; longer ones (cookies) differ between clients.
const VALUE_MAX: usize = 256;

/// Variables of gateways that applications look up by literal, likewise.
const VARIABLES: [&str; 20] = [
    "AUTH_TYPE",
    "CONTEXT_PREFIX",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "PATH_TRANSLATED",
    "REDIRECT_STATUS",
    "REMOTE_HOST",
    "REMOTE_USER",
    "REQUEST_SCHEME",
    "SCGI",
    "SCRIPT_FILENAME",
    "SERVER_ADDR",
    "SERVER_ADMIN",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SIGNATURE",
    "SERVER_SOFTWARE",
];

/// Keys that applications look up by literal: interned, so that the comparison is one of pointers. Only these, because an
/// interned string may live for ever and the names are chosen by clients.
const KNOWN: [&str; 30] = [
    "CONTENT_TYPE",
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_CHARSET",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_ACCEPT_LANGUAGE",
    "HTTP_AUTHORIZATION",
    "HTTP_CACHE_CONTROL",
    "HTTP_CONNECTION",
    "HTTP_COOKIE",
    "HTTP_DNT",
    "HTTP_EXPECT",
    "HTTP_FORWARDED",
    "HTTP_HOST",
    "HTTP_IF_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_ORIGIN",
    "HTTP_PRAGMA",
    "HTTP_RANGE",
    "HTTP_REFERER",
    "HTTP_UPGRADE",
    "HTTP_UPGRADE_INSECURE_REQUESTS",
    "HTTP_USER_AGENT",
    "HTTP_X_CSRFTOKEN",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_REAL_IP",
    "HTTP_X_REQUESTED_WITH",
];

/// The meaning of a name for the environ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meaning {
    /// Not shown to the application: an underscore in the name (it would be confused with a hyphen), `Proxy` (httpoxy), the
    /// framing, which the server has already handled.
    #[default]
    Dropped,
    /// A plain field; repeated ones are joined with a comma (RFC 9110 section 5.3).
    Plain,
    /// `Cookie`: repeated ones are joined with a semicolon (RFC 6265 section 5.4, RFC 9113 section 8.2.3).
    Cookie,
    /// `X-Forwarded-Proto`: a plain field that a trusted peer sets the scheme with.
    Scheme,
}

impl Meaning {
    fn of(name: &[u8]) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if memchr::memchr(b'_', name).is_some() || is("proxy") || is("transfer-encoding") || is("content-length") {
            Self::Dropped
        } else if is("cookie") {
            Self::Cookie
        } else if is("x-forwarded-proto") {
            Self::Scheme
        } else {
            Self::Plain
        }
    }

    /// The separator between the values of repeated fields.
    pub fn separator(self) -> &'static [u8] {
        match self {
            Self::Cookie => b"; ",
            Self::Dropped | Self::Plain | Self::Scheme => b",",
        }
    }
}

/// The environ key of a field name: `HTTP_` and the name in capitals, except for Content-Type.
pub fn environ_key(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + name.len());
    if !name.eq_ignore_ascii_case(b"content-type") {
        key.extend_from_slice(b"HTTP_");
    }
    key.extend(name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
    key
}

/// One name of the table.
#[derive(Default)]
pub struct NameEntry {
    name: Vec<u8>,
    meaning: Meaning,
    key: Option<Py<PyString>>,
    value: Vec<u8>,
    object: Option<Py<PyString>>,
}

impl NameEntry {
    fn fill(&mut self, py: Python<'_>, name: &[u8], kind: NameKind, known: &[Py<PyString>]) -> PyResult<()> {
        let (meaning, bytes) = match kind {
            NameKind::Fields => (Meaning::of(name), environ_key(name)),
            NameKind::Variables => (Meaning::Plain, name.to_vec()),
        };
        let key = if meaning == Meaning::Dropped {
            None
        } else {
            let known = known.iter().find(|key| text::to_latin1(key.bind_borrowed(py)) == Some(&bytes[..]));
            Some(match known {
                Some(key) => key.clone_ref(py),
                None => text::from_latin1(py, &bytes)?.unbind(),
            })
        };
        self.name.clear();
        self.name.extend_from_slice(name);
        self.meaning = meaning;
        self.key = key;
        self.value.clear();
        self.object = None;
        Ok(())
    }

    /// The meaning of the name.
    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// The environ key, none when the field is dropped.
    pub fn key(&self, py: Python<'_>) -> Option<Py<PyString>> {
        self.key.as_ref().map(|key| key.clone_ref(py))
    }

    /// The environ key (none when the field is dropped) and the string of `value`.
    pub fn pair<'py>(
        &mut self,
        py: Python<'py>,
        value: &[u8],
    ) -> PyResult<Option<(Borrowed<'_, 'py, PyString>, Bound<'py, PyString>)>> {
        let Some(key) = &self.key else { return Ok(None) };
        let object = match &self.object {
            Some(object) if self.value == value => object.bind(py).clone(),
            _ => {
                let object = text::from_latin1(py, value)?;
                if value.len() <= VALUE_MAX {
                    self.value.clear();
                    self.value.extend_from_slice(value);
                    self.object = Some(object.clone().unbind());
                }
                object
            }
        };
        Ok(Some((key.bind_borrowed(py), object)))
    }
}

/// What the names of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    /// Names of header fields.
    Fields,
    /// Names of variables, which are keys as they are.
    Variables,
}

/// The table.
pub struct NameTable {
    kind: NameKind,
    slots: Box<[NameEntry]>,
    /// For names that are too long to be kept.
    long: NameEntry,
    known: Vec<Py<PyString>>,
}

impl NameTable {
    /// An empty table of names of header fields.
    pub fn of_fields(py: Python<'_>) -> PyResult<Self> {
        Self::new(py, NameKind::Fields, &KNOWN)
    }

    /// An empty table of names of variables.
    pub fn of_variables(py: Python<'_>) -> PyResult<Self> {
        Self::new(py, NameKind::Variables, &VARIABLES)
    }

    fn new(py: Python<'_>, kind: NameKind, known: &[&str]) -> PyResult<Self> {
        let known = known.iter().map(|name| text::key(py, name)).collect::<PyResult<_>>()?;
        Ok(Self { kind, slots: (0..SLOTS).map(|_| NameEntry::default()).collect(), long: NameEntry::default(), known })
    }

    /// The slot of a name, filled for it.
    pub fn slot(&mut self, py: Python<'_>, name: &[u8]) -> PyResult<&mut NameEntry> {
        if name.len() > NAME_MAX {
            self.long.fill(py, name, self.kind, &self.known)?;
            return Ok(&mut self.long);
        }
        let first = index(name);
        let second = first ^ 1;
        let found = if self.slots[first].name == name || self.slots[first].name.is_empty() { first } else { second };
        let slot = &mut self.slots[found];
        if slot.name != name {
            slot.fill(py, name, self.kind, &self.known)?;
        }
        Ok(slot)
    }
}

/// Mixes the first and the last eight bytes and the length; which slot a name gets matters only for speed.
fn index(name: &[u8]) -> usize {
    let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (name.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)), 0),
    };
    let mixed = mix(tail, head ^ name.len() as u64);
    (mixed >> (64 - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_keys_as_the_cgi_rules_say() {
        assert_eq!(environ_key(b"X-Real-ip"), b"HTTP_X_REAL_IP");
        assert_eq!(environ_key(b"content-TYPE"), b"CONTENT_TYPE");
    }

    #[test]
    fn names_that_could_be_confused_or_misused_are_dropped() {
        for name in ["X_Real-Ip", "Proxy", "PROXY", "Transfer-Encoding", "content-length"] {
            assert_eq!(Meaning::of(name.as_bytes()), Meaning::Dropped, "{name}");
        }
        assert_eq!(Meaning::of(b"Proxy-Authorization"), Meaning::Plain);
    }

    #[test]
    fn common_names_fit_into_their_pairs_of_slots() {
        let names = [
            "Host",
            "Connection",
            "User-Agent",
            "Accept",
            "Accept-Encoding",
            "Accept-Language",
            "Cookie",
            "Cache-Control",
            "sec-ch-ua",
            "sec-ch-ua-mobile",
            "sec-ch-ua-platform",
            "Upgrade-Insecure-Requests",
            "Sec-Fetch-Site",
            "Sec-Fetch-Mode",
            "Sec-Fetch-User",
            "Sec-Fetch-Dest",
            "Content-Type",
            "Content-Length",
            "Referer",
            "Origin",
        ];
        let mut pairs: Vec<usize> = names.iter().map(|name| index(name.as_bytes()) / 2).collect();
        pairs.sort_unstable();
        assert!(pairs.windows(3).all(|three| three[0] != three[2]), "{pairs:?}");
    }
}
