//! Where metrics are sent to, and what they are called: `--statsd-host`, `--statsd-prefix`, `--dogstatsd-tags`, as gunicorn has them.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::bind::Endpoint;

/// The port of statsd where none is given, as in gunicorn.
const DEFAULT_PORT: u16 = 8125;

/// Longest prefix and longest list of tags, in bytes: each line of each datagram has both.
const NAME_MAX: usize = 200;

/// `--statsd-host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatsdTarget {
    /// UDP; the host may be a name, an IPv4 or an IPv6 address (without brackets).
    Udp {
        /// Host.
        host: String,
        /// Port, not 0.
        port: u16,
    },
    /// A unix datagram socket.
    Unix(#[serde(with = "super::paths")] PathBuf),
}

impl StatsdTarget {
    /// Reads `HOST`, `HOST:PORT` or `unix://PATH`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be HOST:PORT or unix://PATH".to_owned();
        if let Some(path) =
            text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:").filter(|path| path.starts_with('/')))
        {
            let Endpoint::Unix(path) = Endpoint::parse(&format!("unix:{path}"))? else { return Err(wrong()) };
            return Ok(Self::Unix(path));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self::Udp { host: text.to_owned(), port: DEFAULT_PORT });
        }
        let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let address = if has_port { text.to_owned() } else { format!("{text}:{DEFAULT_PORT}") };
        match Endpoint::parse(&address)? {
            Endpoint::Tcp { host, port } if !host.is_empty() && port > 0 => Ok(Self::Udp { host, port }),
            Endpoint::Tcp { .. } | Endpoint::Unix(_) | Endpoint::Fd(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for StatsdTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Udp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Reads the prefix of all names; it gets a point at its end, as in gunicorn.
pub fn prefix(text: &str) -> Result<String, String> {
    plain(text, ":|@#,")?;
    let name = text.trim_end_matches('.');
    Ok(if name.is_empty() { String::new() } else { format!("{name}.") })
}

/// Reads tags of DogStatsD, `name:value,name:value`.
pub fn tags(text: &str) -> Result<String, String> {
    plain(text, "|#").map(|()| text.to_owned())
}

/// Whether a text may stand in a line of statsd, in which `special` have a meaning.
fn plain(text: &str, special: &str) -> Result<(), String> {
    if text.len() > NAME_MAX {
        return Err(format!("must have at most {NAME_MAX} bytes"));
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || special.contains(*c)) {
        Some(found) => Err(format!("must not have {found:?}, which has a meaning there")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_as_gunicorn_reads_it() {
        let udp = |host: &str, port| Ok(StatsdTarget::Udp { host: host.to_owned(), port });
        assert_eq!(StatsdTarget::parse("localhost:9125"), udp("localhost", 9125));
        assert_eq!(StatsdTarget::parse("stats"), udp("stats", 8125));
        assert_eq!(StatsdTarget::parse("[::1]:1"), udp("::1", 1));
        assert_eq!((StatsdTarget::parse("[::1]"), StatsdTarget::parse("::1")), (udp("::1", 8125), udp("::1", 8125)));
        assert_eq!(StatsdTarget::parse("unix:///run/dd.sock"), Ok(StatsdTarget::Unix("/run/dd.sock".into())));
        for wrong in ["", "unix:8125", ":8125", "host:0", "host:x", "unix://", "a b:1", "http://host:1"] {
            assert!(StatsdTarget::parse(wrong).is_err(), "{wrong}");
        }
        for shown in ["host:1", "[::1]:8125", "unix:///run/dd.sock"] {
            assert_eq!(StatsdTarget::parse(shown).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn names_cannot_break_a_line() {
        assert_eq!((prefix("shop"), prefix("shop.."), prefix("")), (Ok("shop.".into()), Ok("shop.".into()), Ok(String::new())));
        assert_eq!(tags("env:live,team:shop"), Ok("env:live,team:shop".into()));
        for wrong in ["a b", "a\nb", "a|b", "a#b", "ä"] {
            assert!(prefix(wrong).is_err() && tags(wrong).is_err(), "{wrong:?}");
        }
        assert!(prefix("a:b").is_err() && prefix(&"x".repeat(201)).is_err());
    }
}
