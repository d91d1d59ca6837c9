//! The table, in groups by what becomes of a setting. Defaults, flags and their meaning: gunicorn/config.py of the version that
//! [`VERSION`](super::VERSION) names.

use super::judged;
use super::{Ruling, Setting, Treatment};

const ROW: Setting =
    Setting { name: "", flags: &[], short: None, switch: false, off: false, plain: "", treatment: Treatment::Hook };

/// A setting that is an option.
const fn option(name: &'static str, option: &'static str) -> Setting {
    Setting { name, treatment: Treatment::Option(option), ..ROW }
}

/// A setting with a value.
const fn valued(name: &'static str, flags: &'static [&'static str], plain: &'static str, treatment: Treatment) -> Setting {
    Setting { name, flags, plain, treatment, ..ROW }
}

/// A setting that is on or off.
const fn switch(name: &'static str, flags: &'static [&'static str], treatment: Treatment) -> Setting {
    Setting { name, flags, switch: true, treatment, ..ROW }
}

/// A function of the file.
const fn hook(name: &'static str) -> Setting {
    Setting { name, ..ROW }
}

/// A treatment that depends on the value; `about` says in the manual page how.
const fn judge(about: &'static str, judge: fn(&str) -> Ruling) -> Treatment {
    Treatment::Judged { about, judge }
}

const NO_GREENLETS: Treatment = Treatment::Told("only worker classes for ASGI use it, and this server runs WSGI applications");
const HTTP2: Treatment = Treatment::Refused(
    "there is no HTTP/2 here; let nginx or another server in front speak it, and pass requests on with HTTP/1.1",
);
const HTTP2_DETAIL: Treatment = Treatment::Told("belongs to HTTP/2, which the server in front speaks");
const DIRTY: Treatment = Treatment::Refused(
    "there are no dirty workers here; run long tasks in a queue of their own, such as Celery or RQ, and leave it out",
);
const DIRTY_DETAIL: Treatment = Treatment::Told("belongs to dirty workers, which are not here");
const SMUGGLING: Treatment =
    Treatment::Refused("lets through what HTTP forbids and attackers use; leave it out, and mend the client that needs it");
const PASTE: Treatment = Treatment::Refused(
    "PasteDeploy files are not read; name a module that calls paste.deploy.loadapp, such as wsgi.py with \
     application = loadapp('config:/path/production.ini')",
);

/// Every setting of gunicorn.
pub static SETTINGS: &[Setting] = &[
    // The same under the same name.
    option("backlog", "backlog"),
    option("bind", "bind"),
    option("ca_certs", "ca-certs"),
    option("capture_output", "capture-output"),
    option("certfile", "certfile"),
    option("chdir", "chdir"),
    option("check_config", "check-config"),
    option("config", "config"),
    option("control_socket", "control-socket").unless("gunicorn.ctl"),
    option("control_socket_mode", "control-socket-mode"),
    option("daemon", "daemon"),
    option("forwarded_allow_ips", "forwarded-allow-ips"),
    option("graceful_timeout", "graceful-timeout"),
    option("group", "group"),
    option("keyfile", "keyfile"),
    option("limit_request_field_size", "limit-request-field_size"),
    option("limit_request_fields", "limit-request-fields"),
    option("limit_request_line", "limit-request-line"),
    option("max_requests", "max-requests"),
    option("max_requests_jitter", "max-requests-jitter"),
    option("print_config", "print-config"),
    option("protocol", "protocol"),
    option("proxy_protocol", "proxy-protocol"),
    option("pythonpath", "pythonpath"),
    option("reload", "reload"),
    option("reload_engine", "reload-engine"),
    option("root_path", "root-path"),
    option("threads", "threads"),
    option("timeout", "timeout"),
    option("umask", "umask"),
    option("user", "user"),
    option("worker_connections", "worker-connections"),
    option("workers", "workers"),
    // The same under the name that gunicorn has in files; the flags are those of the option.
    option("access_log_format", "access-logformat"),
    option("accesslog", "access-logfile"),
    option("errorlog", "error-logfile"),
    option("keepalive", "keep-alive"),
    option("logconfig", "log-config"),
    option("logconfig_dict", "log-config").unless("{}"),
    option("logconfig_json", "log-config"),
    option("loglevel", "log-level"),
    option("pidfile", "pid"),
    option("preload_app", "preload"),
    option("proc_name", "name"),
    option("proxy_allow_ips", "proxy-allow-from"),
    option("raw_env", "env"),
    option("reload_extra_files", "reload-extra-file"),
    option("syslog", "log-syslog"),
    option("uwsgi_allow_ips", "gateway-allow-from"),
    option("wsgi_app", "app"),
    // Accepted.
    Setting {
        short: Some('k'),
        ..valued(
            "worker_class",
            &["worker-class"],
            "",
            judge(
                "sync and gthread are how workers are here, and accepted; classes with greenlets are accepted with a warning, since the application \
                 is called on threads, and nothing patches the library; classes for ASGI are refused",
                judged::worker_class,
            ),
        )
    },
    valued(
        "worker_tmp_dir",
        &["worker-tmp-dir"],
        "",
        Treatment::Told("workers write no heartbeat file; how they are is in memory that the master has too"),
    ),
    valued(
        "tmp_upload_dir",
        &[],
        "",
        Treatment::Missed("large bodies go to the directory that TMPDIR names in the environment of the server; set that"),
    ),
    valued("http_parser", &["http-parser"], "auto", Treatment::Told("there is one parser, and it is compiled")),
    switch(
        "reuse_port",
        &["reuse-port"],
        Treatment::Told("the workers share one listening socket, and the kernel wakes one of them for each connection"),
    ),
    Setting {
        short: Some('R'),
        ..switch(
            "enable_stdio_inheritance",
            &["enable-stdio-inheritance"],
            Treatment::Told("standard output and error are always inherited; --capture-output puts them into the error log"),
        )
    },
    valued(
        "sendfile",
        &["no-sendfile"],
        "True",
        Treatment::Told(
            "files of wsgi.file_wrapper are always sent with sendfile(2) where that can be done, and read and sent where it cannot",
        ),
    )
    .turned_off(),
    switch(
        "disable_redirect_access_to_syslog",
        &["disable-redirect-access-to-syslog"],
        Treatment::Told("--log-syslog takes only what would go to standard output or error; give --access-logfile a file"),
    ),
    valued("default_proc_name", &[], "gunicorn", Treatment::Told("--name names the processes, and without it APP does")),
    switch("initgroups", &["initgroups"], Treatment::Told("with --user the workers always have the groups of that user")),
    switch(
        "control_socket_disable",
        &["no-control-socket"],
        Treatment::Missed("the control socket is there where it has a place; --control-socket none turns it off"),
    ),
    valued("asgi_loop", &["asgi-loop"], "auto", NO_GREENLETS),
    valued("asgi_lifespan", &["asgi-lifespan"], "auto", NO_GREENLETS),
    valued("asgi_disconnect_grace_period", &["asgi-disconnect-grace-period"], "3", NO_GREENLETS),
    valued("websocket_max_message_size", &["websocket-max-message-size"], "16777216", NO_GREENLETS),
    valued(
        "syslog_prefix",
        &["log-syslog-prefix"],
        "",
        Treatment::Missed("records of the system log have the name tapster; select them by it"),
    ),
    valued(
        "syslog_facility",
        &["log-syslog-facility"],
        "user",
        Treatment::Missed("records of the system log have the facility daemon; select them by that or by the name tapster"),
    ),
    valued(
        "header_map",
        &["header-map"],
        "drop",
        judge("drop is what is done; refuse is accepted, and dangerous is refused", judged::header_map),
    ),
    valued(
        "secure_scheme_headers",
        &[],
        "",
        judge("accepted if X-Forwarded-Proto is among them, which alone is believed", judged::secure_scheme_headers),
    ),
    valued(
        "forwarder_headers",
        &["forwarder-headers"],
        "SCRIPT_NAME,PATH_INFO",
        judge("refused unless it is gunicorn's default", judged::forwarder_headers),
    ),
    switch(
        "suppress_ragged_eofs",
        &["suppress-ragged-eofs"],
        Treatment::Told("a connection of TLS that ends without a word of its end is cut, and no exception of the application's"),
    )
    .unless("True"),
    switch(
        "do_handshake_on_connect",
        &["do-handshake-on-connect"],
        Treatment::Told("handshakes of TLS wait for nobody and nobody for them; --header-timeout bounds them"),
    ),
    valued(
        "ssl_version",
        &["ssl-version"],
        "2",
        Treatment::Missed("TLS 1.2 and 1.3 are spoken; --tls-min 1.3 leaves out the older one"),
    ),
    option("cert_reqs", "cert-reqs"),
    valued(
        "ciphers",
        &["ciphers"],
        "",
        Treatment::Refused(
            "ciphers are not chosen by hand: of TLS 1.2 and 1.3 only those are there that keep earlier connections secret and have no \
             known weakness; leave it out, or give --tls-min 1.3",
        ),
    ),
    valued("http2_cleartext", &["http2-cleartext"], "off", HTTP2),
    valued("http2_max_concurrent_streams", &["http2-max-concurrent-streams"], "100", HTTP2_DETAIL),
    valued("http2_initial_window_size", &["http2-initial-window-size"], "65535", HTTP2_DETAIL),
    valued("http2_max_frame_size", &["http2-max-frame-size"], "16384", HTTP2_DETAIL),
    valued("http2_max_header_list_size", &["http2-max-header-list-size"], "65536", HTTP2_DETAIL),
    valued("dirty_workers", &["dirty-workers"], "0", DIRTY),
    valued("dirty_timeout", &["dirty-timeout"], "300", DIRTY_DETAIL),
    valued("dirty_threads", &["dirty-threads"], "1", DIRTY_DETAIL),
    valued("dirty_graceful_timeout", &["dirty-graceful-timeout"], "30", DIRTY_DETAIL),
    // Refused.
    valued(
        "logger_class",
        &["logger-class"],
        "gunicorn.glogging.Logger",
        judge(
            "a class of the application's own is refused, because no Python code runs for a line of the log",
            judged::logger_class,
        ),
    ),
    valued(
        "syslog_addr",
        &["log-syslog-to"],
        "",
        judge("refused with what to write; only unix sockets of this machine are written to", judged::syslog_addr),
    ),
    option("statsd_host", "statsd-host"),
    option("statsd_prefix", "statsd-prefix"),
    option("dogstatsd_tags", "dogstatsd-tags"),
    option("enable_backlog_metric", "enable-backlog-metric"),
    valued("paste", &["paste", "paster"], "", PASTE),
    valued("raw_paste_global_conf", &["paste-global"], "", PASTE),
    valued(
        "ssl_context",
        &[],
        "",
        Treatment::Refused(
            "no Python code has a part in TLS; leave it out, and give --certfile and --keyfile, once for each name, --ca-certs, --cert-reqs \
             and --tls-min",
        ),
    ),
    valued("http_protocols", &["http-protocols"], "h1", HTTP2),
    valued("dirty_apps", &["dirty-app"], "", DIRTY),
    switch(
        "spew",
        &["spew"],
        Treatment::Refused("no trace of every line is written; use --log-level debug, or a debugger such as py-spy on a worker"),
    ),
    switch("permit_obsolete_folding", &["permit-obsolete-folding"], SMUGGLING),
    switch("strip_header_spaces", &["strip-header-spaces"], SMUGGLING),
    switch(
        "permit_unconventional_http_method",
        &["permit-unconventional-http-method"],
        Treatment::Refused("methods are tokens as RFC 9110 has them, of any case and length; leave it out"),
    ),
    switch("permit_unconventional_http_version", &["permit-unconventional-http-version"], SMUGGLING),
    switch(
        "casefold_http_method",
        &["casefold-http-method"],
        Treatment::Refused("methods are case-sensitive (RFC 9110 section 9.1); leave it out, and mend the client that needs it"),
    ),
    // Functions of the file.
    hook("on_starting"),
    hook("on_reload"),
    hook("when_ready"),
    hook("pre_fork"),
    hook("post_fork"),
    hook("post_worker_init"),
    hook("worker_int"),
    hook("worker_abort"),
    hook("pre_exec"),
    hook("pre_request"),
    hook("post_request"),
    hook("child_exit"),
    hook("worker_exit"),
    hook("nworkers_changed"),
    hook("on_exit"),
    hook("on_dirty_starting"),
    hook("dirty_post_fork"),
    hook("dirty_worker_init"),
    hook("dirty_worker_exit"),
];

impl Setting {
    /// Its flag stands alone, and turns it off.
    const fn turned_off(self) -> Self {
        Self { switch: true, off: true, ..self }
    }

    /// This value asks for nothing.
    const fn unless(self, plain: &'static str) -> Self {
        Self { plain, ..self }
    }
}
