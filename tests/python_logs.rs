//! What applications log by Python's `logging`: the loggers that reach the error log, and `--log-config`.

mod common;

use std::fs;

use common::server::Server;

const USAGE: i32 = 2;
const APP_FAILED: i32 = 4;

/// An application that logs in each request, as `logs` says; `setup` is run when it is loaded.
fn server(setup: &str, logs: &str) -> Server {
    Server::source(&format!(
        "import logging\n{setup}\n\
         def application(environ, start_response):\n    {logs}\n    \
         start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [b'ok']\n"
    ))
}

#[test]
fn handlers_of_gunicorns_loggers_reach_the_error_log() {
    let setup = "log = logging.getLogger('shop')\n\
                 log.handlers = logging.getLogger('gunicorn.error').handlers\n\
                 log.setLevel(logging.DEBUG)\n\
                 levels = [logging.getLogger(name).level for name in ('gunicorn.error', 'gunicorn.access', 'tapster')]\n";
    let logs = "log.info('sold %d', 3); log.debug('levels %s', levels)\n    \
                logging.getLogger('gunicorn.access').warning('a visitor')\n    \
                logging.getLogger('tapster').critical('from inside')\n    \
                try: 1 / 0\n    except ZeroDivisionError: log.exception('cannot divide \\ud800')";
    let mut server = server(setup, logs).options(["--log-level", "warning"]).start();
    assert_eq!(server.get("/").status, 200);
    let worker = server.workers()[0];
    let log = server.log().text();
    for (level, text) in [
        ("INFO", "sold 3"),
        ("DEBUG", "levels [30, 30, 30]"),
        ("WARNING", "a visitor"),
        ("CRITICAL", "from inside"),
        ("ERROR", "cannot divide"),
    ] {
        let expected = format!(" [{worker}] [worker 0] {level} {text}");
        assert!(log.contains(&expected), "{expected:?} is not in\n{log}");
    }
    assert!(log.contains("\n  ZeroDivisionError: division by zero\n"), "a traceback belongs to its record\n{log}");
    server.expect_error("from inside");
    server.expect_error("cannot divide");
    server.stop();
}

#[test]
fn an_application_with_a_module_of_that_name_is_left_alone() {
    let server = Server::source(
        "import logging\n\
         def application(environ, start_response):\n    \
         start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [logging.NAME]\n",
    );
    fs::write(server.temp().join("logging.py"), "NAME = b'mine'\n").expect("writable");
    let server = server.start();
    assert_eq!(server.get("/").text(), "mine");
    server.stop();
}

/// What an application that writes `sold` to the logger `shop` leaves in the file of the configuration.
#[track_caller]
fn logged(options: &[&str], name: &str, content: &str) -> String {
    let server = server("log = logging.getLogger('shop')\nlog.info('loading')\n", "log.info('sold')").options(options);
    let directory = server.temp().to_str().expect("UTF-8").to_owned();
    fs::write(server.temp().join(name), content.replace("{dir}", &directory)).expect("writable");
    let server = server.start();
    assert_eq!(server.get("/").status, 200);
    let text = fs::read_to_string(server.temp().join("shop.log")).expect("the configuration names it");
    server.stop();
    text
}

#[test]
fn logging_is_set_up_before_the_application_is_loaded() {
    let json = r#"{
        "formatters": {"short": {"format": "%(name)s %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": "{dir}/shop.log", "formatter": "short"}},
        "root": {"level": "INFO", "handlers": ["file"]}
    }"#;
    let ini = "[loggers]\nkeys=root\n[handlers]\nkeys=file\n[formatters]\nkeys=short\n\
               [logger_root]\nlevel=INFO\nhandlers=file\n\
               [handler_file]\nclass=FileHandler\nformatter=short\nargs=('%(here)s/shop.log',)\n\
               [formatter_short]\nformat=%(name)s %(message)s\n";
    let dict = "import sys\n\
                logconfig_dict = {\n    'formatters': {'short': {'format': '%(name)s %(message)s'}},\n    \
                'handlers': {\n        \
                'file': {'class': 'logging.FileHandler', 'filename': 'shop.log', 'formatter': 'short'},\n        \
                'out': {'class': 'logging.StreamHandler', 'stream': sys.stdout},\n    },\n    \
                'root': {'level': 'INFO', 'handlers': ['file', 'out']},\n}\n";
    assert_eq!(logged(&["--log-config-json", "log.json"], "log.json", json), "shop loading\nshop sold\n");
    assert_eq!(logged(&["--log-config", "log.ini"], "log.ini", ini), "shop loading\nshop sold\n");
    assert_eq!(logged(&[], "gunicorn.conf.py", dict), "shop loading\nshop sold\n");
}

#[test]
fn a_configuration_that_cannot_be_applied_ends_the_start() {
    let ended = server("", "pass").options(["--log-config", "none.ini"]).run_to_end();
    ended.failed(USAGE, &["--log-config none.ini: no such file or directory"]);
    let server = server("", "pass").options(["--log-config", "log.json"]);
    fs::write(server.temp().join("log.json"), r#"{"root": {"handlers": ["nowhere"]}}"#).expect("writable");
    server.run_to_end().failed(APP_FAILED, &["--log-config: log.json cannot be applied:", "nowhere"]);
}
