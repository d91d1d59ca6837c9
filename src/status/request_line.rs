//! The request line of the flight recorder for people: what everybody may see of it, and what only operators may.

/// How much is shown of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Method and path: queries have tokens in them, and clients are persons.
    Public,
    /// All that the flight recorder has.
    Full,
}

/// A request line in its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineParts {
    /// Method.
    pub method: String,
    /// Path; of an absolute target without its authority, which may have a password.
    pub path: String,
    /// Query, without its question mark.
    pub query: Option<String>,
}

impl LineParts {
    /// The parts of a request line, which may be cut at its end.
    pub fn of(line: &str) -> Self {
        let (method, rest) = line.split_once(' ').unwrap_or((line, ""));
        let target = rest.split(' ').next().unwrap_or_default();
        let path = match target.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                rest.find(['/', '?']).map_or("", |at| &rest[at..])
            }
            _ => target,
        };
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_owned())));
        Self { method: method.to_owned(), path: path.to_owned(), query }
    }

    /// Method and path, with the query where details are shown.
    pub fn describe(&self, detail: Detail) -> String {
        match (&self.query, detail) {
            (Some(query), Detail::Full) => format!("{} {}?{query}", self.method, self.path),
            (_, Detail::Full | Detail::Public) => format!("{} {}", self.method, self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public_has_no_query_and_no_authority() {
        for (line, public, full) in [
            ("GET /a?token=1 HTTP/1.1", "GET /a", "GET /a?token=1"),
            ("POST / HTTP/1.1", "POST /", "POST /"),
            ("GET http://user:pw@host/a?b HTTP/1.1", "GET /a", "GET /a?b"),
            ("GET http://user:pw@host?b HTTP/1.1", "GET ", "GET ?b"),
            ("OPTIONS * HTTP/1.1", "OPTIONS *", "OPTIONS *"),
            ("GET /cut/at/the/en", "GET /cut/at/the/en", "GET /cut/at/the/en"),
            ("GET /a?x=http://y/z HTTP/1.0", "GET /a", "GET /a?x=http://y/z"),
            ("", " ", " "),
        ] {
            let parts = LineParts::of(line);
            assert_eq!((parts.describe(Detail::Public), parts.describe(Detail::Full)), (public.into(), full.into()), "{line}");
        }
    }
}
