//! The protocols of front servers besides HTTP, without I/O: bytes in, facts out. And the name of each protocol of requests.

use serde::{Deserialize, Serialize};

pub mod proxy;

/// The protocol of the requests on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0 ([`crate::http`]).
    Http,
}

impl Protocol {
    /// All of them, in the order in which [`Self::split`] tries their prefixes: an empty one fits every address.
    const ALL: [Self; 1] = [Self::Http];

    /// What precedes an address on which it is spoken (`--bind`).
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Http => "",
        }
    }

    /// The protocol that a prefix of this address names, and the address without it.
    pub fn split(text: &str) -> (Self, &str) {
        let named = Self::ALL.into_iter().find_map(|protocol| Some((protocol, text.strip_prefix(protocol.prefix())?)));
        named.unwrap_or((Self::Http, text))
    }
}
