//! Who may import whom: the table of ARCHITECTURE.md, read from the sources. Also: unsafe code in its two folders, and files of
//! a size that one can read; `architecture/` has the rules on the homes of `impl`s, on circles of files and on names of types.
//!
//! The sources are read as tokens, so comments and strings do not count and macros do. Code under `#[cfg(test)]` may import what
//! it likes.

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/homes.rs"]
mod homes;
#[path = "architecture/names.rs"]
mod names;
mod sources;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::Path;

use sources::{Mention, Source, dependencies, is_test_file, module_of};

/// Most lines of a source file, tests in it included: beyond it a file has more than one job. About 400 is the aim.
const LINES_MAX: usize = 600;

/// What one part of the crate may name of the others. The longest matching `part` counts.
struct Rule {
    /// Module path without `crate::`.
    part: &'static str,
    /// Modules of the crate (or single items) that it may name, besides its own.
    modules: &'static [&'static str],
    /// Crates that it may name.
    crates: &'static [&'static str],
    /// Paths of the standard library that it must not name.
    not_std: &'static [&'static str],
    /// Why, for the message.
    why: &'static str,
}

/// What touches the world: a pure part has to be without it. Types that are only data (an address, an instant) may pass
/// through; asking the clock, the resolver or the kernel may not happen.
const WORLD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
];

const RULES: &[Rule] = &[
    Rule {
        part: "http",
        modules: &[],
        crates: &["httpdate", "memchr"],
        not_std: WORLD,
        why: "http is bytes in, facts out: no sockets, no clocks, no logs, no configuration",
    },
    Rule {
        part: "protocol",
        modules: &["http"],
        crates: &["memchr", "serde"],
        not_std: WORLD,
        why: "protocol is bytes in, facts out, as http: no sockets, no clocks, no logs, no configuration",
    },
    Rule {
        part: "status",
        modules: &[],
        crates: &["serde"],
        not_std: WORLD,
        why: "figures in, bytes out: no sockets, no clocks, no processes",
    },
    Rule {
        part: "files",
        modules: &["config", "http"],
        crates: &["httpdate", "memchr", "regex_lite"],
        not_std: WORLD,
        why: "names, sizes and times in, heads of answers out: no files, no sockets, no clocks",
    },
    Rule {
        part: "tls",
        modules: &["config"],
        crates: &["base64", "ring", "rustls", "serde", "x509_cert", "zeroize"],
        not_std: &["std::env", "std::fs", "std::net", "std::os", "std::process", "std::thread", "std::time::Instant::now"],
        why: "certificates and records in, records and facts out: no files, no sockets",
    },
    Rule {
        part: "config",
        modules: &["protocol"],
        crates: &["regex_lite", "serde", "strsim", "toml"],
        not_std: &["std::net::TcpListener", "std::net::TcpStream", "std::os::unix::net", "std::process", "std::thread"],
        why: "settings are values: no command-line library, no Python, no system calls",
    },
    Rule {
        part: "gunicorn_file",
        modules: &["config", "sys::privileges"],
        crates: &["nix", "serde_json"],
        not_std: &["std::net", "std::thread"],
        why: "a gunicorn file is executed by another process: no Python here, and nothing of the server",
    },
    Rule {
        part: "hooks",
        modules: &["config", "log", "sys"],
        crates: &["nix", "serde", "serde_json", "signal_hook"],
        not_std: &["std::net", "std::thread"],
        why: "the hook process gets packets from the master: no Python here, and nothing of workers",
    },
    Rule {
        part: "sys",
        modules: &[],
        crates: &["libc", "nix"],
        not_std: &[],
        why: "sys wraps system calls: no policy, no other module",
    },
    Rule {
        part: "net",
        modules: &["config", "sys", "tls"],
        crates: &["libc", "mio", "nix", "rustls", "zeroize"],
        not_std: &[],
        why: "net gives sockets: it knows neither HTTP nor Python",
    },
    Rule {
        part: "log",
        modules: &["config", "http", "sys"],
        crates: &["base64", "itoa", "memchr", "nix", "serde", "serde_json", "strsim"],
        not_std: &["std::net", "std::thread"],
        why: "logs render records: they know neither sockets nor what the processes do",
    },
    Rule {
        part: "channel",
        modules: &["sys"],
        crates: &["libc", "nix"],
        not_std: &["std::net", "std::thread"],
        why: "the channel carries messages: what they cause is up to master and worker",
    },
    Rule {
        part: "handoff",
        modules: &["sys"],
        crates: &["libc", "nix", "zeroize"],
        not_std: &["std::net::TcpListener", "std::net::TcpStream", "std::thread"],
        why: "the queue carries connections: which are handed over and who takes them is up to the workers",
    },
    Rule {
        part: "watch",
        modules: &["config"],
        crates: &["libc", "nix", "serde", "serde_json"],
        not_std: &["std::net", "std::process", "std::thread"],
        why: "the watcher looks at files and says what has changed: what follows is up to the master",
    },
    Rule {
        part: "mold",
        modules: &["sys"],
        crates: &["nix", "serde", "serde_json"],
        not_std: &["std::net", "std::process", "std::thread"],
        why: "orders and births are messages: who forks whom is up to master and worker",
    },
    Rule {
        part: "scoreboard",
        modules: &["sys"],
        crates: &[],
        not_std: &["std::net", "std::thread"],
        why: "the scoreboard is shared memory: what its words mean is up to master and worker",
    },
    Rule {
        part: "wsgi",
        modules: &["channel::BootError", "config", "hooks", "http", "log", "tls::facts", "worker::app"],
        crates: &["libc", "memchr", "pyo3"],
        not_std: &["std::net"],
        why: "wsgi is the bridge to Python and knows of the worker only the trait App: no sockets, no loop",
    },
    Rule {
        part: "worker",
        modules: &[
            "certificates",
            "channel",
            "config",
            "files",
            "http",
            "handoff",
            "log",
            "mold",
            "net",
            "protocol",
            "scoreboard",
            "sys",
            "tls",
        ],
        crates: &["crossbeam_channel", "crossbeam_utils", "libc", "mio", "nix", "signal_hook", "slab", "tempfile"],
        not_std: &[],
        why: "the worker uses everything but master, cli and wsgi: the application is behind the trait App",
    },
    Rule {
        part: "birth",
        modules: &[
            "channel",
            "config",
            "handoff",
            "log",
            "mold",
            "net",
            "scoreboard",
            "sys",
            "worker::Boot",
            "worker::MoldBirth",
            "tls",
        ],
        crates: &["nix", "serde", "serde_json"],
        not_std: &["std::thread"],
        why: "a birth carries what a worker starts with into a new program: it runs neither master nor worker",
    },
    Rule {
        part: "certificates",
        modules: &["config", "log", "sys", "tls"],
        crates: &["nix", "rustls", "serde", "serde_json", "x509_cert"],
        not_std: &["std::env", "std::process", "std::thread"],
        why: "files are read and checked for whoever asks: it runs neither master nor worker",
    },
    Rule {
        part: "cgi",
        modules: &["channel::BootError", "config", "http", "log", "protocol", "sys", "worker::app"],
        crates: &["nix", "tempfile"],
        not_std: &["std::net", "std::thread"],
        why: "one request of a web server without a server: the application is behind the trait App",
    },
    Rule {
        part: "master",
        modules: &[
            "birth",
            "certificates",
            "channel",
            "config",
            "handoff",
            "hooks",
            "log",
            "mold",
            "net",
            "scoreboard",
            "status",
            "sys",
            "watch",
            "worker::Boot",
            "worker::MoldBirth",
            "tls",
        ],
        // serde for the state that survives an upgrade.
        crates: &["libc", "nix", "serde", "serde_json", "signal_hook"],
        not_std: &["std::thread::Builder", "std::thread::scope", "std::thread::spawn"],
        why: "the master has one thread, no interpreter and no loop of connections; of the worker it knows the entry",
    },
    Rule {
        part: "master::status",
        modules: &["config", "http", "log", "net", "status", "sys"],
        crates: &["nix", "serde", "serde_json"],
        not_std: &["std::process", "std::thread"],
        why: "the one place where the master speaks HTTP: to operators, never to clients",
    },
    Rule {
        part: "master::supervisor",
        modules: &["channel", "status::ExitCause", "status::ServerState"],
        crates: &[],
        not_std: WORLD,
        why: "the policy is a pure function of event and time: no system calls, no clocks, no logs",
    },
    Rule {
        part: "operator",
        modules: &["config", "status", "sys"],
        crates: &["nix", "serde", "serde_json", "signal_hook"],
        not_std: &["std::net", "std::process"],
        why: "the commands are clients of a control socket: they know the document, and nothing of the server",
    },
    Rule {
        part: "cli",
        modules: &["config", "operator"],
        crates: &["clap", "clap_complete"],
        not_std: &["std::net", "std::thread"],
        why: "the command line is spelling and help",
    },
    Rule {
        part: "extension",
        modules: &[],
        crates: &["pyo3"],
        not_std: &["std::fs", "std::net", "std::thread"],
        why: "the extension module is another package: the way from Python into this one, and nothing else",
    },
];

/// Besides the crate's root, the only place where all parts meet, so it may name everything.
const JOINS: &[&str] = &["launch"];

/// The only folders with unsafe code.
const UNSAFE: &[&str] = &["sys", "wsgi", "extension"];

/// A broken rule.
#[derive(Debug)]
struct Finding {
    file: String,
    line: usize,
    kind: Kind,
    what: String,
    why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Import,
    Unsafe,
    Length,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} ({})", self.file, self.line, self.what, self.why)
    }
}

/// Whether `path` is `outer` or lies in it.
fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Checks one file; `module` is its path without `crate`, empty for the crate's root.
fn check(file: &str, source: &str, module: &str, crates: &[String]) -> Vec<Finding> {
    let place: Vec<String> = module.split("::").filter(|s| !s.is_empty()).map(str::to_owned).collect();
    let Source { mentions, unsafes, .. } = sources::read(file, source, &place);

    let mut findings = Vec::new();
    let mut find = |line: usize, kind: Kind, what: String, why: &'static str| {
        findings.push(Finding { file: file.to_owned(), line, kind, what, why });
    };
    let lines = source.lines().count();
    if lines > LINES_MAX {
        find(LINES_MAX, Kind::Length, format!("{lines} lines, more than {LINES_MAX}"), "a file has one job; split it");
    }
    if !UNSAFE.iter().any(|folder| within(module, folder)) {
        for line in &unsafes {
            find(
                *line,
                Kind::Unsafe,
                "unsafe code".into(),
                "it is kept in src/sys, src/wsgi and src/extension, where it is audited",
            );
        }
    }
    let Some(top) = place.first().filter(|top| !JOINS.contains(&top.as_str())) else { return findings };
    let Some(rule) = RULES.iter().filter(|r| within(module, r.part)).max_by_key(|r| r.part.len()) else {
        let what = format!("module `{top}` is not in the table");
        find(1, Kind::Import, what, "tests/architecture.rs has to say what it may use");
        return findings;
    };
    let mut said = HashSet::new();
    for mention in &mentions {
        if let Some(name) = broken(rule, top, mention, crates)
            && said.insert((mention.line, name.clone()))
        {
            find(mention.line, Kind::Import, format!("`{}` may not use {name}", rule.part), rule.why);
        }
    }
    findings
}

/// What the mention names against the rule.
fn broken(rule: &Rule, top: &str, mention: &Mention, crates: &[String]) -> Option<String> {
    let first = mention.path[0].as_str();
    let rest = mention.path[1..].join("::");
    match first {
        "crate" => {
            // A module of which single items are allowed may be imported: what is then taken from it is judged by itself.
            let opens = mention.import && rule.modules.iter().any(|m| within(m, &rest));
            let fine = opens || within(&rest, top) || rule.modules.iter().any(|m| within(&rest, m));
            (!fine).then(|| format!("`crate::{rest}`"))
        }
        "std" | "core" | "alloc" => {
            let path = format!("std::{rest}");
            let all = path.strip_suffix("::*");
            let hit = rule.not_std.iter().find(|no| within(&path, no) || all.is_some_and(|all| within(no, all)))?;
            Some(if all.is_some() { format!("`{path}`, of which `{hit}` is a part") } else { format!("`{hit}`") })
        }
        name => {
            let foreign = crates.iter().any(|c| c == name) && !rule.crates.contains(&name);
            foreign.then(|| format!("the crate `{name}`"))
        }
    }
}

#[test]
fn the_sources_keep_to_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = dependencies(&fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml"));
    assert!(crates.iter().any(|c| c == "signal_hook"), "{crates:?}");
    let src = root.join("src");
    let files = sources::below(&src);
    assert!(files.len() > 20, "the sources were not found");
    let mut report = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).expect("it was found there");
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        let name = format!("src/{}", relative.display());
        let findings = check(&name, &source, &module_of(relative), &crates);
        let counts = |f: &&Finding| f.kind != Kind::Import || !is_test_file(relative);
        report.extend(findings.iter().filter(counts).map(Finding::to_string));
    }
    assert!(report.is_empty(), "the architecture is broken in {} places:\n{}", report.len(), report.join("\n"));
}

/// What the rules allow and no file uses.
fn unused(rules: &[Rule], files: &[(String, Vec<Mention>)]) -> Vec<String> {
    let mut report = Vec::new();
    for rule in rules {
        let is_own = |module: &str| {
            rules.iter().filter(|r| within(module, r.part)).max_by_key(|r| r.part.len()).is_some_and(|r| r.part == rule.part)
        };
        let paths: Vec<&[String]> =
            files.iter().filter(|(module, _)| is_own(module)).flat_map(|(_, all)| all).map(|m| &m.path[..]).collect();
        let is_module_used = |name: &str| paths.iter().any(|path| path[0] == "crate" && within(&path[1..].join("::"), name));
        let is_crate_used = |name: &str| paths.iter().any(|path| path[0] == name);
        let modules = rule.modules.iter().filter(|name| !is_module_used(name));
        let crates = rule.crates.iter().filter(|name| !is_crate_used(name));
        report.extend(modules.chain(crates).map(|name| format!("`{}` does not use `{name}`: take it off its rule", rule.part)));
    }
    report
}

#[test]
fn every_rule_allows_only_what_is_used() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources::below(&src).into_iter().filter_map(|file| {
        let relative = file.strip_prefix(&src).expect("it was found there");
        let module = module_of(relative);
        let place: Vec<String> = module.split("::").filter(|s| !s.is_empty()).map(str::to_owned).collect();
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        (!is_test_file(relative)).then(|| (module, sources::read(&relative.display().to_string(), &source, &place).mentions))
    });
    let report = unused(RULES, &files.collect::<Vec<_>>());
    assert!(report.is_empty(), "{}", report.join("\n"));
}

/// The table for ARCHITECTURE.md.
fn table() -> String {
    let list = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let row = |r: &Rule| format!("| `{}` | {} | {} | {} |\n", r.part, list(r.modules), list(r.crates), r.why);
    let head = "| module | modules | crates | why |\n|---|---|---|---|\n".to_owned();
    RULES.iter().map(row).fold(head, |table, row| table + &row)
}

#[test]
fn the_document_shows_the_table_and_gives_a_reason_for_each_crate() {
    const UPDATE: &str = "TAPSTER_UPDATE_ARCHITECTURE";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).expect("ARCHITECTURE.md is there");
    let (before, rest) = text.split_once("from tests/architecture.rs -->\n").expect("a mark before the table");
    let (shown, after) = rest.split_once("<!-- rules: end").expect("a mark behind the table");
    if std::env::var(UPDATE).is_ok_and(|value| value == "1") {
        let new = [before, "from tests/architecture.rs -->\n", &table(), "<!-- rules: end", after].concat();
        fs::write(&path, new).expect("ARCHITECTURE.md can be written");
    } else {
        assert_eq!(shown, table(), "write it anew: {UPDATE}=1 cargo test --test architecture");
    }
    let (_, reasons) = after.split_once("## Dependencies").expect("a chapter on dependencies");
    let words: HashSet<&str> = reasons.split(|c: char| !c.is_alphanumeric() && !"-_".contains(c)).collect();
    for name in dependencies(&fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml")) {
        assert!(words.contains(name.replace('_', "-").as_str()) || words.contains(name.as_str()), "no reason for {name}");
    }
}

#[test]
fn every_rule_names_modules_that_exist() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for rule in RULES {
        for module in rule.modules.iter().chain([&rule.part]) {
            let top = module.split("::").next().expect("split gives one");
            let exists = src.join(top).is_dir() || src.join(format!("{top}.rs")).is_file();
            assert!(exists, "the rule for `{}` names `{module}`, which does not exist", rule.part);
        }
    }
}

/// What is found in a made-up file of this module.
fn findings(module: &str, source: &str) -> Vec<String> {
    let crates = ["mio", "pyo3", "nix", "libc", "clap", "httparse", "memchr"].map(str::to_owned);
    check("x.rs", source, module, &crates).iter().map(Finding::to_string).collect()
}

#[track_caller]
fn refused(module: &str, source: &str, what: &str) {
    let found = findings(module, source);
    assert!(!found.is_empty() && found.iter().all(|f| f.contains(what)), "{module}: {source}\n{found:#?}");
}

#[track_caller]
fn allowed(module: &str, source: &str) {
    let found = findings(module, source);
    assert!(found.is_empty(), "{module}: {source}\n{found:#?}");
}

#[test]
fn forbidden_imports_are_found_however_they_are_written() {
    refused("http::head", "use crate::log::Level;", "x.rs:1: `http` may not use `crate::log::Level` (http is bytes in");
    refused("http::head", "\n\nuse super::super::config;", "x.rs:3: `http` may not use `crate::config`");
    refused("http::head", "use crate::{http::date, wsgi as w};", "`crate::wsgi`");
    refused("http", "use crate::*;", "`crate::*`");
    refused("http", "fn f() { crate::net::listener::bind_all() }", "`crate::net::listener::bind_all`");
    refused("http", "mod inner { use super::super::net; }", "`crate::net`");
    refused("http", "fn f() { println!(\"{}\", crate::log::x()) }", "`crate::log::x`");
    refused("http", "use std::io;", "`std::io`");
    refused("http", "use std::{fmt, net::TcpStream};", "`std::net::TcpStream`");
    refused("http", "use std::*;", "`std::*`");
    refused("http", "fn f() -> ::std::io::Result<()> { g() }", "`std::io`");
    refused("http", "use mio::Poll;", "the crate `mio`");
    refused("wsgi::load", "type T = nix::Error;", "the crate `nix`");
    refused("wsgi::load", "use crate::worker::event_loop;", "`crate::worker::event_loop`");
    refused("worker", "use crate::master;", "`crate::master`");
    refused("worker", "use pyo3::prelude::*;", "the crate `pyo3`");
    refused("config", "fn f(_: clap::Command) {}", "the crate `clap`");
    refused("master", "use crate::worker::event_loop::Loop;", "`crate::worker::event_loop::Loop`");
    refused("master", "use crate::worker; fn f() { worker::event_loop::run() }", "`crate::worker::event_loop::run`");
    refused("master", "use std::thread; fn f() { thread::spawn(g); }", "`std::thread::spawn`");
    refused("master", "use crate::worker::*;", "`crate::worker::*`");
    refused("master::supervisor", "use std::time::Instant; fn f() { Instant::now(); }", "`std::time::Instant::now`");
    refused("master::supervisor", "use std::time as t; fn f() { t::Instant::now(); }", "`std::time::Instant::now`");
    refused("master::supervisor", "use nix::unistd::Pid;", "the crate `nix`");
    refused("master::supervisor", "use crate::sys::time;", "`crate::sys::time`");
    refused("master::supervisor", "use crate::sys::process::{Exit, fork};", "`crate::sys::process::");
    refused("sys::time", "use crate::log::Level;", "`crate::log::Level`");
    refused("novel", "", "module `novel` is not in the table");
}

#[test]
fn what_the_table_allows_is_not_found() {
    allowed("http::head", "use super::error::Error; use crate::http::date; use std::fmt; use memchr as m;");
    allowed("http", "// use std::io;\nconst A: &str = \"crate::log::x\"; /// crate::net\nfn f() { a.std(); b::c() }");
    allowed("wsgi::load", "use crate::worker::app::{App, Reply}; use pyo3::ffi;");
    allowed("master", "use crate::worker; fn f(b: worker::Boot) {}");
    allowed("master::supervisor", "use std::time::{Duration, Instant}; use super::table::Slot;");
    allowed("log", "fn f<'a>() -> impl Iterator + use<'a> { x }");
    allowed("", "use clap::Command; use crate::wsgi;");
    allowed("launch", "use crate::{cli, master, wsgi, worker};");
}

#[test]
fn test_code_is_free_and_ends_with_its_item() {
    allowed("http", "#[cfg(test)] mod tests { use std::io; use crate::log::Level; } fn g() {}");
    allowed("http", "#[cfg(test)] use std::io; #[cfg(all(test, unix))] fn f() { std::process::id(); }");
    refused("http", "#[cfg(test)] mod tests { use std::fs; } use std::io;", "`std::io`");
    refused("http", "#[cfg(test)] use std::fs; use std::io;", "`std::io`");
    refused("http", "#[cfg(not(test))] use std::io;", "`std::io`");
}

#[test]
fn unsafe_code_is_found_outside_its_folders_only() {
    refused("worker", "fn f() { unsafe { g() } }", "unsafe code");
    refused("worker", "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }", "unsafe code");
    refused("net", "#[unsafe(no_mangle)] fn f() {}", "unsafe code");
    refused("log", "unsafe impl Send for X {}", "unsafe code");
    refused("", "fn f() { m!(unsafe { g() }) }", "unsafe code");
    allowed("sys::time", "fn f() { unsafe { g() } }");
    allowed("wsgi::environ", "unsafe fn f() {}");
    allowed("worker", "// unsafe\n#[deny(unsafe_code)] const A: &str = \"unsafe\";");
}

/// The master waits in its poll and nowhere else. The exceptions have bounds and reasons of their own.
#[test]
fn the_master_does_not_sleep() {
    // At the start for `on_starting`, and at the end for `on_exit`; at the end for the exit handlers of the mold. (It also waits for the
    // answer to a birth, in a poll of its own.)
    const WAITS: [&str; 2] = ["master::hooks", "master::molds"];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources::below(&src.join("master"));
    let asleep = files.iter().filter(|file| fs::read_to_string(file).expect("sources are UTF-8").contains("thread::sleep("));
    let asleep: Vec<String> = asleep.map(|file| module_of(file.strip_prefix(&src).expect("it was found there"))).collect();
    assert_eq!(asleep, WAITS);
}

#[test]
fn long_files_are_found() {
    refused("http", &"\n".repeat(LINES_MAX + 1), "601 lines, more than 600");
    allowed("http", &"\n".repeat(LINES_MAX));
}
