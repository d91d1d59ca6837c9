//! Settings whose treatment depends on the value.

use super::Ruling;

/// Names of worker classes that are one thread for each request, or one for the whole process, as here.
const SYNC: [&str; 3] = ["sync", "gunicorn.workers.sync.SyncWorker", "egg:gunicorn#sync"];
const THREADS: [&str; 3] = ["gthread", "gunicorn.workers.gthread.ThreadWorker", "egg:gunicorn#gthread"];

/// The scheme's header that is believed here.
const SCHEME_HEADER: &str = "X-FORWARDED-PROTO";

pub(super) fn worker_class(class: &str) -> Ruling {
    let lower = class.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if class.is_empty() || SYNC.contains(&class) {
        return Ruling::Told("it is how workers are here, but slow clients do not occupy them".into());
    }
    if THREADS.contains(&class) {
        return Ruling::Told("every worker has threads; --threads says how many".into());
    }
    if has(&["gevent", "eventlet", "meinheld"]) {
        return Ruling::Missed(
            "there are no greenlets here: the application is called on threads, --threads of them in each worker, such as 16 for \
             requests that wait at once; nothing patches the library, so an application that needs it patched does that itself, \
             first of all and without threads (gevent.monkey.patch_all(thread=False))"
                .into(),
        );
    }
    let why = if has(&["uvicorn", "asgi", "aiohttp", "hypercorn", "daphne"]) {
        "runs ASGI applications, and this server runs WSGI ones; serve it with uvicorn, granian or hypercorn"
    } else if has(&["tornado"]) {
        "runs Tornado's loop, and this server runs WSGI applications; start the application with Tornado's own server"
    } else {
        "is a class of gunicorn's workers, whose code is not run here; leave it out, and use --threads N if it is about waiting"
    };
    Ruling::Refused(why.into())
}

pub(super) fn header_map(map: &str) -> Ruling {
    match map {
        "refuse" => Ruling::Missed(
            "a field with an underscore in its name never reaches the application, but its request is not refused".into(),
        ),
        _ => Ruling::Refused(
            "a field with an underscore in its name can pose as one that only the proxy may set, and never reaches the application; \
             leave it out, and let the client write a hyphen"
                .into(),
        ),
    }
}

pub(super) fn secure_scheme_headers(headers: &str) -> Ruling {
    let headers = headers.to_ascii_uppercase().replace(' ', "");
    if headers.contains(&format!("\"{SCHEME_HEADER}\":\"HTTPS\"")) {
        return Ruling::Told("X-Forwarded-Proto alone is believed, when --forwarded-allow-ips has the proxy, unless --trusted-proxy-headers says otherwise".into());
    }
    Ruling::Refused("the scheme is told by X-Forwarded-Proto, or by what --trusted-proxy-headers names; let the proxy send that, and leave this out".into())
}

pub(super) fn forwarder_headers(_: &str) -> Ruling {
    Ruling::Refused(
        "the fields of a trusted proxy that are believed are named by --trusted-proxy-headers, such as x-forwarded-prefix for \
         SCRIPT_NAME; leave this out"
            .into(),
    )
}

pub(super) fn logger_class(class: &str) -> Ruling {
    match class {
        "gunicorn.glogging.Logger" | "gunicorn.instrument.statsd.Statsd" => Ruling::Nothing,
        _ => Ruling::Refused(
            "no Python code runs for a line of the log; leave it out, and use --access-logformat (also json), --log-level and \
             --capture-output"
                .into(),
        ),
    }
}

pub(super) fn syslog_addr(address: &str) -> Ruling {
    let path = address.strip_prefix("unix://").map(|path| path.split('#').next().unwrap_or(path));
    match path {
        Some(path) => Ruling::Refused(format!("is part of another option here; write --log-syslog={path} instead of both")),
        None => Ruling::Refused(
            "records go to the unix socket of this machine's system log only; write --log-syslog, and let rsyslog or journald send \
             them on"
                .into(),
        ),
    }
}
