//! Rules of the request target's forms.

use super::super::cuts::{self, LIMITS};
use super::*;

/// Form, path, query and authority of a target.
#[track_caller]
fn parts(method: &str, target: &str) -> Result<(Form, String, String, String), Error> {
    let input = format!("{method} {target} HTTP/1.1\r\n\r\n");
    let bytes = input.as_bytes();
    let head = cuts::head(bytes, &LIMITS).expect("a valid head").expect("a complete head");
    let target = Target::of(&head, bytes)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ok((target.form, text(target.path(bytes)), text(target.query.of(bytes)), text(target.authority.of(bytes))))
}

#[track_caller]
fn is(method: &str, target: &str, form: Form, path: &str, query: &str, authority: &str) {
    assert_eq!(parts(method, target), Ok((form, path.into(), query.into(), authority.into())), "{target}");
}

#[test]
fn origin_form_is_path_and_query() {
    is("GET", "/", Form::Origin, "/", "", "");
    is("GET", "/a%2Fb?c=d?e", Form::Origin, "/a%2Fb", "c=d?e", "");
    is("GET", "/?", Form::Origin, "/", "", "");
    is("GET", "//a/b", Form::Origin, "//a/b", "", "");
    is("GET", "/http://x/?y", Form::Origin, "/http://x/", "y", "");
    is("OPTIONS", "/a", Form::Origin, "/a", "", "");
}

#[test]
fn absolute_form_names_the_authority() {
    is("GET", "http://example.org:81/a?b", Form::Absolute, "/a", "b", "example.org:81");
    is("GET", "HTTPS://[::1]/", Form::Absolute, "/", "", "[::1]");
    is("GET", "http://h", Form::Absolute, "/", "", "h");
    is("GET", "http://h?q", Form::Absolute, "/", "q", "h");
    for target in ["http:///a", "http://u@h/", "http://h:x/", "http://h:70000/", "http://", "http://[1]/", "http://\u{e9}/"] {
        assert_eq!(parts("GET", target), Err(Error::TargetAuthority), "{target}");
    }
    for target in ["ftp://h/", "http:/h/", "http:h", "mailto:x", "a/b", "?q", "h:443", "://h/", "h"] {
        assert_eq!(parts("GET", target), Err(Error::TargetForm), "{target}");
    }
}

#[test]
fn the_asterisk_form_is_for_options_and_has_an_empty_path() {
    is("OPTIONS", "*", Form::Asterisk, "", "", "");
    for (method, target) in [("GET", "*"), ("OPTIONS", "*?"), ("OPTIONS", "**"), ("options", "*")] {
        assert_eq!(parts(method, target), Err(Error::TargetForm), "{method} {target}");
    }
    is("OPTIONS", "http://h", Form::Absolute, "", "", "h");
    is("OPTIONS", "http://h?", Form::Absolute, "/", "", "h");
    is("OPTIONS", "http://h/", Form::Absolute, "/", "", "h");
    is("options", "http://h", Form::Absolute, "/", "", "h");
}

#[test]
fn connect_is_not_implemented_whatever_its_target() {
    for target in ["h:443", "h", "h:", "http://h:1/", "/", "/a", "*"] {
        assert_eq!(parts("CONNECT", target), Err(Error::Connect), "{target}");
    }
    assert_eq!(Error::Connect.status(), 501);
    is("connect", "/", Form::Origin, "/", "", "");
}

#[test]
fn an_authority_is_a_host_and_maybe_a_port() {
    for good in [&b"a:80"[..], b"[2001:db8::1]:65535", b"[::1]", b"a:", b"a", b"a%20b"] {
        assert!(is_authority(good), "{}", good.escape_ascii());
    }
    for bad in [&b""[..], b":80", b"a:65536", b"a:+1", b"[::1%25eth0]", b"[::1]80", b"[::1", b"[]", b"a%2", b"a%", b"a b", b"a#b"]
    {
        assert!(!is_authority(bad), "{}", bad.escape_ascii());
    }
}

#[test]
fn percent_encodings_are_decoded_once() {
    for (text, expected) in [
        (&b"/plain"[..], &b"/plain"[..]),
        (b"/a%20b%2fc%2F", b"/a b/c/"),
        (b"%C3%a9\xc3\xa9", b"\xc3\xa9\xc3\xa9"),
        (b"%2520", b"%20"),
        (b"%00", b"\0"),
        (b"%", b"%"),
        (b"%%41", b"%A"),
        (b"%4", b"%4"),
        (b"%zz%+1%1", b"%zz%+1%1"),
        (b"100%", b"100%"),
        (b"a+b", b"a+b"),
    ] {
        let mut out = b"kept".to_vec();
        percent_decode(text, &mut out);
        assert_eq!(out[4..].escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
