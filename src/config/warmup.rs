//! `--warmup`: the request that a worker answers to itself before it serves.

use serde::{Deserialize, Serialize};

/// A request without a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmup {
    /// Method token.
    pub method: String,
    /// Target in origin form: begins with a slash.
    pub target: String,
}

impl Warmup {
    /// Reads `GET /healthz`; the error is the clause that follows the value in a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "must be a method and a path, such as 'GET /healthz'";
        let (method, target) = text.split_once(' ').ok_or(form)?;
        let proper_method = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
        let proper_target = target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if proper_method && proper_target { Ok(Self { method: method.into(), target: target.into() }) } else { Err(form.into()) }
    }
}

impl std::fmt::Display for Warmup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_and_a_path_make_a_warm_up() {
        let warmup = Warmup::parse("GET /healthz?deep=1").unwrap();
        assert_eq!((warmup.method.as_str(), warmup.target.as_str()), ("GET", "/healthz?deep=1"));
        assert_eq!(warmup.to_string(), "GET /healthz?deep=1");
        for text in ["", "/healthz", "GET", "GET healthz", "get /", "GET  /", "GET /a b", "GET /\r\nX: y", "GET /é", "GET /#x"] {
            assert!(Warmup::parse(text).is_err(), "{text:?}");
        }
    }
}
