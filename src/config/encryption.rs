//! What the options for TLS, each checked by itself, say together with the addresses.

use std::path::PathBuf;

use super::bind::{Bind, Endpoint};
use super::error::Error;
use super::origin::{Given, Origin};
use super::settings::Settings;
use super::tls::{ClientCertificates, PairFiles, TlsSettings, TlsVersion};

/// Options that mean nothing without a certificate.
const DETAILS: [&str; 4] = ["keyfile", "ca-certs", "cert-reqs", "tls-min"];

/// Puts into the settings what the options for TLS say; refuses what contradicts itself.
pub(super) fn settle(settings: &mut Settings, effective: &[Given]) -> Result<(), Error> {
    settings.tls = read(effective)?;
    refuse_addresses(settings, effective)
}

/// What was given of an option, if that is anything.
fn given<'a>(effective: &'a [Given], name: &str) -> Option<&'a Given> {
    effective.iter().find(|given| given.option.name == name && !given.values.is_empty())
}

/// `None`: there is no certificate.
fn read(effective: &[Given]) -> Result<Option<TlsSettings>, Error> {
    let given = |name: &str| given(effective, name);
    let last = |name: &str| given(name).and_then(|given| given.values.last()).map_or("", String::as_str);
    // A wrong one was refused by itself.
    let client_certificates = ClientCertificates::parse(last("cert-reqs")).unwrap_or_default();
    let oldest = TlsVersion::parse(last("tls-min")).unwrap_or_default();
    let Some(chains) = given("certfile") else {
        let is_asked = |given: &&Given| given.origin != Origin::Default && given.origin != Origin::GunicornDefault;
        // What is the default asks for nothing.
        let is_moot = |given: &Given| match given.option.name {
            "cert-reqs" => client_certificates == ClientCertificates::default(),
            "tls-min" => oldest == TlsVersion::default(),
            _ => false,
        };
        return match DETAILS.into_iter().filter_map(given).filter(is_asked).find(|given| !is_moot(given)) {
            Some(given) => Err(error(given, &given.values.join(","), "needs a certificate: give --certfile, or leave it out")),
            None => Ok(None),
        };
    };
    let keys = given("keyfile").map_or(&[][..], |given| &given.values);
    if let (Some(extra), Some(given)) = (keys.get(chains.values.len()), given("keyfile")) {
        let why = "has no certificate: there are more of --keyfile than of --certfile, and the first key belongs to the first certificate";
        return Err(error(given, extra, why));
    }
    let client_roots = given("ca-certs").and_then(|given| given.values.last()).map(PathBuf::from);
    if let (None, Some(given)) = (&client_roots, given("cert-reqs"))
        && client_certificates != ClientCertificates::None
    {
        let why = "needs --ca-certs: the file with the certificates that sign those of clients";
        return Err(error(given, &given.values.join(","), why));
    }
    // A certificate without a key of its own has that in the same file.
    let key = |index: usize, chain: &str| keys.get(index).map_or(chain, String::as_str).into();
    let pair = |(index, chain): (usize, &String)| PairFiles { chain: chain.into(), key: key(index, chain) };
    let pairs = chains.values.iter().enumerate().map(pair).collect();
    Ok(Some(TlsSettings { pairs, client_roots, client_certificates, oldest }))
}

/// Refuses an address that is to be encrypted without a certificate, and a certificate that no address uses.
fn refuse_addresses(settings: &Settings, effective: &[Given]) -> Result<(), Error> {
    if let (Some(bind), Some(given)) =
        (settings.binds.iter().find(|bind| bind.https && settings.tls.is_none()), given(effective, "bind"))
    {
        let why = "needs a certificate: give --certfile and --keyfile, or write http: for none";
        return Err(error(given, &bind.to_string(), why));
    }
    let is_encrypted = |bind: &Bind| settings.encrypts(bind, matches!(bind.endpoint, Endpoint::Unix(_)));
    match given(effective, "certfile") {
        Some(given) if !settings.binds.is_empty() && !settings.binds.iter().any(is_encrypted) => {
            let why = "is for no address: TLS is spoken at addresses of TCP that name no protocol, and where https: stands in front of one \
                       (--bind), not with a gateway's protocol; leave one of the two out";
            Err(error(given, &given.values.join(","), why))
        }
        _ => Ok(()),
    }
}

fn error(given: &Given, value: &str, why: &str) -> Error {
    Error::Value { option: given.option, value: value.into(), origin: given.origin.clone(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::merge::Configuration;
    use crate::config::{merge, options};

    fn merged(layers: &[(&str, &[&str])]) -> Result<Configuration, String> {
        let given = |(name, values): &(&str, &[&str])| Given {
            option: options::find(name).expect(name),
            values: values.iter().map(|value| value.to_string()).collect(),
            origin: Origin::CommandLine,
        };
        merge(layers.iter().map(given)).map_err(|error| error.to_string())
    }

    fn tls(layers: &[(&str, &[&str])]) -> TlsSettings {
        merged(layers).unwrap().settings.tls.unwrap()
    }

    #[test]
    fn certificates_and_keys_are_pairs_in_their_order() {
        let pair = |chain: &str, key: &str| PairFiles { chain: chain.into(), key: key.into() };
        assert_eq!(tls(&[("certfile", &["a", "b"]), ("keyfile", &["ka", "kb"])]).pairs, [pair("a", "ka"), pair("b", "kb")]);
        assert_eq!(tls(&[("certfile", &["a", "b"]), ("keyfile", &["ka"])]).pairs, [pair("a", "ka"), pair("b", "b")]);
        assert_eq!(tls(&[("certfile", &["a"])]).pairs, [pair("a", "a")]);
        assert_eq!(merged(&[]).unwrap().settings.tls, None);
        let error = merged(&[("certfile", &["a"]), ("keyfile", &["ka", "kb"])]).unwrap_err();
        assert!(error.starts_with("--keyfile kb (command line): has no certificate"), "{error}");
    }

    #[test]
    fn words_and_numbers_say_what_clients_have_to_show() {
        for (text, expected) in [
            ("none", ClientCertificates::None),
            ("0", ClientCertificates::None),
            ("Optional", ClientCertificates::Optional),
            ("1", ClientCertificates::Optional),
            ("required", ClientCertificates::Required),
            ("2", ClientCertificates::Required),
        ] {
            let layers: &[(&str, &[&str])] = &[("certfile", &["a"]), ("ca-certs", &["ca"]), ("cert-reqs", &[text])];
            assert_eq!((tls(layers).client_certificates, tls(layers).oldest), (expected, TlsVersion::V1_2), "{text}");
        }
        assert_eq!(tls(&[("certfile", &["a"]), ("tls-min", &["1.3"])]).oldest, TlsVersion::V1_3);
        for (option, text, why) in [
            ("cert-reqs", "3", "must be none, optional or required (or 0, 1, 2)"),
            ("tls-min", "1.1", "is not spoken any more (RFC 8996); must be 1.2 or 1.3"),
            ("tls-min", "1.4", "must be 1.2 or 1.3"),
        ] {
            let error = merged(&[("certfile", &["a"]), (option, &[text])]).unwrap_err();
            assert_eq!(error, format!("--{option} {text} (command line): {why}"));
        }
    }

    #[test]
    fn what_belongs_to_a_certificate_needs_one() {
        let layers: [(&str, &str); 4] = [("keyfile", "k"), ("ca-certs", "c"), ("cert-reqs", "1"), ("tls-min", "1.3")];
        for (option, value) in layers {
            let error = merged(&[(option, &[value])]).unwrap_err();
            assert_eq!(
                error,
                format!("--{option} {value} (command line): needs a certificate: give --certfile, or leave it out")
            );
        }
        assert!(merged(&[("cert-reqs", &["0"])]).is_ok(), "as gunicorn's default");
        let error = merged(&[("certfile", &["a"]), ("cert-reqs", &["2"])]).unwrap_err();
        assert!(error.contains("needs --ca-certs"), "{error}");
    }

    #[test]
    fn addresses_of_tcp_are_encrypted_unless_they_name_a_protocol() {
        let encrypted = |binds: &[&str]| {
            let settings = merged(&[("certfile", &["a"]), ("bind", binds)]).unwrap().settings;
            let is_unix = |bind: &crate::config::Bind| bind.to_string().contains("unix:");
            settings.binds.iter().map(|bind| settings.encrypts(bind, is_unix(bind))).collect::<Vec<_>>()
        };
        assert_eq!(encrypted(&[":443", "http::80", "unix:a", "https:unix:b", "https::444"]), [true, false, false, true, true]);
        assert_eq!(encrypted(&["fd://3", "scgi::4000"]), [true, false]);
        let error = merged(&[("bind", &["https::443"])]).unwrap_err();
        assert_eq!(
            error,
            "--bind https::443 (command line): needs a certificate: give --certfile and --keyfile, or write http: for none"
        );
        for binds in [&["http::80"][..], &["unix:a", "scgi::4000"]] {
            let error = merged(&[("certfile", &["a"]), ("bind", binds)]).unwrap_err();
            assert!(error.starts_with("--certfile a (command line): is for no address: "), "{error}");
        }
        assert!(merged(&[("certfile", &["a"]), ("protocol", &["scgi"])]).is_err(), "gateways do not encrypt");
    }
}
