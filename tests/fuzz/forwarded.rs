//! Any bytes as the fields of proxies: no panic, no text that is not what it claims to be, and nothing that stands before what a proxy
//! has added changes how that is read.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use tapster::http::forwarded::{Family, Told, host_of, port_of, read};
use tapster::http::target::is_authority;

const ALL: Family = Family::XForwarded { address: true, scheme: true, host: true, port: true, prefix: true };

const NAMES: [&str; 8] = [
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-scheme",
];

fn is_proxy(addr: IpAddr) -> bool {
    addr.is_loopback() || matches!(addr, IpAddr::V4(addr) if addr.octets()[0] == 10)
}

fn told<'a>(family: Family, fields: &[(&'a str, &'a [u8])]) -> Told<'a> {
    let fields: Vec<(&'a [u8], &'a [u8])> = fields.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
    read(family, fields.iter().copied(), &is_proxy)
}

fn check(told: &Told<'_>) {
    if let Some(host) = &told.host {
        assert!(is_authority(host));
        assert!(host.starts_with(host_of(host)) && port_of(host) != Some(0));
    }
    if let Some(prefix) = &told.prefix
        && !prefix.is_empty()
    {
        assert!(prefix.starts_with(b"/") && !prefix.starts_with(b"//") && !prefix.ends_with(b"/"));
        assert!(!prefix.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\'));
    }
    assert!(told.port != Some(0) && told.client.is_none_or(|client| client.port != Some(0)));
}

fuzz_target!(|bytes: &[u8]| {
    // The parser lets no controls pass.
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte >= b' ' && *byte != 0x7f || *byte == b'\t').collect();
    let values: Vec<&[u8]> = text.split(|byte| *byte == b'\t').collect();
    let fields: Vec<(&str, &[u8])> = values.iter().enumerate().map(|(at, value)| (NAMES[at % NAMES.len()], *value)).collect();
    for family in [ALL, Family::Standard, Family::XReal { address: true, scheme: true }] {
        check(&told(family, &fields));
    }
    for (family, name, added, client) in [
        (ALL, "x-forwarded-for", &b", 192.0.2.7"[..], "192.0.2.7"),
        (Family::Standard, "forwarded", b", for=192.0.2.7;proto=http", "192.0.2.7"),
        (Family::Standard, "forwarded", b",for=\"[2001:db8::7]:80\"", "2001:db8::7"),
    ] {
        let line = [&text, added].concat();
        let found = told(family, &[(name, &line)]).client.expect("the proxy names it");
        assert_eq!(found.addr.to_string(), client, "{}", line.escape_ascii());
        let found = told(family, &[(name, &text), (name, &added[1..])]).client.expect("the proxy names it");
        assert_eq!(found.addr.to_string(), client, "in a line of its own");
    }
});
