//! The walk from the right, beside a second implementation that reads from the left.

use super::*;
use proptest::prelude::*;

const ALL: Family = Family::XForwarded { address: true, scheme: true, host: true, port: true, prefix: true };

/// 10.0.0.0/8, 127.0.0.1 and fd00::/8 are proxies.
fn is_proxy(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.octets()[0] == 10 || addr.is_loopback(),
        IpAddr::V6(addr) => addr.octets()[0] == 0xfd,
    }
}

fn told<'a>(family: Family, fields: &'a [(&'a str, &'a str)]) -> Told<'a> {
    read(family, fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), &is_proxy)
}

/// The client in words: `-` for none, the address, and the port behind a `#`.
fn words(client: Option<Node>) -> String {
    match client {
        None => "-".into(),
        Some(Node { addr, port: None }) => addr.to_string(),
        Some(Node { addr, port: Some(port) }) => format!("{addr}#{port}"),
    }
}

#[test]
fn the_walk_stops_at_the_first_that_is_no_proxy_or_no_address() {
    for (value, client) in [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.1.1.1", "192.0.2.7"),
        ("6.6.6.6,192.0.2.7,10.1.1.1,127.0.0.1", "192.0.2.7"),
        ("10.1.1.1, 10.1.1.2", "10.1.1.1"),
        ("unknown, 10.1.1.2", "10.1.1.2"),
        ("unknown", "-"),
        ("192.0.2.7, unknown", "-"),
        ("", "-"),
        (",, ,", "-"),
        (",192.0.2.7,,", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7#4711"),
        ("192.0.2.7:0", "192.0.2.7"),
        ("192.0.2.7:65536", "-"),
        ("192.0.2.7:", "-"),
        ("192.0.2.7:x", "-"),
        ("192.0.2.7:+1", "-"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1#443"),
        ("[2001:db8::1", "-"),
        ("[192.0.2.7]", "-"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, ::ffff:10.0.0.1", "192.0.2.7"),
        ("192.0.2.7, fd00::1", "192.0.2.7"),
        ("fe80::1%eth0", "-"),
        ("192.0.2.07", "-"),
        ("192.0.2", "-"),
        ("3221225991", "-"),
        ("0x7f.1", "-"),
        ("192.0.2.7 10.0.0.1", "-"),
        ("example.org", "-"),
        ("1.2.3.4\" <script>", "-"),
        ("\"192.0.2.7\"", "-"),
        ("192.0.2.7;10.0.0.1", "-"),
    ] {
        assert_eq!(words(told(ALL, &[("X-Forwarded-For", value)]).client), client, "{value}");
    }
}

#[test]
fn lines_are_one_list_and_names_have_no_case() {
    let client = |fields: &[(&str, &str)]| words(told(ALL, fields).client);
    assert_eq!(client(&[("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", "192.0.2.7")]), "192.0.2.7");
    assert_eq!(client(&[("X-FORWARDED-FOR", "6.6.6.6, 192.0.2.7"), ("x-forwarded-for", "10.0.0.1")]), "192.0.2.7");
    assert_eq!(client(&[("X-Forwarded-For", "192.0.2.7"), ("x-forwarded-for", "")]), "192.0.2.7");
    assert_eq!(client(&[("X-Forwarded-For", "192.0.2.7"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")]), "192.0.2.7");
    assert_eq!(client(&[("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")]), "-");
}

#[test]
fn the_last_value_of_other_lists_counts() {
    let fields = [
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Proto", "http, HTTPS "),
        ("X-Forwarded-Host", "evil.test, shop.test:8443"),
        ("X-Forwarded-Port", "1, 443"),
        ("X-Forwarded-Prefix", "/evil, /shop/"),
    ];
    let told = told(ALL, &fields);
    assert_eq!((told.scheme, told.port), (Some(Scheme::Https), Some(443)));
    assert_eq!((told.host.as_deref(), told.prefix.as_deref()), (Some(&b"shop.test:8443"[..]), Some(&b"/shop"[..])));
}

#[test]
fn what_is_no_value_is_not_told() {
    let one = |name, value| {
        let fields = [(name, value)];
        let told = told(ALL, &fields);
        (told.scheme, told.host.map(Cow::into_owned), told.port, told.prefix)
    };
    for scheme in ["javascript", "on", "", "https://", "https;"] {
        assert_eq!(one("x-forwarded-proto", scheme).0, None, "{scheme}");
    }
    assert_eq!(one("x-forwarded-proto", "wss").0, Some(Scheme::Https));
    assert_eq!(one("x-forwarded-proto", "Ws").0, Some(Scheme::Http));
    for host in ["", "a b", "a/b", "user@a", "a:b", "a:99999", "[::1", "a\"", "http://a", ":80"] {
        assert_eq!(one("x-forwarded-host", host).1, None, "{host}");
    }
    for port in ["0", "65536", "-1", "+80", "80 80", "http", "0x50"] {
        assert_eq!(one("x-forwarded-port", port).2, None, "{port}");
    }
    for prefix in [
        "shop",
        "//evil.test",
        "/a//b",
        "/../b",
        "/a/./b",
        "/a?b",
        "/a#b",
        "/a b",
        "/%2e%2e/b",
        "/a%00",
        "/\\evil",
        "/%5cevil",
        "/%2fevil",
    ] {
        assert_eq!(one("x-forwarded-prefix", prefix).3, None, "{prefix}");
    }
    assert_eq!(one("x-forwarded-prefix", "/").3.as_deref(), Some(&b""[..]));
    assert_eq!(one("x-forwarded-prefix", "/caf%C3%A9/a%20b").3.as_deref(), Some("/café/a b".as_bytes()));
}

#[test]
fn only_what_is_asked_for_is_told() {
    let none = Family::XForwarded { address: false, scheme: false, host: false, port: false, prefix: false };
    let fields = [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/a"),
        ("x-real-ip", "192.0.2.8"),
        ("x-scheme", "https"),
        ("forwarded", "for=192.0.2.9;proto=https;host=b"),
    ];
    assert_eq!(told(none, &fields), Told::default());
    let real = told(Family::XReal { address: true, scheme: false }, &fields);
    assert_eq!((words(real.client), real.scheme, real.host), ("192.0.2.8".into(), None, None));
    let standard = told(Family::Standard, &fields);
    assert_eq!((words(standard.client), standard.port), ("192.0.2.9".into(), None));
    assert_eq!((standard.scheme, standard.host.as_deref()), (Some(Scheme::Https), Some(&b"b"[..])));
}

#[test]
fn real_ip_is_one_address_in_one_field() {
    let real = Family::XReal { address: true, scheme: true };
    for (fields, client) in [
        (&[("X-Real-IP", "192.0.2.7")][..], "192.0.2.7"),
        (&[("X-Real-IP", "::ffff:192.0.2.7")], "192.0.2.7"),
        (&[("X-Real-IP", "192.0.2.7, 192.0.2.8")], "-"),
        (&[("X-Real-IP", "192.0.2.7"), ("x-real-ip", "192.0.2.8")], "-"),
        (&[("X-Real-IP", "unknown")], "-"),
    ] {
        assert_eq!(words(told(real, fields).client), client, "{fields:?}");
    }
}

/// Client, scheme and host that these lines tell.
fn standard(lines: &[&str]) -> (String, Option<Scheme>, Option<String>) {
    let fields: Vec<_> = lines.iter().map(|line| ("Forwarded", *line)).collect();
    let told = told(Family::Standard, &fields);
    (words(told.client), told.scheme, told.host.map(|host| String::from_utf8(host.into_owned()).expect("it is a host")))
}

#[test]
fn the_grammar_of_rfc_7239_is_read_from_the_right() {
    for (line, client) in [
        ("for=192.0.2.7", "192.0.2.7"),
        ("For=192.0.2.7;proto=https;by=10.0.0.1", "192.0.2.7"),
        ("for=\"192.0.2.7:4711\"", "192.0.2.7#4711"),
        ("for=\"192.0.2.7:_hidden\"", "192.0.2.7"),
        ("for=\"[2001:db8::1]\"", "2001:db8::1"),
        ("for=\"[2001:db8::1]:80\"", "2001:db8::1#80"),
        ("for=\"\\[2001:db8::1\\]\"", "2001:db8::1"),
        ("for=\"2001:db8::1\"", "-"),
        ("for=[2001:db8::1]", "-"),
        ("for=192.0.2.7:80", "-"),
        ("for=6.6.6.6, for=192.0.2.7", "192.0.2.7"),
        ("for=192.0.2.7, for=10.0.0.1", "192.0.2.7"),
        ("for=192.0.2.7,for=10.0.0.1,", "192.0.2.7"),
        ("for=192.0.2.7 , , for=10.0.0.1", "192.0.2.7"),
        ("for=unknown", "-"),
        ("for=unknown, for=10.0.0.1", "10.0.0.1"),
        ("for=_hidden, for=10.0.0.1", "10.0.0.1"),
        ("for=192.0.2.7, for=unknown, for=10.0.0.1", "10.0.0.1"),
        ("by=10.0.0.1", "-"),
        ("for=192.0.2.7, by=10.0.0.1", "-"),
        ("x=\"a, for=6.6.6.6\";for=192.0.2.7", "192.0.2.7"),
        ("for=192.0.2.7;x=\"a, for=6.6.6.6\"", "192.0.2.7"),
        ("for=192.0.2.7;x=\"\\\", for=6.6.6.6;y=\\\"\"", "192.0.2.7"),
        ("for=192.0.2.7;x=\"\\\\\"", "192.0.2.7"),
        ("for=192.0.2.7;x=\"\\\"", "-"),
        ("for=192.0.2.7 ; proto=http", "192.0.2.7"),
        (";for=192.0.2.7;", "192.0.2.7"),
        ("for=192.0.2.7;for=192.0.2.7", "-"),
        ("for = 192.0.2.7", "-"),
        ("for", "-"),
        ("=192.0.2.7", "-"),
        ("for=", "-"),
        ("for=\"\"", "-"),
        ("192.0.2.7", "-"),
        ("", "-"),
        // Whatever a client has sent stands before what the proxy has added.
        ("for=\"6.6.6.6, for=192.0.2.7", "192.0.2.7"),
        ("x=\", for=\"[2001:db8::1]\"", "2001:db8::1"),
        ("\\, for=192.0.2.7", "192.0.2.7"),
        ("nonsense, for=10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(standard(&[line]).0, client, "{line}");
    }
}

#[test]
fn scheme_and_host_are_those_of_the_element_that_was_reached() {
    let https = Some(Scheme::Https);
    assert_eq!(
        standard(&["for=6.6.6.6;proto=http, for=192.0.2.7;proto=https;host=shop.test"]),
        ("192.0.2.7".into(), https, Some("shop.test".into()))
    );
    assert_eq!(standard(&["for=192.0.2.7;proto=https", "for=10.0.0.1;proto=http"]), ("192.0.2.7".into(), https, None));
    assert_eq!(standard(&["for=unknown;proto=https"]), ("-".into(), https, None));
    assert_eq!(standard(&["proto=https;host=\"shop.test:8443\""]), ("-".into(), https, Some("shop.test:8443".into())));
    assert_eq!(standard(&["for=192.0.2.7;proto=ftp;host=\"a b\""]), ("192.0.2.7".into(), None, None));
    assert_eq!(standard(&["for=\"", "for=10.0.0.1;proto=https"]), ("10.0.0.1".into(), https, None));
}

#[test]
fn hosts_and_ports_are_told_apart() {
    for (authority, host, port) in [
        ("a", "a", None),
        ("a:80", "a", Some(80)),
        ("a:", "a", None),
        ("[::1]", "[::1]", None),
        ("[::1]:8080", "[::1]", Some(8080)),
        ("a:0", "a", None),
    ] {
        assert_eq!((host_of(authority.as_bytes()), port_of(authority.as_bytes())), (host.as_bytes(), port), "{authority}");
    }
}

/// The same by another way: from the left, with the whole list in memory, and addresses by the types that have ports.
fn second_walk(entries: &[String], read: impl Fn(&str) -> Option<Node>) -> Option<Node> {
    let mut found = None;
    for entry in entries.iter().rev() {
        match read(entry) {
            None => return found,
            Some(node) if is_proxy(node.addr) => found = Some(node),
            node => return node,
        }
    }
    found
}

fn second_node(text: &str, is_strict: bool) -> Option<Node> {
    use std::net::SocketAddr;
    let node = |addr: IpAddr, port| Node { addr: addr.to_canonical(), port: Some(port).filter(|port| *port != 0) };
    if let Ok(addr) = text.parse::<IpAddr>()
        && (addr.is_ipv4() || !is_strict)
    {
        return Some(node(addr, 0));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|addr| node(addr.into(), 0));
    }
    let (addr, port) = text.rsplit_once(':')?;
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The standard library refuses what has more than one reading, such as scopes.
    (!addr.contains('%'))
        .then(|| format!("{addr}:{port}").parse::<SocketAddr>().ok())
        .flatten()
        .map(|addr| node(addr.ip(), addr.port()))
}

/// The values of `for` in each element, or `None` where the line breaks the grammar.
fn second_elements(line: &str) -> Option<Vec<Option<String>>> {
    let mut elements = Vec::new();
    let mut rest = line.chars().peekable();
    let mut current: Option<Vec<(String, String)>> = None;
    let token = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
    let mut end = |current: &mut Option<Vec<(String, String)>>| -> Option<()> {
        let Some(pairs) = current.take() else { return Some(()) };
        let mut names: Vec<_> =
            pairs.iter().map(|(name, _)| name).filter(|name| ["for", "by", "proto", "host"].contains(&name.as_str())).collect();
        names.sort();
        if names.windows(2).any(|two| two[0] == two[1]) {
            return None;
        }
        elements.push(pairs.into_iter().find(|(name, _)| name == "for").map(|(_, value)| value));
        Some(())
    };
    loop {
        while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        match rest.peek() {
            None => {
                end(&mut current)?;
                return Some(elements);
            }
            Some(',') => {
                end(&mut current)?;
                rest.next();
                continue;
            }
            Some(';') => {
                current.get_or_insert_default();
                rest.next();
                continue;
            }
            Some(_) => {}
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(token) {
            name.push(c.to_ascii_lowercase());
        }
        if name.is_empty() || rest.next() != Some('=') {
            return None;
        }
        let mut value = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => value.push(rest.next()?),
                    c => value.push(c),
                }
            }
        } else {
            while let Some(c) = rest.next_if(token) {
                value.push(c);
            }
            if value.is_empty() {
                return None;
            }
        }
        current.get_or_insert_default().push((name, value));
        while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        if !matches!(rest.peek(), None | Some(';' | ',')) {
            return None;
        }
    }
}

fn entry() -> impl Strategy<Value = String> {
    prop_oneof![
        "(10|127|192|6|256|0)\\.[0-3]\\.0\\.[0-9]{1,2}(:[0-9]{0,6})?",
        "\\[?(fd00|2001:db8|::ffff)?::?[0-9a-f]{0,4}\\]?(:[0-9]{1,5})?",
        "::ffff:10\\.0\\.0\\.[1-9]",
        "(unknown|_hid|example\\.org|)",
        "[ -~]{0,8}",
    ]
}

proptest! {
    #[test]
    fn both_walks_find_the_same_client(lines in prop::collection::vec(prop::collection::vec(entry(), 0..4), 0..4)) {
        let values: Vec<String> = lines.iter().map(|entries| entries.join(", ")).collect();
        let fields: Vec<_> = values.iter().map(|value| ("X-Forwarded-For", value.as_str())).collect();
        let joined = values.join(",");
        let entries: Vec<String> = joined.split(',').map(|entry| entry.trim_matches([' ', '\t']).to_owned()).filter(|entry| !entry.is_empty()).collect();
        prop_assert_eq!(told(ALL, &fields).client, second_walk(&entries, |entry| second_node(entry, false)));
    }

    #[test]
    fn a_sound_line_of_forwarded_is_read_the_same_from_both_ends(
        line in "((for|by|x|proto|For)=(10\\.0\\.0\\.[1-9]|6\\.6\\.6\\.6|\"(\\[fd00::[1-9]\\]|[,;= a\\\\\"]{0,4}|192\\.0\\.2\\.[1-9]:[0-9]{1,3})\")[;, ]{0,3}){0,5}"
    ) {
        if let Some(elements) = second_elements(&line) {
            let node = |text: &Option<String>| text.as_deref().and_then(|text| second_node(text, true));
            let mut found = None;
            for element in elements.iter().rev() {
                let Some(node) = node(element) else { break };
                found = Some(node);
                if !is_proxy(node.addr) {
                    break;
                }
            }
            prop_assert_eq!(told(Family::Standard, &[("Forwarded", &line)]).client, found, "{}", line);
        }
    }

    #[test]
    fn nothing_that_a_client_sends_hides_what_the_proxy_adds(sent in "[ -~]{0,40}", more in "[\"\\\\,;= a-z]{0,20}") {
        let line = format!("{sent}{more}, for=\"[2001:db8::7]:80\";proto=https");
        prop_assert_eq!(standard(&[&line]).0, "2001:db8::7#80");
        let line = format!("{sent}{more},192.0.2.7");
        prop_assert_eq!(words(told(ALL, &[("X-Forwarded-For", &line)]).client), "192.0.2.7");
    }
}
