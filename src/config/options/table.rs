//! The rows, section by section.

use std::time::Duration;

use super::super::{AppSpec, Bind, LogTarget, Trusted, Warmup, value};
use super::bounds::{
    AGE_MIN, BACKLOG_MAX, BODY_BUFFER, BODY_MAX, CALL_TIMEOUT_MIN, CONNECTIONS_MAX, FIELDS_MAX, LINE_MAX, LINE_MIN, READY_FD_MIN,
    REQUESTS_MAX, RSS_MIN, THREADS_MAX, TIMEOUT_MAX, TIMEOUT_MIN, UMASK_MAX, WORKERS_MAX,
};
use super::{Kind, Opt, Section, Sources};

/// What most rows have.
const ROW: Opt = Opt {
    name: "",
    aliases: &[],
    short: None,
    value: "",
    kind: Kind::Text,
    bare: None,
    default: None,
    help: "",
    section: Section::Command,
    sources: Sources::All,
    foreign: None,
    separator: None,
    clear: |_| {},
    set: None,
};

/// Every option, in the order of `--help`.
pub static TABLE: &[Opt] = &[
    Opt {
        name: "app",
        value: "APP",
        kind: Kind::Positional,
        help: "What to serve: MODULE[:CALLABLE] or PATH.py[:CALLABLE] or PATH.wsgi[:CALLABLE]. CALLABLE is a name, a dotted \
               name, or a call of a factory with literals, such as make(\"x\", debug=True); without it `application`, then `app`. \
               Without APP a built-in welcome page is served.",
        section: Section::Application,
        set: Some(|s, v| AppSpec::parse(v).map(|app| s.app = app)),
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
        kind: Kind::List,
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
        kind: Kind::List,
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
        kind: Kind::List,
        default: Some("127.0.0.1:8000"),
        help: "Listen here: HOST:PORT, :PORT (all IPv4 addresses), [IPV6]:PORT, unix:PATH or fd://N (an inherited socket). The \
               port is 8000 when there is none; port 0 lets the kernel choose. Repeatable.",
        section: Section::Sockets,
        separator: Some(','),
        clear: |s| s.binds.clear(),
        set: Some(|s, v| Bind::parse(v).map(|bind| s.binds.push(bind))),
        ..ROW
    },
    Opt {
        name: "backlog",
        value: "N",
        kind: Kind::Number,
        default: Some("2048"),
        help: "Length of the queue of connections that wait to be accepted.",
        section: Section::Sockets,
        set: Some(|s, v| value::number(v, 1, BACKLOG_MAX).map(|n| s.backlog = n as u32)),
        ..ROW
    },
    Opt {
        name: "defer-accept",
        value: "TIME",
        kind: Kind::Number,
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
        ..ROW
    },
    Opt {
        name: "umask",
        short: Some('m'),
        value: "MODE",
        kind: Kind::Octal,
        help: "File mode mask in octal; without it the inherited one holds, and unix sockets are open to everybody.",
        section: Section::Sockets,
        set: Some(|s, v| value::octal(v, UMASK_MAX).map(|mask| s.umask = Some(mask))),
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
        name: "workers",
        short: Some('w'),
        value: "N",
        kind: Kind::Number,
        default: Some("auto"),
        help: "Number of worker processes; auto is one for each usable core.",
        section: Section::Workers,
        foreign: Some("WEB_CONCURRENCY"),
        set: Some(|s, v| {
            s.workers = match v {
                "auto" => None,
                _ => Some(value::number(v, 1, WORKERS_MAX).map_err(|why| format!("{why}, or auto"))? as usize),
            };
            Ok(())
        }),
        ..ROW
    },
    Opt {
        name: "threads",
        value: "NUM",
        kind: Kind::Number,
        default: Some("1"),
        help: "Requests that one worker has in the application at once. With 1 the application runs in the main thread of its \
               process; with more it must be thread-safe.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 1, THREADS_MAX).map(|n| s.threads = n as usize)),
        ..ROW
    },
    Opt {
        name: "max-queue",
        value: "NUM",
        kind: Kind::Number,
        default: Some("2048"),
        help: "Complete requests of one worker that may wait until the application has time for them; more are answered 503 with \
               Retry-After. With 0 none waits.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 0, CONNECTIONS_MAX).map(|n| s.max_queue = n as usize)),
        ..ROW
    },
    Opt {
        name: "worker-connections",
        value: "N",
        kind: Kind::Number,
        default: Some("16384"),
        help: "Most open connections of one worker; while it has them, it accepts no more.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 1, CONNECTIONS_MAX).map(|n| s.worker_connections = n as usize)),
        ..ROW
    },
    Opt {
        name: "max-requests",
        value: "N",
        kind: Kind::Number,
        default: Some("0"),
        help: "Replace a worker after this many requests; 0 never does. One worker at a time, and the new one is ready before the \
               old one drains.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 0, REQUESTS_MAX).map(|n| s.max_requests = n)),
        ..ROW
    },
    Opt {
        name: "max-requests-jitter",
        value: "N",
        kind: Kind::Number,
        default: Some("0"),
        help: "Add a random number of requests up to this to --max-requests, for each worker its own.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 0, REQUESTS_MAX).map(|n| s.max_requests_jitter = n)),
        ..ROW
    },
    Opt {
        name: "max-worker-rss",
        value: "SIZE",
        kind: Kind::Number,
        default: Some("0"),
        help: "Replace a worker whose resident memory is above this; 0 never does.",
        section: Section::Workers,
        set: Some(|s, v| {
            let size = value::size(v, 0, BODY_MAX)?;
            if (1..RSS_MIN).contains(&size) {
                return Err(format!("must be at least {}M, or 0 for no limit", RSS_MIN >> 20));
            }
            s.max_worker_rss = size;
            Ok(())
        }),
        ..ROW
    },
    Opt {
        name: "max-worker-age",
        value: "TIME",
        kind: Kind::Number,
        default: Some("0"),
        help: "Replace a worker that has served for this long; 0 never does.",
        section: Section::Workers,
        set: Some(|s, v| time_or_none(v, AGE_MIN).map(|time| s.max_worker_age = time)),
        ..ROW
    },
    Opt {
        name: "reload-surge",
        value: "N",
        kind: Kind::Number,
        default: Some("1"),
        help: "Most workers beyond --workers while a reload replaces them: more is faster and takes more memory.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 1, WORKERS_MAX).map(|n| s.reload_surge = n as usize)),
        ..ROW
    },
    Opt {
        name: "warmup",
        value: "REQUEST",
        help: "Request that each worker sends to its own application before it says that it is ready, such as 'GET /healthz'; an \
               answer of 400 or above is a failed boot.",
        section: Section::Workers,
        set: Some(|s, v| Warmup::parse(v).map(|warmup| s.warmup = Some(warmup))),
        ..ROW
    },
    Opt {
        name: "timeout",
        short: Some('t'),
        value: "TIME",
        kind: Kind::Number,
        default: Some("30s"),
        help: "How long the application may run for one request, or for one block of a streamed answer; beyond it the log gets the \
               request and the Python stacks, and the worker is replaced. 0 is no limit.",
        section: Section::Timeouts,
        set: Some(|s, v| time_or_none(v, CALL_TIMEOUT_MIN).map(|time| s.timeout = time)),
        ..ROW
    },
    Opt {
        name: "boot-timeout",
        value: "TIME",
        kind: Kind::Number,
        default: Some("60s"),
        help: "How long a worker may take to load the application and to answer --warmup. 0 is no limit.",
        section: Section::Timeouts,
        set: Some(|s, v| time_or_none(v, CALL_TIMEOUT_MIN).map(|time| s.boot_timeout = time)),
        ..ROW
    },
    Opt {
        name: "graceful-timeout",
        value: "TIME",
        kind: Kind::Number,
        default: Some("30s"),
        help: "How long workers may take to finish their requests when they leave: at a graceful stop, a reload, a replacement.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, Duration::ZERO, TIMEOUT_MAX).map(|time| s.graceful_timeout = time)),
        ..ROW
    },
    Opt {
        name: "keep-alive",
        value: "TIME",
        kind: Kind::Number,
        default: Some("5s"),
        help: "How long an idle connection is kept for the next request; 0 closes after each answer.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, Duration::ZERO, TIMEOUT_MAX).map(|time| s.keep_alive = time)),
        ..ROW
    },
    Opt {
        name: "header-timeout",
        value: "TIME",
        kind: Kind::Number,
        default: Some("30s"),
        help: "Time for the whole head of a request; beyond it the answer is 408.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, TIMEOUT_MIN, TIMEOUT_MAX).map(|time| s.header_timeout = time)),
        ..ROW
    },
    Opt {
        name: "body-timeout",
        value: "TIME",
        kind: Kind::Number,
        default: Some("60s"),
        help: "Longest pause of a client within a request body; beyond it the answer is 408.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, TIMEOUT_MIN, TIMEOUT_MAX).map(|time| s.body_timeout = time)),
        ..ROW
    },
    Opt {
        name: "queue-timeout",
        value: "TIME",
        kind: Kind::Number,
        default: Some("30s"),
        help: "Longest time that a complete request may wait until the application has time for it; beyond it 503 with \
               Retry-After. 0 = no limit.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, Duration::ZERO, TIMEOUT_MAX).map(|time| s.queue_timeout = time)),
        ..ROW
    },
    Opt {
        name: "write-timeout",
        value: "TIME",
        kind: Kind::Number,
        default: Some("60s"),
        help: "Longest time that a client may take no byte of its answer; beyond it the connection is closed.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, TIMEOUT_MIN, TIMEOUT_MAX).map(|time| s.write_timeout = time)),
        ..ROW
    },
    Opt {
        name: "limit-request-line",
        value: "SIZE",
        kind: Kind::Number,
        default: Some("8190"),
        help: "Longest request line in bytes; beyond it the answer is 414. 0 stands for 1M, the highest limit.",
        section: Section::Limits,
        set: Some(|s, v| line_size(v).map(|n| s.limit_request_line = n)),
        ..ROW
    },
    Opt {
        name: "limit-request-fields",
        value: "N",
        kind: Kind::Number,
        default: Some("100"),
        help: "Most header fields; beyond it the answer is 431. 0 stands for 32768, the highest limit.",
        section: Section::Limits,
        set: Some(|s, v| {
            let fields = value::number(v, 0, FIELDS_MAX)?;
            s.limit_request_fields = if fields == 0 { FIELDS_MAX } else { fields } as usize;
            Ok(())
        }),
        ..ROW
    },
    Opt {
        name: "limit-request-field_size",
        aliases: &["limit-request-field-size"],
        value: "SIZE",
        kind: Kind::Number,
        default: Some("8190"),
        help: "Longest header field in bytes, name and value together; beyond it the answer is 431. 0 stands for 1M, the highest \
               limit. All together may have 16M.",
        section: Section::Limits,
        set: Some(|s, v| line_size(v).map(|n| s.limit_request_field_size = n)),
        ..ROW
    },
    Opt {
        name: "limit-request-body",
        value: "SIZE",
        kind: Kind::Number,
        default: Some("1G"),
        help: "Largest request body in bytes; beyond it the answer is 413. 0 is no limit.",
        section: Section::Limits,
        set: Some(|s, v| value::size(v, 0, BODY_MAX).map(|n| s.limit_request_body = n)),
        ..ROW
    },
    Opt {
        name: "body-buffer",
        value: "SIZE",
        kind: Kind::Number,
        default: Some("512k"),
        help: "Bytes of a request body kept in memory; a larger body goes to a temporary file.",
        section: Section::Limits,
        set: Some(|s, v| value::size(v, BODY_BUFFER.0, BODY_BUFFER.1).map(|n| s.body_buffer = n as usize)),
        ..ROW
    },
    Opt {
        name: "access-logfile",
        value: "FILE",
        default: Some("none"),
        help: "Write the access log here; - is standard output, none turns it off.",
        section: Section::Logs,
        set: Some(|s, v| value::log_target(v, LogTarget::Stdout).map(|target| s.access_log = target)),
        ..ROW
    },
    Opt {
        name: "access-logformat",
        value: "FORMAT",
        default: Some(r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#),
        help: "Format of the access log: gunicorn's %(...)s atoms, or json for one JSON object a line.",
        section: Section::Logs,
        set: Some(|s, v| value::access_format(v).map(|format| s.access_format = format)),
        ..ROW
    },
    Opt {
        name: "error-logfile",
        aliases: &["log-file"],
        value: "FILE",
        default: Some("-"),
        help: "Write the error log here; - is standard error.",
        section: Section::Logs,
        set: Some(|s, v| {
            let target = value::log_target(v, LogTarget::Stderr)?;
            s.error_log = target.ok_or("cannot be turned off; give a file, or - for standard error")?;
            Ok(())
        }),
        ..ROW
    },
    Opt {
        name: "log-level",
        value: "LEVEL",
        default: Some("info"),
        help: "Least severity that the error log records: debug, info, warning, error or critical.",
        section: Section::Logs,
        set: Some(|s, v| value::level(v).map(|level| s.log_level = level)),
        ..ROW
    },
    Opt {
        name: "log-syslog",
        value: "PATH",
        bare: Some("/dev/log"),
        help: "Send the logs that would go to standard output or standard error to the system log instead, as RFC 5424 datagrams \
               to this unix socket.",
        section: Section::Logs,
        set: Some(|s, v| value::path(v).map(|path| s.syslog = Some(path))),
        ..ROW
    },
    Opt {
        name: "capture-output",
        kind: Kind::Flag,
        default: Some("false"),
        help: "Write what the application and its libraries print to standard output and standard error to the error log, as one \
               record for each line, whatever the log level.",
        section: Section::Logs,
        set: Some(|s, v| value::flag(v).map(|flag| s.capture_output = flag)),
        ..ROW
    },
    Opt {
        name: "daemon",
        short: Some('D'),
        kind: Kind::Flag,
        default: Some("false"),
        help: "Run in the background: the command returns when every worker is ready, or with the exit code and the reason when \
               the start has failed.",
        section: Section::Service,
        set: Some(|s, v| value::flag(v).map(|flag| s.daemon = flag)),
        ..ROW
    },
    Opt {
        name: "pid",
        short: Some('p'),
        value: "FILE",
        help: "Write the process id of the master to this file, and remove it at the end. If it names a running server, the start \
               is refused.",
        section: Section::Service,
        set: Some(|s, v| value::path(v).map(|path| s.pid_file = Some(path))),
        ..ROW
    },
    Opt {
        name: "user",
        short: Some('u'),
        value: "USER",
        help: "Run the workers, and with them the application, as this user (name or number), with its groups and without any \
               capability. The master stays root: sockets, logs and the pid file are opened by it.",
        section: Section::Service,
        set: Some(|s, v| value::name(v).map(|user| s.user = Some(user))),
        ..ROW
    },
    Opt {
        name: "group",
        short: Some('g'),
        value: "GROUP",
        help: "Run the workers with this group (name or number) instead of the main one of the user.",
        section: Section::Service,
        set: Some(|s, v| value::name(v).map(|group| s.group = Some(group))),
        ..ROW
    },
    Opt {
        name: "name",
        short: Some('n'),
        value: "NAME",
        help: "Name of this server in the process titles, as in `tapster: master [NAME]`; without it, APP.",
        section: Section::Service,
        set: Some(|s, v| value::name(v).map(|name| s.name = Some(name))),
        ..ROW
    },
    Opt {
        name: "config",
        short: Some('c'),
        value: "FILE",
        help: "Read options from this TOML file: the same names, each with its value.",
        sources: Sources::NotFile,
        ..ROW
    },
    Opt {
        name: "check-config",
        kind: Kind::Switch,
        help: "Check the options, load the application, and exit: 0 when all is well, 2 or 4 when not.",
        sources: Sources::CommandLine,
        ..ROW
    },
    Opt {
        name: "print-config",
        kind: Kind::Switch,
        help: "Print every option with its value and where that comes from, as a configuration file, and exit.",
        sources: Sources::CommandLine,
        ..ROW
    },
    Opt {
        name: "ready-fd",
        value: "N",
        kind: Kind::Number,
        help: "Write READY, the addresses and a newline to this descriptor once every worker is ready; close it on failure.",
        set: Some(|s, v| value::number(v, READY_FD_MIN, i32::MAX as u64).map(|n| s.ready_fd = Some(n as i32))),
        ..ROW
    },
    Opt {
        name: "version",
        short: Some('V'),
        kind: Kind::Switch,
        help: "Print the version and exit.",
        sources: Sources::CommandLine,
        ..ROW
    },
    Opt {
        name: "help",
        short: Some('h'),
        kind: Kind::Switch,
        help: "Print this help and exit.",
        sources: Sources::CommandLine,
        ..ROW
    },
];

/// A duration of at least `min`, or 0 for none.
fn time_or_none(text: &str, min: Duration) -> Result<Duration, String> {
    let time = value::duration(text, Duration::ZERO, TIMEOUT_MAX)?;
    if time.is_zero() || time >= min { Ok(time) } else { Err(format!("must be at least {}ms, or 0 for none", min.as_millis())) }
}

/// The limit of one line of a head.
fn line_size(text: &str) -> Result<usize, String> {
    match value::size(text, 0, LINE_MAX)? {
        0 => Ok(LINE_MAX as usize),
        n if n < LINE_MIN => Err(format!("must be at least {LINE_MIN} bytes, or 0 for the highest limit")),
        n => Ok(n as usize),
    }
}
