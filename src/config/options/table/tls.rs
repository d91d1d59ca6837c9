//! Rows: TLS.

use super::row::{ROW, time_or_none};
use crate::config::options::bounds::TIMEOUT_MIN;
use crate::config::options::option::{Opt, Section, ValueKind};
use crate::config::tls::{ClientCertificates, TlsVersion};
use crate::config::value;

pub(super) const ROWS: &[Opt] = &[
    Opt {
        name: "certfile",
        value: "FILE",
        kind: ValueKind::List,
        help: "Speak TLS, with the certificates in this file in PEM: the server's own, then those that sign it. Then every address of TCP \
               is encrypted unless a protocol stands in front of it (http:127.0.0.1:8000); a unix socket is where https: does. The file is \
               read again when it changes. Repeatable: a client gets the certificate for the name that it asks for, else the first.",
        section: Section::Tls,
        set: Some(|_, v| value::path(v).map(|_| ())),
        // The sockets are bound for one or the other.
        fixed: Some(|new, old| {
            let differs = new.tls.is_some() != old.tls.is_some();
            if differs {
                new.tls.clone_from(&old.tls);
            }
            differs
        }),
        ..ROW
    },
    Opt {
        name: "keyfile",
        value: "FILE",
        kind: ValueKind::List,
        help: "The private key of the certificate in PEM, not encrypted; without it the key is in the file of --certfile. Repeatable: the \
               first is for the first certificate. Only the master reads it, as the user that starts the server.",
        section: Section::Tls,
        set: Some(|_, v| value::path(v).map(|_| ())),
        ..ROW
    },
    Opt {
        name: "ca-certs",
        value: "FILE",
        help: "The certificates in PEM that sign those of clients, for --cert-reqs.",
        section: Section::Tls,
        set: Some(|_, v| value::path(v).map(|_| ())),
        ..ROW
    },
    Opt {
        name: "cert-reqs",
        value: "WORD",
        kind: ValueKind::Number,
        default: Some("none"),
        help: "Which certificate a client has to show: none, optional (one that is shown must be valid) or required; or gunicorn's \
               0, 1, 2.",
        section: Section::Tls,
        set: Some(|_, v| ClientCertificates::parse(v).map(|_| ())),
        ..ROW
    },
    Opt {
        name: "tls-min",
        value: "VERSION",
        kind: ValueKind::Number,
        default: Some("1.2"),
        help: "Oldest version of TLS that is spoken: 1.2 or 1.3.",
        section: Section::Tls,
        set: Some(|_, v| TlsVersion::parse(v).map(|_| ())),
        ..ROW
    },
    Opt {
        name: "tls-watch",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("1m"),
        help: "Look so often whether the files of certificates and keys have changed, and serve what they have then; new files that are of \
               no use are refused, and the present ones stay. 0: only a reload reads them.",
        section: Section::Tls,
        set: Some(|s, v| time_or_none(v, TIMEOUT_MIN).map(|time| s.tls_watch = time)),
        ..ROW
    },
];
