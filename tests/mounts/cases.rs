//! Paths, and which of the mounts has them. Expectations follow PEP 3333 ("environ Variables") and RFC 3875 section 4.1.5: SCRIPT_NAME
//! ends with no slash, PATH_INFO is empty or begins with one, and both together are the decoded path.

/// A request and its application.
pub struct Case {
    /// Value of Host.
    pub host: &'static str,
    /// Target as sent.
    pub target: &'static str,
    /// The mount, or `main`.
    pub app: &'static str,
    /// SCRIPT_NAME.
    pub script: &'static str,
    /// PATH_INFO.
    pub path: &'static str,
}

const fn any(target: &'static str, app: &'static str, script: &'static str, path: &'static str) -> Case {
    Case { host: "t", target, app, script, path }
}

const fn at(host: &'static str, target: &'static str, app: &'static str, script: &'static str, path: &'static str) -> Case {
    Case { host, target, app, script, path }
}

/// Of a host that no mount names.
#[rustfmt::skip]
pub const CASES: &[Case] = &[
    // The bare prefix, with and without a slash.
    any("/a", "/a", "/a", ""),
    any("/a/", "/a", "/a", "/"),
    any("/a?q=/a/b", "/a", "/a", ""),
    any("/a/x", "/a", "/a", "/x"),
    any("/a/x?q", "/a", "/a", "/x"),
    // The longest prefix counts, by whole segments.
    any("/a/b", "/a/b", "/a/b", ""),
    any("/a/b/c", "/a/b", "/a/b", "/c"),
    any("/a/bc", "/a", "/a", "/bc"),
    any("/ab", "/ab", "/ab", ""),
    any("/abc", "main", "", "/abc"),
    any("/a.", "main", "", "/a."),
    any("/", "main", "", "/"),
    any("/x/a", "main", "", "/x/a"),
    // Bytes are compared: case counts.
    any("/A", "main", "", "/A"),
    any("/a/B", "/a", "/a", "/B"),
    // After one decoding.
    any("/%61", "/a", "/a", ""),
    any("/%61/%62/%63", "/a/b", "/a/b", "/c"),
    any("/a%2Fb", "/a/b", "/a/b", ""),
    any("/a%2fx", "/a", "/a", "/x"),
    any("/a%252Fb", "main", "", "/a%2Fb"),
    any("/a/b%3Fq", "/a", "/a", "/b?q"),
    any("/sp%20ace/x", "/sp ace", "/sp ace", "/x"),
    any("/sp+ace", "main", "", "/sp+ace"),
    // Bytes of UTF-8 stand for themselves (PEP 3333, "Unicode Issues").
    any("/gr%C3%BCn/x", "/gr\u{fc}n", "/gr\u{c3}\u{bc}n", "/x"),
    any("/gr%FCn", "main", "", "/gr\u{fc}n"),
    // A malformed encoding stays.
    any("/a%", "main", "", "/a%"),
    any("/a/%zz", "/a", "/a", "/%zz"),
    // Nothing is normalised.
    any("/a//x", "/a", "/a", "//x"),
    any("//a", "main", "", "//a"),
    any("/a//b", "/a", "/a", "//b"),
    any("/./a", "main", "", "/./a"),
    any("/a/./b", "/a", "/a", "/./b"),
    any("/a/../x", "/a", "/a", "/../x"),
    any("/x/../a", "main", "", "/x/../a"),
    any("/a/b/..", "/a/b", "/a/b", "/.."),
    any("/a;v=1", "main", "", "/a;v=1"),
    any("/a\\b", "main", "", "/a\\b"),
    any("/a%00", "main", "", "/a\0"),
    any("/a/%00", "/a", "/a", "/\0"),
    // Absolute forms: the path is what follows the authority.
    any("http://t/a/x", "/a", "/a", "/x"),
    any("HTTPS://t/a", "/a", "/a", ""),
    any("http://t", "main", "", "/"),
    any("http://t?a", "main", "", "/"),
    any("http://t/", "main", "", "/"),
];

/// Of hosts.
#[rustfmt::skip]
pub const HOSTS: &[Case] = &[
    at("h.test", "/", "h.test:/", "", "/"),
    at("h.test", "/x", "h.test:/", "", "/x"),
    // A mount of the host comes before those of all hosts, however long these are.
    at("h.test", "/a/b/c", "h.test:/a", "/a", "/b/c"),
    at("h.test", "/ab", "h.test:/", "", "/ab"),
    at("h.test", "/only/x", "h.test:/only", "/only", "/x"),
    at("other.test", "/only/x", "main", "", "/only/x"),
    // The port, the case and a final point make no difference.
    at("h.test:8000", "/a", "h.test:/a", "/a", ""),
    at("H.Test", "/a", "h.test:/a", "/a", ""),
    at("h.test.", "/a", "h.test:/a", "/a", ""),
    at("h.test.:80", "/a", "h.test:/a", "/a", ""),
    at("h.test:", "/a", "h.test:/a", "/a", ""),
    at("xh.test", "/a", "/a", "/a", ""),
    at("h.testx", "/a", "/a", "/a", ""),
    at("h", "/a", "/a", "/a", ""),
    // Addresses.
    at("[::1]", "/six/x", "[::1]:/six", "/six", "/x"),
    at("[0:0:0:0:0:0:0:1]:8000", "/six", "[::1]:/six", "/six", ""),
    at("[::2]", "/six", "main", "", "/six"),
    at("[::1]", "/a", "/a", "/a", ""),
    at("10.0.0.1:80", "/four", "10.0.0.1:/four", "/four", ""),
    // The authority of an absolute form counts, not the field (RFC 9112 section 3.2.2).
    at("t", "http://h.test/x", "h.test:/", "", "/x"),
    at("t", "http://H.test:81/a/x", "h.test:/a", "/a", "/x"),
    at("h.test", "http://t/x", "main", "", "/x"),
    at("h.test", "http://[::1]/six/", "[::1]:/six", "/six", "/"),
    at("t", "http://h.test", "h.test:/", "", "/"),
    at("t", "http://h.test?q", "h.test:/", "", "/"),
];
