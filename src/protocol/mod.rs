//! The protocols of front servers besides HTTP, without I/O: bytes in, facts out. And the name of each protocol of requests.
//!
//! A gateway is a front server that has parsed the HTTP and passes a request on by variables, as CGI has them (RFC 3875). How they
//! are packed is in [`pairs`]; what they mean is the same for all, and in [`variables`]. How an answer goes back is a
//! [`crate::http::terms::Dialect`].

use serde::{Deserialize, Serialize};

pub mod ajp;
pub mod fastcgi;
pub mod pairs;
pub mod proxy;
pub mod variables;

/// The protocol of the requests on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0 ([`crate::http`]).
    #[default]
    Http,
    /// FastCGI 1.0 (<https://fastcgi-archives.github.io/FastCGI_Specification.html>).
    FastCgi,
    /// SCGI (<https://python.ca/scgi/protocol.txt>).
    Scgi,
    /// The uwsgi protocol (<https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html>).
    Uwsgi,
    /// AJP 1.3 (<https://tomcat.apache.org/connectors-doc/ajp/ajpv13a.html>).
    Ajp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Http, Self::FastCgi, Self::Scgi, Self::Uwsgi, Self::Ajp];

    /// Its name, which precedes an address on which it is spoken, with a colon (`--bind`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::FastCgi => "fastcgi",
            Self::Scgi => "scgi",
            Self::Uwsgi => "uwsgi",
            Self::Ajp => "ajp",
        }
    }

    /// The names of all of them, as a list.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The protocol of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// The protocol that a prefix of this address names, if one does, and the address without it.
    pub fn split(text: &str) -> (Option<Self>, &str) {
        match text.split_once(':').and_then(|(name, rest)| Some((Self::named(name)?, rest))) {
            Some((protocol, rest)) => (Some(protocol), rest),
            None => (None, text),
        }
    }

    /// Whether its requests come from a gateway, by variables.
    pub fn is_gateway(self) -> bool {
        match self {
            Self::Http => false,
            Self::FastCgi | Self::Scgi | Self::Uwsgi | Self::Ajp => true,
        }
    }
}
