//! Rows: logs, running as a service, seeing and steering it, and the command itself.

use super::row::{ROW, keep};
use crate::config::bind::Endpoint;
use crate::config::control::ControlSocket;
use crate::config::logs::{Level, LogTarget};
use crate::config::options::bounds::READY_FD_MIN;
use crate::config::options::option::{Opt, Section, Sources, ValueKind};
use crate::config::statsd::{self, StatsdTarget};
use crate::config::value;

pub(super) const ROWS: &[Opt] = &[
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
        help: "Format of the access log: gunicorn's %(...)s atoms and %(Q)s, the microseconds that a request waited for a thread; or \
               json for one JSON object a line. %(t)s is when the request was complete (gunicorn: when its answer was).",
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
        set: Some(|s, v| Level::parse(v).map(|level| s.log_level = level)),
        ..ROW
    },
    Opt {
        name: "log-config",
        aliases: &["log-config-json"],
        value: "FILE",
        help: "Set up Python's logging by this file in each worker, before it loads the application: JSON for logging.config.dictConfig, \
               or what logging.config.fileConfig reads. The server's own logs stay as they are.",
        section: Section::Logs,
        set: Some(|s, v| value::log_config(v).map(|config| s.log_config = Some(config))),
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
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Write what the application, its libraries and the hooks of a gunicorn file print to standard output and standard error \
               to the error log, as one record for each line, whatever the log level.",
        section: Section::Logs,
        set: Some(|s, v| value::flag(v).map(|flag| s.capture_output = flag)),
        fixed: Some(|new, old| keep(&mut new.capture_output, &old.capture_output)),
        ..ROW
    },
    Opt {
        name: "daemon",
        short: Some('D'),
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Run in the background: the command returns when every worker is ready, or with the exit code and the reason when \
               the start has failed.",
        section: Section::Service,
        set: Some(|s, v| value::flag(v).map(|flag| s.daemon = flag)),
        fixed: Some(|new, old| keep(&mut new.daemon, &old.daemon)),
        ..ROW
    },
    Opt {
        name: "pid",
        short: Some('p'),
        value: "FILE",
        help: "Write the process id of the master to this file, and remove it at the end. If a running server has it, the start \
               is refused.",
        section: Section::Service,
        set: Some(|s, v| value::pid_file(v).map(|path| s.pid_file = Some(path))),
        fixed: Some(|new, old| keep(&mut new.pid_file, &old.pid_file)),
        ..ROW
    },
    Opt {
        name: "user",
        short: Some('u'),
        value: "USER",
        help: "Run the workers, and with them the application, as this user (name or number), with its groups and without any \
               capability. The master stays root: sockets, logs and the pid file are opened by it. The user must be able to read \
               Python, its packages and the application.",
        section: Section::Service,
        set: Some(|s, v| value::name(v).map(|user| s.user = Some(user))),
        fixed: Some(|new, old| keep(&mut new.user, &old.user)),
        ..ROW
    },
    Opt {
        name: "group",
        short: Some('g'),
        value: "GROUP",
        help: "Run the workers with this group (name or number) instead of the main one of the user.",
        section: Section::Service,
        set: Some(|s, v| value::name(v).map(|group| s.group = Some(group))),
        fixed: Some(|new, old| keep(&mut new.group, &old.group)),
        ..ROW
    },
    Opt {
        name: "name",
        short: Some('n'),
        value: "NAME",
        help: "Name of this server in the process titles, as in `tapster: master [NAME]`; without it, APP.",
        section: Section::Service,
        set: Some(|s, v| value::name(v).map(|name| s.name = Some(name))),
        fixed: Some(|new, old| keep(&mut new.name, &old.name)),
        ..ROW
    },
    Opt {
        name: "status-bind",
        value: "ADDRESS",
        kind: ValueKind::List,
        help: "Show figures here over HTTP, in the forms of --bind: a page at /, /status.json, /metrics for Prometheus, /health/live \
               and /health/ready for probes. The master answers, whatever the workers do. It shows the paths of requests to \
               whoever reaches the address, and takes no commands. Repeatable.",
        section: Section::Operations,
        separator: Some(','),
        clear: |s| s.status_binds.clear(),
        set: Some(|s, v| Endpoint::parse(v).map(|endpoint| s.status_binds.push(endpoint))),
        fixed: Some(|new, old| keep(&mut new.status_binds, &old.status_binds)),
        ..ROW
    },
    Opt {
        name: "statsd-host",
        value: "HOST:PORT",
        help: "Send metrics here by UDP, or to a unix datagram socket as unix://PATH, for statsd or DogStatsD: gunicorn's names \
               (gunicorn.requests, .request.status.N, .request.duration, .workers, .log.exception, .log.warning, .log.error, .log.critical), and tapster.threads.busy, \
               .requests.waiting and .worker.exits.CAUSE. The master sends them every 10 s, and never waits. A name is looked up at the \
               start and at a reload.",
        section: Section::Operations,
        set: Some(|s, v| StatsdTarget::parse(v).map(|target| s.statsd_host = Some(target))),
        ..ROW
    },
    Opt {
        name: "statsd-prefix",
        value: "PREFIX",
        default: Some(""),
        help: "Put this and a point in front of the names of metrics for statsd.",
        section: Section::Operations,
        set: Some(|s, v| statsd::prefix(v).map(|prefix| s.statsd_prefix = prefix)),
        ..ROW
    },
    Opt {
        name: "dogstatsd-tags",
        value: "TAGS",
        default: Some(""),
        help: "Give metrics for statsd these tags, as DogStatsD reads them: name:value,name:value.",
        section: Section::Operations,
        set: Some(|s, v| statsd::tags(v).map(|tags| s.dogstatsd_tags = tags)),
        ..ROW
    },
    Opt {
        name: "enable-backlog-metric",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Send gunicorn.backlog to statsd too: connections that wait to be accepted.",
        section: Section::Operations,
        set: Some(|s, v| value::flag(v).map(|flag| s.backlog_metric = flag)),
        ..ROW
    },
    Opt {
        name: "control-socket",
        value: "PATH",
        default: Some("auto"),
        help: "Listen for the commands (tapster status, reload, ...) on this unix socket; none turns it off. auto is NAME.ctl in the \
               first directory of these that is there and belongs to this user: $RUNTIME_DIRECTORY (systemd), \
               $XDG_RUNTIME_DIR/tapster, /run/tapster.",
        section: Section::Operations,
        set: Some(|s, v| ControlSocket::parse(v).map(|socket| s.control_socket = socket)),
        fixed: Some(|new, old| keep(&mut new.control_socket, &old.control_socket)),
        ..ROW
    },
    Opt {
        name: "control-socket-mode",
        value: "MODE",
        kind: ValueKind::Octal,
        default: Some("600"),
        help: "Mode of the control socket's file, in octal, 600 at least. Whoever may write to it may reload, stop and upgrade this server, and see \
               queries and clients of requests.",
        section: Section::Operations,
        set: Some(|s, v| value::socket_mode(v).map(|mode| s.control_socket_mode = mode)),
        fixed: Some(|new, old| keep(&mut new.control_socket_mode, &old.control_socket_mode)),
        ..ROW
    },
    Opt {
        name: "config",
        short: Some('c'),
        value: "FILE",
        help: "Read options from this TOML file: the same names, each with its value. A file in .py, file:PATH or python:MODULE is a \
               configuration file of gunicorn, which a process of its own executes; without this option, ./gunicorn.conf.py is one.",
        sources: Sources::NotFile,
        ..ROW
    },
    Opt {
        name: "check-config",
        kind: ValueKind::Switch,
        help: "Check the options, load the application, and exit: 0 when all is well, 2, 3 or 4 when not.",
        sources: Sources::CommandLine,
        ..ROW
    },
    Opt {
        name: "print-config",
        kind: ValueKind::Switch,
        help: "Print every option with its value and where that comes from, as a configuration file, and exit.",
        sources: Sources::CommandLine,
        ..ROW
    },
    Opt {
        name: "cgi",
        kind: ValueKind::Switch,
        help: "Answer one request as a CGI program, from the environment and standard input to standard output, and exit. It is \
               noticed without this where a web server has started Tapster so and no --bind is given.",
        sources: Sources::CommandLine,
        ..ROW
    },
    Opt {
        name: "ready-fd",
        value: "N",
        kind: ValueKind::Number,
        help: "Write READY, the addresses and a newline to this descriptor once every worker is ready; close it on failure.",
        set: Some(|s, v| value::number(v, READY_FD_MIN, i32::MAX as u64).map(|n| s.ready_fd = Some(n as i32))),
        fixed: Some(|new, old| keep(&mut new.ready_fd, &old.ready_fd)),
        ..ROW
    },
    Opt {
        name: "version",
        short: Some('V'),
        kind: ValueKind::Switch,
        help: "Print the version and exit.",
        sources: Sources::CommandLine,
        ..ROW
    },
    Opt {
        name: "help",
        short: Some('h'),
        kind: ValueKind::Switch,
        help: "Print this help and exit.",
        sources: Sources::CommandLine,
        ..ROW
    },
];
