//! What becomes of uWSGI's options: the sixty that are most common in public files, and some beside them.

use super::ini::Line;
use crate::protocol::Protocol;

/// What becomes of one line.
pub(super) enum Counterpart {
    /// Options with their values.
    Options(Vec<(&'static str, String)>),
    /// The same, and what of the line is lost.
    Partly(Vec<(&'static str, String)>, &'static str),
    /// Nothing is to be done, and why.
    Moot(&'static str),
    /// Lost: why, and what to do.
    Lost(String),
    /// Not known.
    Unknown,
}

/// What a line means depends on others.
pub(super) struct Whole<'a> {
    lines: &'a [Line],
}

impl<'a> Whole<'a> {
    pub(super) fn of(lines: &'a [Line]) -> Self {
        Self { lines }
    }

    fn value(&self, keys: &[&str]) -> Option<&'a str> {
        self.lines.iter().rev().find(|line| keys.contains(&line.key.as_str())).map(|line| line.value.as_str())
    }

    /// What is spoken at `socket`; `None`: nothing that is spoken here.
    fn protocol(&self) -> Option<Protocol> {
        self.value(&["protocol", "socket-protocol"]).map_or(Some(Protocol::Uwsgi), Protocol::named)
    }

    /// Options whose defaults are others than uWSGI's.
    pub(super) fn defaults(&self) -> Vec<(&'static str, String)> {
        let mut defaults = Vec::new();
        if self.value(&["processes", "workers", "p"]).is_none() {
            defaults.push(("workers", "1".into()));
        }
        if self.value(&["harakiri"]).is_none() {
            defaults.push(("timeout", "0".into()));
        }
        // uWSGI serves no file that a link leads to outside of its directory, unless `static-safe` names that place.
        let maps = ["static-map", "static-map2", "check-static"];
        if self.value(&maps).is_some() && self.value(&["static-safe"]).is_none() {
            defaults.push(("static-symlinks", "beneath".into()));
        }
        if self.value(&["disable-logging", "L", "req-logger"]).is_none() {
            defaults.push(("access-logfile", "-".into()));
        }
        defaults
    }
}

pub(super) fn treat(line: &Line, whole: &Whole<'_>) -> Counterpart {
    use Counterpart::{Lost, Moot, Options, Unknown};
    let value = line.value.clone();
    let one = |name: &'static str| Options(vec![(name, line.value.clone())]);
    let lost = |why: &str| Lost(why.into());
    if matches!(value.as_str(), "false" | "no" | "off" | "0") && !matches!(line.key.as_str(), "harakiri" | "max-requests" | "env")
    {
        return Moot("is off");
    }
    match line.key.as_str() {
        "processes" | "workers" | "p" => one("workers"),
        "threads" => one("threads"),
        "socket" | "s" => match whole.protocol() {
            Some(protocol) => Options(vec![("bind", format!("{}:{}", protocol.name(), address(&value)))]),
            None => lost("its protocol is not spoken"),
        },
        "uwsgi-socket" => Options(vec![("bind", format!("uwsgi:{}", address(&value)))]),
        "fastcgi-socket" => Options(vec![("bind", format!("fastcgi:{}", address(&value)))]),
        "scgi-socket" => Options(vec![("bind", format!("scgi:{}", address(&value)))]),
        "http" | "http-socket" | "hs" => Options(vec![("bind", format!("http:{}", address(&value)))]),
        "protocol" | "socket-protocol" if whole.protocol().is_some() => Moot("stands in front of the address"),
        "protocol" | "socket-protocol" => lost("is not spoken"),
        "module" | "wsgi" | "w" | "wsgi-file" | "file" => Options(vec![("app", app(&value, whole))]),
        "callable" if whole.value(&["module", "wsgi", "w", "wsgi-file", "file"]).is_some() => Options(vec![]),
        "callable" => lost("belongs to a module, which the file does not name"),
        "chdir" | "chdir2" => one("chdir"),
        "home" | "virtualenv" | "venv" | "H" | "pyhome" => one("venv"),
        "pythonpath" | "python-path" | "pp" => one("pythonpath"),
        "uid" => one("user"),
        "gid" => one("group"),
        "env" => one("env"),
        "harakiri" => one("timeout"),
        "max-requests" => one("max-requests"),
        "max-requests-delta" => one("max-requests-jitter"),
        "max-worker-lifetime" => one("max-worker-age"),
        "reload-on-rss" | "evil-reload-on-rss" => Options(vec![("max-worker-rss", format!("{value}M"))]),
        "reload-mercy" | "worker-reload-mercy" => one("graceful-timeout"),
        "listen" | "l" => one("backlog"),
        "chmod-socket" => match u32::from_str_radix(if value == "true" { "666" } else { &value }, 8) {
            // A mask that leaves the bits of execution alone, which sockets do not need and others may.
            Ok(mode) => Options(vec![("umask", format!("{:03o}", !mode & 0o666))]),
            Err(_) => lost("is no mode in octal"),
        },
        "chown-socket" => {
            lost("a socket is root's or the user's that starts the server; let the group of its directory decide who connects")
        }
        "umask" => one("umask"),
        "post-buffering" => one("body-buffer"),
        "buffer-size" | "b" => Options(vec![("limit-request-field_size", value.clone()), ("limit-request-line", value)]),
        "limit-post" => one("limit-request-body"),
        "http-timeout" | "socket-timeout" => Options(vec![("body-timeout", value.clone()), ("write-timeout", value)]),
        "http-keepalive" if value == "true" => Moot("connections are kept for --keep-alive"),
        "http-keepalive" => one("keep-alive"),
        "logto" | "logto2" => one("error-logfile"),
        "daemonize" | "d" => Options(vec![("daemon", "true".into()), ("error-logfile", value)]),
        "logger" => log(&value, "error-logfile"),
        "req-logger" => log(&value, "access-logfile"),
        "log-format" | "logformat" => format(&value),
        "disable-logging" | "L" => Moot("there is no access log without --access-logfile"),
        "procname" | "procname-prefix" | "procname-prefix-spaced" | "procname-master" => one("name"),
        "pidfile" | "pidfile2" | "safe-pidfile" | "safe-pidfile2" => one("pid"),
        "master" | "M" => Moot("there is always a master"),
        "vacuum" => Moot("sockets and the pid file are always removed"),
        "die-on-term" => Moot("TERM always stops"),
        "enable-threads" | "T" => Moot("threads of the application always run"),
        "lazy-apps" | "lazy" => Moot("each worker loads the application for itself, unless --preload is given"),
        "need-app" => Moot("without the application the start always fails"),
        "single-interpreter" | "i" => Moot("a worker has one interpreter"),
        "thunder-lock" => Moot("the kernel wakes one worker for each connection"),
        "no-orphans" => Moot("workers always end with their master"),
        "plugin" | "plugins" => Moot("Python is built in, and other languages are not"),
        "auto-procname" => Moot("processes always have names"),
        "memory-report" => Moot("'ps' shows the memory; --max-worker-rss bounds it"),
        "harakiri-verbose" => Moot("the log always has the request and the stacks"),
        "offload-threads" => Moot("files leave by sendfile(2)"),
        "strict"
        | "ignore-sigpipe"
        | "ignore-write-errors"
        | "disable-write-exception"
        | "close-on-exec"
        | "close-on-exec2"
        | "so-keepalive"
        | "tcp-nodelay"
        | "reuse-port"
        | "max-fd"
        | "py-call-osafterfork"
        | "wsgi-manage-chunked-input"
        | "log-master"
        | "log-date"
        | "log-4xx"
        | "log-5xx"
        | "log-x-forwarded-for"
        | "mule-reload-mercy"
        | "show-config"
        | "optimize"
        | "max-worker-lifetime-delta"
        | "post-buffering-bufsize"
        | "chunked-input-limit"
        | "http-auto-chunked"
        | "add-header" => Moot("nothing is to be done for it, or --help names what there is"),
        "static-map" => one("static-map"),
        "static-map2" => match value.split_once('=') {
            // The path stands below the directory too.
            Some((path, directory)) => Options(vec![("static-map", format!("{path}={}{path}", directory.trim_end_matches('/')))]),
            None => lost("has no = between path and directory"),
        },
        "check-static" => Options(vec![("static-map", format!("/={value}"))]),
        "static-index" => one("static-index"),
        "static-gzip" | "static-gzip-all" => Options(vec![("static-precompressed", "true".into())]),
        "static-safe" => Moot("symbolic links of static files are followed wherever they lead"),
        "static-cache-paths" | "static-cache-paths-name" => Moot("paths are looked up each time, which costs a microsecond"),
        "static-skip-ext" => lost("keep files that are not to be sent out of the directory"),
        key if key.starts_with("static-expires") => {
            lost("write static_expires = \"1h\" for all files; hashed names are kept for a year by themselves (static_immutable)")
        }
        "mount" => mount(line, whole),
        "manage-script-name" => Moot("SCRIPT_NAME and PATH_INFO always follow the mount"),
        "no-default-app" => Moot("paths of no mount are not found, unless there is an application for them"),
        "py-autoreload" | "py-auto-reload" if value != "0" => Options(vec![("reload", "auto".into())]),
        "touch-reload" | "touch-chain-reload" | "touch-workers-reload" => {
            lost("files are watched only in development (reload); send HUP when they have changed")
        }
        "stats" | "stats-server" | "stats-http" => {
            lost("there is no status socket; the access log as json and 'ps' have the figures")
        }
        "master-fifo" | "fifo" => lost("there is no fifo; signals do its work"),
        "gevent" | "async" | "ugreen" | "asyncio" | "gevent-monkey-patch" => {
            lost("there are no greenlets; use threads = N for the requests that wait at once")
        }
        "https" | "https-socket" | "hss" | "https2" => https(&value),
        "http2" | "ssl" => lost("there is no HTTP/2; nginx speaks it"),
        "ini" | "include" | "inherit" | "yaml" | "json" | "xml" => lost("only one file is read; translate that one as well"),
        key if key.starts_with("cheaper") => lost("the number of workers is fixed; TTIN and TTOU change it by hand"),
        key if key.starts_with("route") || key.starts_with("final-route") || key.starts_with("error-route") => {
            lost("rewrite in nginx")
        }
        key if key.starts_with("spooler") || key.starts_with("spool") => {
            lost("run tasks in a queue of their own, such as Celery or RQ")
        }
        key if key.starts_with("mule") || key.starts_with("farm") => lost("run the program by a unit of its own"),
        key if key.contains("cron") => lost("use cron or a timer of systemd"),
        key if key.starts_with("hook-")
            || key.starts_with("exec-")
            || key.starts_with("attach-daemon")
            || key.starts_with("smart-attach") =>
        {
            lost("run the program by a unit of its own (ExecStartPre= and the like)")
        }
        key if key.starts_with("cache") => lost("use Redis or memcached"),
        key if key.starts_with("emperor") || key.starts_with("vassal") => {
            lost("run a server for each application, as units of systemd")
        }
        _ => Unknown,
    }
}

/// `ADDRESS,CERTIFICATE,KEY[,CIPHERS[,CLIENT-CA]]`, each also behind its name; an exclamation mark in front of the last one means that
/// a client has to show a certificate.
fn https(value: &str) -> Counterpart {
    const NAMES: [&[&str]; 5] = [&["addr"], &["cert", "crt"], &["key"], &["ciphers"], &["clientca", "client_ca"]];
    let mut parts: [&str; 5] = [""; 5];
    for (index, part) in value.split(',').enumerate() {
        let named =
            part.split_once('=').and_then(|(name, part)| Some((NAMES.iter().position(|names| names.contains(&name))?, part)));
        let (place, part) = named.unwrap_or((index, part));
        if let Some(place) = parts.get_mut(place) {
            *place = part;
        }
    }
    let [socket, chain, key, ciphers, roots] = parts;
    if socket.is_empty() || chain.is_empty() || key.is_empty() {
        return Counterpart::Lost("has no certificate or no key; write bind, certfile and keyfile by hand".into());
    }
    let pair = [("certfile", chain.to_owned()), ("keyfile", key.to_owned())];
    let mut options = vec![("bind", format!("https:{}", address(socket)))];
    options.extend(pair);
    if !roots.is_empty() {
        let asked = if roots.starts_with('!') { "required" } else { "optional" };
        options.extend([("ca-certs", roots.trim_start_matches('!').to_owned()), ("cert-reqs", asked.to_owned())]);
    }
    match ciphers {
        "" => Counterpart::Options(options),
        _ => Counterpart::Partly(
            options,
            "ciphers are not chosen by hand: those of TLS 1.2 and 1.3 without known weaknesses are there",
        ),
    }
}

/// An address as `--bind` has it.
fn address(socket: &str) -> String {
    // `address,more=options`
    let socket = socket.split(',').next().unwrap_or(socket);
    let number = socket.rsplit(':').next().is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    match socket {
        _ if socket.starts_with("fd://") || socket.starts_with("unix:") => socket.into(),
        _ if socket.contains(':') && number => socket.replace("*:", ":"),
        _ => format!("unix:{socket}"),
    }
}

/// APP of a module or file, with the callable that another line names.
fn app(module: &str, whole: &Whole<'_>) -> String {
    match whole.value(&["callable"]) {
        Some(callable) if !module.contains(':') => format!("{module}:{callable}"),
        _ => module.into(),
    }
}

/// An application below a path. The first one has the paths of no mount as well, where no other line names an application.
fn mount(line: &Line, whole: &Whole<'_>) -> Counterpart {
    let Some((place, module)) = line.value.split_once('=') else {
        return Counterpart::Lost("has no = between path and application".into());
    };
    let module = app(module, whole);
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    // A port, or a name alone, would be compared with the whole of SCRIPT_NAME.
    if host.contains(':') || (path.is_empty() && !host.is_empty()) {
        return Counterpart::Lost(format!("write mount = [\"HOST:/PATH={module}\"], without a port"));
    }
    let path = if path.is_empty() { "/" } else { path };
    let is_everything = host.is_empty() && path == "/";
    let is_first = whole.lines.iter().find(|other| other.key == "mount").is_some_and(|first| first.number == line.number);
    let is_rest = whole.value(&["module", "wsgi", "w", "wsgi-file", "file"]).is_none();
    if is_everything && !is_rest {
        return Counterpart::Lost("has every path, as the application of another line has".into());
    }
    let has_rest = is_rest && (is_everything || (is_first && whole.value(&["no-default-app"]).is_none()));
    let colon = if host.is_empty() { "" } else { ":" };
    let rest = has_rest.then(|| ("app", module.clone()));
    let mount = (!is_everything).then(|| ("mount", format!("{host}{colon}{path}={module}")));
    Counterpart::Options(rest.into_iter().chain(mount).collect())
}

fn log(logger: &str, option: &'static str) -> Counterpart {
    // `name file:PATH` gives the logger a name.
    let logger = logger.rsplit(' ').next().unwrap_or(logger);
    match logger.split_once(':') {
        Some(("file", path)) => Counterpart::Options(vec![(option, path.into())]),
        Some(("stdio", _)) => Counterpart::Options(vec![(option, "-".into())]),
        _ if logger == "stdio" => Counterpart::Options(vec![(option, "-".into())]),
        _ if logger.starts_with("syslog") => Counterpart::Options(vec![("log-syslog", "/dev/log".into()), (option, "-".into())]),
        _ => Counterpart::Lost("logs go to files, to standard streams or to the system log of this machine".into()),
    }
}

/// Placeholders of uWSGI's log format and the atoms of the access log.
const ATOMS: [(&str, &str); 18] = [
    ("addr", "h"),
    ("user", "u"),
    ("ltime", "t"),
    ("ftime", "t"),
    ("ctime", "t"),
    ("method", "m"),
    ("uri", "{raw_uri}e"),
    ("proto", "H"),
    ("status", "s"),
    ("size", "B"),
    ("rsize", "B"),
    ("referer", "f"),
    ("uagent", "a"),
    ("msecs", "M"),
    ("micros", "D"),
    ("secs", "T"),
    ("pid", "p"),
    ("host", "{host}i"),
];

fn format(text: &str) -> Counterpart {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%(") {
        let Some((name, after)) = after.split_once(')') else { break };
        let Some((_, atom)) = ATOMS.iter().find(|(placeholder, _)| *placeholder == name) else {
            return Counterpart::Lost(format!("%({name}) has no atom; write --access-logformat by hand"));
        };
        out += &format!("{before}%({atom})s");
        rest = after;
    }
    Counterpart::Options(vec![("access-logformat", out + rest)])
}
