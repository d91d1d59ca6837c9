//! Rows: the processes.

use super::row::{ROW, keep, time_or_none};
use crate::config::options::bounds::{
    AGE_MIN, BODY_MAX, CONNECTIONS_MAX, REQUESTS_MAX, RSS_MIN, THREADS_MAX, WARMUP_REQUESTS_MAX, WORKERS_MAX,
};
use crate::config::options::option::{Opt, Section, ValueKind};
use crate::config::warmup::Warmup;
use crate::config::{reload, value};

pub(super) const ROWS: &[Opt] = &[
    Opt {
        name: "workers",
        short: Some('w'),
        value: "N",
        kind: ValueKind::Number,
        default: Some("auto"),
        help: "Number of worker processes; auto is one for each usable core, and one where a web server starts Tapster.",
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
        kind: ValueKind::Number,
        default: Some("1"),
        help: "Requests that one worker has in the application at once. With 1 the application runs in the main thread of its \
               process; with more it must be thread-safe, and a WebSocket takes one of them as long as it stands.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 1, THREADS_MAX).map(|n| s.threads = n as usize)),
        fixed: Some(|new, old| keep(&mut new.threads, &old.threads)),
        ..ROW
    },
    Opt {
        name: "max-queue",
        value: "NUM",
        kind: ValueKind::Number,
        default: Some("2048"),
        help: "Complete requests of one worker that may wait until the application has time for them; more are answered 503 with \
               Retry-After. With 0 none waits.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 0, CONNECTIONS_MAX).map(|n| s.max_queue = n as usize)),
        ..ROW
    },
    Opt {
        name: "no-lending",
        aliases: &["no-handoff"],
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Keep every connection in the worker that has accepted it. Without this, a worker that is busy hands the \
               connection of a request that would have to wait over to a worker that is free, and a worker that leaves hands over \
               its idle connections.",
        section: Section::Workers,
        set: Some(|s, v| value::flag(v).map(|flag| s.no_lending = flag)),
        ..ROW
    },
    Opt {
        name: "worker-connections",
        value: "N",
        kind: ValueKind::Number,
        default: Some("16384"),
        help: "Most open connections of one worker; while it has them, it accepts no more.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 1, CONNECTIONS_MAX).map(|n| s.worker_connections = n as usize)),
        ..ROW
    },
    Opt {
        name: "max-requests",
        value: "N",
        kind: ValueKind::Number,
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
        kind: ValueKind::Number,
        default: Some("0"),
        help: "Add a random number of requests up to this to --max-requests, for each worker its own.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 0, REQUESTS_MAX).map(|n| s.max_requests_jitter = n)),
        ..ROW
    },
    Opt {
        name: "max-worker-rss",
        value: "SIZE",
        kind: ValueKind::Number,
        default: Some("0"),
        help: "Replace a worker whose resident memory is above this; 0 never does. With --preload only memory counts that it does not share.",
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
        kind: ValueKind::Number,
        default: Some("0"),
        help: "Replace a worker that has served for this long; 0 never does.",
        section: Section::Workers,
        set: Some(|s, v| time_or_none(v, AGE_MIN).map(|time| s.max_worker_age = time)),
        ..ROW
    },
    Opt {
        name: "reload",
        value: "ENGINE",
        bare: Some("auto"),
        default: Some("off"),
        help: "For development: load the application again when its modules, its templates, a --reload-extra-file or the configuration \
               file change. Broken \
               code leaves the old one serving, and browsers are shown its traceback until it is mended. auto and inotify learn of \
               changes from the kernel; poll looks at the files each second, for file systems that the kernel hears nothing of. With \
               it the defaults are --workers 1, --timeout 0 and --boot-timeout 0; with a --boot-timeout a load that hangs has failed, \
               too. Refused under a service manager.",
        section: Section::Workers,
        set: Some(|s, v| reload::mode(v).map(|mode| s.reload = mode)),
        fixed: Some(|new, old| keep(&mut new.reload, &old.reload)),
        ..ROW
    },
    Opt {
        name: "debug",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "For development: serve from this very process, which has the terminal, so that breakpoint() and the debuggers of editors \
               work. There is no master: nothing is reloaded, nobody replaces the process when it dies, and options that need a master \
               are refused. It stops when its terminal hangs up. With it the defaults are --workers 1, --timeout 0, --boot-timeout 0 \
               and --control-socket none.",
        section: Section::Workers,
        set: Some(|s, v| value::flag(v).map(|flag| s.debug = flag)),
        fixed: Some(|new, old| keep(&mut new.debug, &old.debug)),
        ..ROW
    },
    Opt {
        name: "reload-engine",
        value: "ENGINE",
        default: Some("auto"),
        help: "How --reload without a value notices changes: auto, inotify or poll.",
        section: Section::Workers,
        set: Some(|s, v| reload::engine(v).map(|engine| s.reload_engine = engine)),
        fixed: Some(|new, old| keep(&mut new.reload_engine, &old.reload_engine)),
        ..ROW
    },
    Opt {
        name: "reload-extra-file",
        value: "FILE",
        kind: ValueKind::List,
        help: "With --reload, load the application again when this file changes, or any file in this directory (not below it). \
               Repeatable.",
        section: Section::Workers,
        separator: Some(','),
        clear: |s| s.reload_extra_files.clear(),
        set: Some(|s, v| value::path(v).map(|file| s.reload_extra_files.push(file))),
        ..ROW
    },
    Opt {
        name: "reload-surge",
        value: "N",
        kind: ValueKind::Number,
        default: Some("1"),
        help: "Most workers beyond --workers while a reload replaces them: more is faster and takes more memory.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 1, WORKERS_MAX).map(|n| s.reload_surge = n as usize)),
        ..ROW
    },
    Opt {
        name: "preload",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Load the application once, in a process of its own, the mold, of which the workers are forks: they share its memory, and a \
               worker that has died is back in some milliseconds. Threads and connections that the application has when it is loaded \
               are named in a warning, for they are no worker's own. A reload makes a new mold first. Without effect with --reload and --debug, \
               and for an object that a program serves.",
        section: Section::Workers,
        set: Some(|s, v| value::flag(v).map(|flag| s.preload = flag)),
        ..ROW
    },
    Opt {
        name: "boot-profile",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Tell in the error log how long each worker took to boot and which imports took longest; with --check-config, tell it \
               at once.",
        section: Section::Workers,
        set: Some(|s, v| value::flag(v).map(|flag| s.boot_profile = flag)),
        ..ROW
    },
    Opt {
        name: "warmup",
        value: "REQUEST",
        help: "Request that each worker, or with --preload the mold, sends to its own application before it says that it is ready, such as 'GET /healthz'; an \
               answer of 400 or above is a failed boot.",
        section: Section::Workers,
        set: Some(|s, v| Warmup::parse(v).map(|warmup| s.warmup = Some(warmup))),
        ..ROW
    },
    Opt {
        name: "warmup-requests",
        value: "N",
        kind: ValueKind::Number,
        default: Some("1"),
        help: "How often --warmup is asked. With --preload the mold is asked, and what it has made of the answers, such as compiled \
               templates and regular expressions, is shared by all workers; 200 leave little to be made.",
        section: Section::Workers,
        set: Some(|s, v| value::number(v, 1, WARMUP_REQUESTS_MAX).map(|n| s.warmup_requests = n)),
        ..ROW
    },
];
