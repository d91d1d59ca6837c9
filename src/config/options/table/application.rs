//! Rows: what is served, and where it listens.

use std::time::Duration;

use super::row::{ROW, keep};
use crate::config::app_spec::AppSpec;
use crate::config::bind::Bind;
use crate::config::mounts::{self, Mount};
use crate::config::options::bounds::{BACKLOG_MAX, TIMEOUT_MAX, UMASK_MAX};
use crate::config::options::option::{Opt, Section, Sources, ValueKind};
use crate::config::proxy_headers;
use crate::config::trusted::Trusted;
use crate::config::value;

pub(super) const ROWS: &[Opt] = &[
    Opt {
        name: "app",
        value: "APP",
        kind: ValueKind::Positional,
        help: "What to serve: MODULE[:CALLABLE] or PATH.py[:CALLABLE] or PATH.wsgi[:CALLABLE]. CALLABLE is a name, a dotted \
               name, or a call of a factory with literals, such as make(\"x\", debug=True); without it `application`, then `app`. \
               Without APP a built-in welcome page is served.",
        section: Section::Application,
        set: Some(|s, v| AppSpec::parse(v).map(|app| s.app = app)),
        ..ROW
    },
    Opt {
        name: "mount",
        value: "/PATH=APP",
        kind: ValueKind::List,
        help: "Serve another application for paths that begin with PATH, by whole segments; the longest one counts. Its SCRIPT_NAME \
               is PATH, and PATH_INFO the rest. HOST:/PATH=APP counts for one host, whatever its port, and before those that count \
               for all. APP has the paths of no mount; without it they are answered 404. Each worker loads all of them. \
               Repeatable; a variable of the environment has one.",
        section: Section::Application,
        clear: |s| s.mounts.clear(),
        set: Some(|s, v| Mount::parse(v).and_then(|mount| mounts::add(&mut s.mounts, mount))),
        ..ROW
    },
    Opt {
        name: "chdir",
        value: "DIR",
        help: "Change to this directory before the application is loaded.",
        section: Section::Application,
        set: Some(|s, v| value::path(v).map(|dir| s.chdir = Some(dir))),
        ..ROW
    },
    Opt {
        name: "pythonpath",
        value: "DIRS",
        kind: ValueKind::List,
        help: "Directories to search for modules after the working directory, separated by commas or colons. Repeatable.",
        section: Section::Application,
        clear: |s| s.python.pythonpath.clear(),
        set: Some(|s, v| value::directories(v).map(|dirs| s.python.pythonpath.extend(dirs))),
        ..ROW
    },
    Opt {
        name: "venv",
        value: "DIR",
        help: "Virtual environment of the application; without it the active one, if any.",
        section: Section::Application,
        foreign: Some("VIRTUAL_ENV"),
        set: Some(|s, v| value::path(v).map(|dir| s.python.venv = Some(dir))),
        ..ROW
    },
    Opt {
        name: "env",
        short: Some('e'),
        value: "KEY=VALUE",
        kind: ValueKind::List,
        help: "Set a variable in the environment of the application. Repeatable.",
        section: Section::Application,
        sources: Sources::NotEnvironment,
        clear: |s| s.env.clear(),
        set: Some(|s, v| value::variable(v).map(|pair| s.env.push(pair))),
        ..ROW
    },
    Opt {
        name: "bind",
        short: Some('b'),
        value: "ADDRESS",
        kind: ValueKind::List,
        default: Some("127.0.0.1:8000"),
        help: "Listen here: HOST:PORT, :PORT (all IPv4 addresses), [IPV6]:PORT, unix:PATH or fd://N (an inherited socket). The \
               port is 8000 when there is none; port 0 lets the kernel choose. A protocol may stand in front, as in \
               scgi:127.0.0.1:4000, uwsgi:unix:PATH or https::443. Repeatable.",
        section: Section::Sockets,
        foreign: Some("PORT"),
        foreign_before: "0.0.0.0:",
        separator: Some(','),
        clear: |s| s.binds.clear(),
        set: Some(|s, v| Bind::parse(v).map(|bind| s.binds.push(bind))),
        ..ROW
    },
    Opt {
        name: "protocol",
        value: "NAME",
        default: Some("http"),
        help: "What is spoken at addresses that name no protocol: http, or what a front server speaks to a gateway: \
               fastcgi, scgi, uwsgi or ajp.",
        section: Section::Sockets,
        set: Some(|s, v| value::protocol(v).map(|protocol| s.protocol = protocol)),
        fixed: Some(|new, old| keep(&mut new.protocol, &old.protocol)),
        ..ROW
    },
    Opt {
        name: "gateway-allow-from",
        aliases: &["uwsgi-allow-from"],
        value: "LIST",
        default: Some("127.0.0.1,::1"),
        help: "Front servers that may connect where another protocol than HTTP is spoken, and are believed all that they say of the \
               client: addresses and networks (10.0.0.0/8) separated by commas, or * for everybody. Unix sockets always may.",
        section: Section::Sockets,
        foreign: Some("FCGI_WEB_SERVER_ADDRS"),
        set: Some(|s, v| Trusted::parse(v).map(|trusted| s.gateway_allow_from = trusted)),
        ..ROW
    },
    Opt {
        name: "ajp-secret",
        value: "TEXT",
        help: "What a front server that speaks AJP has to send with each request, as Tomcat's `secret`; others are answered 403. \
               Needed where AJP is spoken at other addresses than those of this machine. The command line can be read by all users \
               of a machine: the file and TAPSTER_AJP_SECRET cannot.",
        section: Section::Sockets,
        set: Some(|s, v| value::secret(v).map(|secret| s.ajp_secret = Some(secret))),
        // What was bound with one must not be served without.
        fixed: Some(|new, old| new.ajp_secret.is_none() && keep(&mut new.ajp_secret, &old.ajp_secret)),
        ..ROW
    },
    Opt {
        name: "root-path",
        value: "PATH",
        help: "Where the application is mounted, such as /shop: SCRIPT_NAME of every request. PATH_INFO is the rest of a path that \
               begins with it, and the whole of one whose root the server in front has cut off.",
        section: Section::Application,
        foreign: Some("SCRIPT_NAME"),
        set: Some(|s, v| value::root_path(v).map(|path| s.root_path = path)),
        ..ROW
    },
    Opt {
        name: "backlog",
        value: "N",
        kind: ValueKind::Number,
        default: Some("2048"),
        help: "Length of the queue of connections that wait to be accepted.",
        section: Section::Sockets,
        set: Some(|s, v| value::number(v, 1, BACKLOG_MAX).map(|n| s.backlog = n as u32)),
        fixed: Some(|new, old| keep(&mut new.backlog, &old.backlog)),
        ..ROW
    },
    Opt {
        name: "defer-accept",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("5"),
        help: "Let the kernel hold a new TCP connection until its first bytes arrive, for at most this many whole seconds; 0 \
               turns it off.",
        section: Section::Sockets,
        set: Some(|s, v| {
            let time = value::duration(v, Duration::ZERO, TIMEOUT_MAX)?;
            if time.subsec_nanos() != 0 {
                return Err("must be whole seconds, which is all that the kernel takes".into());
            }
            s.defer_accept = time;
            Ok(())
        }),
        fixed: Some(|new, old| keep(&mut new.defer_accept, &old.defer_accept)),
        ..ROW
    },
    Opt {
        name: "umask",
        short: Some('m'),
        value: "MODE",
        kind: ValueKind::Octal,
        help: "File mode mask in octal; without it the inherited one holds, and unix sockets are open to everybody.",
        section: Section::Sockets,
        set: Some(|s, v| value::octal(v, UMASK_MAX).map(|mask| s.umask = Some(mask))),
        fixed: Some(|new, old| keep(&mut new.umask, &old.umask)),
        ..ROW
    },
    Opt {
        name: "forwarded-allow-ips",
        value: "LIST",
        default: Some("127.0.0.1,::1"),
        help: "Proxies whose forwarding headers are believed: addresses and networks (10.0.0.0/8) separated by commas, or * for \
               everybody. Unix sockets are always believed.",
        section: Section::Sockets,
        foreign: Some("FORWARDED_ALLOW_IPS"),
        set: Some(|s, v| Trusted::parse(v).map(|trusted| s.forwarded_allow_ips = trusted)),
        ..ROW
    },
    Opt {
        name: "trusted-proxy-headers",
        value: "LIST",
        help: "Fields by which the proxies of --forwarded-allow-ips say who the client is and what it asked for: x-forwarded-for, \
               x-forwarded-proto, x-forwarded-host, x-forwarded-port and x-forwarded-prefix, or forwarded, or x-real-ip and \
               x-scheme, separated by commas or blanks. Name only what the proxy writes itself. Without it only \
               X-Forwarded-Proto is believed.",
        section: Section::Sockets,
        clear: |s| s.trusted_proxy_headers.clear(),
        set: Some(|s, v| proxy_headers::parse(v).map(|headers| s.trusted_proxy_headers = headers)),
        ..ROW
    },
    Opt {
        name: "clear-untrusted-proxy-headers",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Hide Forwarded, X-Forwarded-*, X-Real-IP and X-Scheme from the application where they are not believed: those of \
               other peers, and of trusted ones what --trusted-proxy-headers does not name.",
        section: Section::Sockets,
        set: Some(|s, v| value::flag(v).map(|on| s.clear_untrusted_proxy_headers = on)),
        ..ROW
    },
    Opt {
        name: "request-id",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Give each request an X-Request-ID, in the environ, the answer, the logs and the status: the one of a proxy of \
               --forwarded-allow-ips or of a front server, else a new one.",
        section: Section::Logs,
        set: Some(|s, v| value::flag(v).map(|on| s.request_id = on)),
        ..ROW
    },
    Opt {
        name: "proxy-protocol",
        value: "MODE",
        bare: Some("auto"),
        equals: false,
        default: Some("off"),
        help: "Expect the PROXY protocol at the start of every connection, from a proxy that names the client in it: v1, v2, or \
               auto for either, which is meant when MODE is left out and another option follows, or nothing. A connection that \
               does not begin with it is closed.",
        section: Section::Sockets,
        set: Some(|s, v| value::proxy_protocol(v).map(|accept| s.proxy_protocol = accept)),
        ..ROW
    },
    Opt {
        name: "proxy-allow-from",
        value: "LIST",
        default: Some("127.0.0.1,::1"),
        help: "Proxies that may connect while --proxy-protocol is on: addresses and networks (10.0.0.0/8) separated by commas, or \
               * for everybody. Unix sockets always may.",
        section: Section::Sockets,
        set: Some(|s, v| Trusted::parse(v).map(|trusted| s.proxy_allow_from = trusted)),
        ..ROW
    },
];
