//! Applications below paths of the server: `--mount`.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::app_spec::AppSpec;
use super::value;

/// What a mount looks like, for messages.
const FORM: &str = "must be a path, = and an application, such as /admin=admin.wsgi or admin.example.org:/=admin.wsgi";

/// An application and the paths that it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// The host that has to be asked for, as [`canonical_host`] writes it; `None`: any.
    pub host: Option<String>,
    /// Empty for `/`, else with a slash at its begin and none at its end; decoded.
    pub prefix: String,
    /// What is served there: always a target.
    pub app: AppSpec,
}

impl Mount {
    /// Reads `[HOST:]/PREFIX=APP`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (place, app) = text.split_once('=').ok_or(FORM)?;
        let (host, prefix) = match place.starts_with('/') {
            true => (None, place),
            false => {
                let (host, _) = place.split_once('/').ok_or(FORM)?;
                (Some(host), &place[host.len()..])
            }
        };
        let host = match host {
            Some(host) => Some(parse_host(host, prefix)?),
            None => None,
        };
        let prefix = value::decoded_path(prefix)?;
        let app = AppSpec::parse(app).map_err(|why| format!("has an application that cannot be one: {why}"))?;
        Ok(Self { host, prefix, app })
    }

    /// Host and path as they are written, for messages.
    pub fn shown(&self) -> String {
        let path = if self.prefix.is_empty() { "/" } else { &self.prefix };
        self.host.as_deref().map_or_else(|| path.into(), |host| format!("{host}:{path}"))
    }

    /// What stands in front of a message about its application.
    pub fn in_messages(&self) -> String {
        format!("--mount {}: ", self.shown())
    }

    /// Whether it has every path of every host.
    pub fn is_everything(&self) -> bool {
        self.host.is_none() && self.prefix.is_empty()
    }
}

/// Reads the host in front of a path, with the colon between them.
fn parse_host(text: &str, path: &str) -> Result<String, String> {
    let host = text.strip_suffix(':').ok_or_else(|| format!("has no colon between host and path; write {text}:{path}"))?;
    let bytes = host.as_bytes();
    let bare = without_port(bytes);
    if !bare.is_empty() && bytes[bare.len()..].starts_with(b":") {
        let bare = String::from_utf8_lossy(bare);
        return Err(format!("has a port in its host, which no request is told apart by; write {bare}:{path}"));
    }
    let is_name = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let sound = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => host.strip_suffix('.').unwrap_or(host).split('.').all(is_name),
    };
    if !sound {
        return Err("has a host that is neither a name, such as example.org, nor an address, such as 10.0.0.1 or [::1]".into());
    }
    let mut canonical = Vec::new();
    canonical_host(bytes, &mut canonical);
    Ok(String::from_utf8_lossy(&canonical).into_owned())
}

/// A host without the port behind it (RFC 3986 section 3.2).
fn without_port(host: &[u8]) -> &[u8] {
    match (host.first(), host.iter().rposition(|&b| b == b']')) {
        (Some(b'['), Some(end)) => &host[..=end],
        _ => host.iter().position(|&b| b == b':').map_or(host, |colon| &host[..colon]),
    }
}

/// Writes the host of a Host field or an authority (RFC 9110 section 7.2) so that two which mean the same are equal: without port, in
/// lower case, without the point that ends an absolute name, an IPv6 address in its shortest form.
pub fn canonical_host(host: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let host = without_port(host);
    if let [b'[', address @ .., b']'] = host
        && let Some(address) = std::str::from_utf8(address).ok().and_then(|text| text.parse::<Ipv6Addr>().ok())
    {
        out.extend_from_slice(format!("[{address}]").as_bytes());
        return;
    }
    out.extend(host.strip_suffix(b".").unwrap_or(host).iter().map(u8::to_ascii_lowercase));
}

/// Adds a mount.
pub(super) fn add(mounts: &mut Vec<Mount>, mount: Mount) -> Result<(), String> {
    if mounts.iter().any(|other| (&other.host, &other.prefix) == (&mount.host, &mount.prefix)) {
        return Err(format!("mounts {} for the second time; leave one out", mount.shown()));
    }
    mounts.push(mount);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_a_path_and_an_application_maybe_of_one_host() {
        for (text, host, prefix, app) in [
            ("/admin=admin.wsgi", None, "/admin", "admin.wsgi"),
            ("/a/b/=m:make(\"x=/y\", k=1)", None, "/a/b", "m:make(\"x=/y\", k=1)"),
            ("/=m", None, "", "m"),
            ("/gr\u{fc}n=apps/a.py:app", None, "/gr\u{fc}n", "apps/a.py:app"),
            ("admin.example.org:/=m", Some("admin.example.org"), "", "m"),
            ("ADMIN.example.org.:/x=m", Some("admin.example.org"), "/x", "m"),
            ("localhost:/x=m", Some("localhost"), "/x", "m"),
            ("10.0.0.1:/x=m", Some("10.0.0.1"), "/x", "m"),
            ("[0:0::1]:/x=m", Some("[::1]"), "/x", "m"),
            ("/a:b=m", None, "/a:b", "m"),
        ] {
            let mount = Mount::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!((mount.host.as_deref(), mount.prefix.as_str()), (host, prefix), "{text}");
            assert_eq!(mount.app, AppSpec::parse(app).unwrap(), "{text}");
        }
    }

    #[test]
    fn what_is_no_mount_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "must be a path"),
            ("/admin", "must be a path"),
            ("admin=m", "must be a path"),
            ("/admin=", "the module is missing"),
            ("/admin=a b", "neither a module name nor a path"),
            ("/a//b=m", "empty part"),
            ("/a/../b=m", "empty part"),
            ("/a%20b=m", "decoded"),
            ("/a?b=m", "is not a path"),
            ("example.org/=m", "no colon between host and path; write example.org:/"),
            ("example.org:8080:/x=m", "port in its host, which no request is told apart by; write example.org:/x"),
            ("[::1]:80:/x=m", "write [::1]:/x"),
            ("::1:/x=m", "neither a name"),
            ("[::x]:/x=m", "neither a name"),
            (":/x=m", "neither a name"),
            ("a..b:/x=m", "neither a name"),
            ("*.example.org:/x=m", "neither a name"),
            ("http://example.org/=m", "empty part"),
        ] {
            let error = Mount::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let mut mounts = vec![Mount::parse("/a=m").unwrap()];
        assert_eq!(add(&mut mounts, Mount::parse("/a/=n").unwrap()).unwrap_err(), "mounts /a for the second time; leave one out");
        assert_eq!(add(&mut mounts, Mount::parse("h:/a=n").unwrap()), Ok(()));
        assert_eq!(
            add(&mut mounts, Mount::parse("H.:/a=n").unwrap()).unwrap_err(),
            "mounts h:/a for the second time; leave one out"
        );
    }

    #[test]
    fn hosts_that_mean_the_same_are_equal() {
        let canonical = |host: &str| {
            let mut out = b"old".to_vec();
            canonical_host(host.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        for (host, expected) in [
            ("Example.ORG", "example.org"),
            ("example.org:8000", "example.org"),
            ("example.org:", "example.org"),
            ("example.org.", "example.org"),
            ("example.org.:80", "example.org"),
            ("[::1]", "[::1]"),
            ("[0:0:0::1]:80", "[::1]"),
            ("[2001:DB8::]:", "[2001:db8::]"),
            ("10.0.0.1:1", "10.0.0.1"),
            ("", ""),
            ("[", "["),
            (":80", ""),
        ] {
            assert_eq!(canonical(host), expected, "{host}");
        }
    }
}
