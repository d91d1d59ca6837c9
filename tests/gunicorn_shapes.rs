//! The shapes of what people write for gunicorn: configuration files and command lines with the settings that are common, each as
//! often as it is in public repositories. Served, or refused with the right reason.

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;
use tapster::config::gunicorn::split;

use common::server::{Running, Server, binary};

/// What is to come of a shape.
#[derive(Clone, Copy)]
enum Expected {
    /// It is served, and the log has these parts.
    Served(&'static [&'static str]),
    /// It is refused before anything is bound, and the message has this.
    Refused(&'static str),
}

use Expected::{Refused, Served};

const THREADS: &str = "every worker has threads";

/// Configuration files; `{dir}` is the directory of the application.
const FILES: [(&str, Expected); 18] = [
    ("bind = '127.0.0.1:0'\nworkers = 2\n", Served(&[])),
    (
        "import multiprocessing\n\nbind = '0.0.0.0:0'\nworkers = multiprocessing.cpu_count() * 2 + 1\nworker_class = 'sync'\n\
         timeout = 30\nkeepalive = 2\nerrorlog = '-'\nloglevel = 'info'\naccesslog = '-'\n",
        Served(&["worker_class = sync"]),
    ),
    (
        "import os\n\nbind = f\"0.0.0.0:{os.environ.get('PORT', '8000')}\"\nworkers = int(os.environ.get('WEB_CONCURRENCY', 2))\n\
         threads = int(os.getenv('PYTHON_MAX_THREADS', 4))\nworker_class = 'gthread'\ntimeout = 120\naccesslog = '-'\nerrorlog = '-'\n\
         max_requests = 1000\nmax_requests_jitter = 50\npreload_app = True\n",
        Served(&[THREADS]),
    ),
    ("bind = 'unix:{dir}/app.sock'\nworkers = 3\ntimeout = 60\nproc_name = 'shop'\nloglevel = 'error'\n", Served(&[])),
    (
        "pythonpath = '{dir}'\nbind = '127.0.0.1:0'\nworkers = 2\nuser = None\naccesslog = '{dir}/access.log'\n\
         errorlog = '{dir}/error.log'\ncapture_output = True\nenable_stdio_inheritance = True\n",
        Served(&[]),
    ),
    (
        "# Gunicorn configuration\nbind = ['127.0.0.1:0']\nbacklog = 2048\n\nworkers = 2\nworker_class = 'sync'\n\
         worker_connections = 1000\ntimeout = 30\nkeepalive = 2\n\nspew = False\n\ndaemon = False\npidfile = None\numask = 0\nuser = None\n\
         group = None\ntmp_upload_dir = None\n\nerrorlog = '-'\nloglevel = 'info'\naccesslog = '-'\n\
         access_log_format = '%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s \"%(f)s\" \"%(a)s\"'\n\nproc_name = None\n\n\
         def post_fork(server, worker):\n    server.log.info('Worker spawned (pid: %s)', worker.pid)\n\n\
         def pre_fork(server, worker):\n    pass\n\ndef when_ready(server):\n    server.log.info('Server is ready')\n",
        Served(&["Worker spawned (pid: "]),
    ),
    (
        "bind = '127.0.0.1:0'\nworkers = 1\nthreads = 8\ntimeout = 0\nworker_tmp_dir = '/dev/shm'\nlog_file = '-'\naccesslog = '-'\n",
        Served(&["worker_tmp_dir = /dev/shm"]),
    ),
    (
        "import os\nfrom pathlib import Path\n\nBASE = Path(__file__).parent\nchdir = str(BASE)\nbind = '127.0.0.1:0'\nworkers = 2\n\
         raw_env = ['SETTINGS=production']\npreload_app = True\ngraceful_timeout = 30\nreload = os.environ.get('DEBUG') == '1'\n",
        Served(&[]),
    ),
    (
        "wsgi_app = 'app:app'\nbind = '127.0.0.1:0'\nworkers = 2\nforwarded_allow_ips = '*'\n\
         secure_scheme_headers = {'X-FORWARDED-PROTO': 'https'}\nproxy_protocol = False\n",
        Served(&["X-Forwarded-Proto alone is believed"]),
    ),
    (
        "import multiprocessing\nmax_requests = 1000\nmax_requests_jitter = 50\nlog_file = '-'\nbind = '127.0.0.1:0'\n\
         worker_class = 'gthread'\nworkers = min(multiprocessing.cpu_count(), 2)\nthreads = 4\nkeepalive = 65\ngraceful_timeout = 120\n\
         limit_request_line = 8190\nlimit_request_fields = 100\nlimit_request_field_size = 8190\n",
        Served(&[THREADS]),
    ),
    (
        "from prometheus_client import multiprocess\n\nbind = '127.0.0.1:0'\nworkers = 2\n\n\
         def child_exit(server, worker):\n    multiprocess.mark_process_dead(worker.pid)\n",
        Served(&["configuration of gunicorn"]),
    ),
    (
        "import os\n\nfor k, v in os.environ.items():\n    if k.startswith('GUNICORN_'):\n        \
         key = k.split('_', 1)[1].lower()\n        locals()[key] = v\n",
        Served(&["configuration of gunicorn"]),
    ),
    (
        "bind = '127.0.0.1:0'\nworkers = 2\nthreads = 2\npreload_app = True\nloglevel = 'warn'\n\n\
         def on_starting(server):\n    print('starting')\n\ndef on_exit(server):\n    print('bye')\n",
        Served(&["starting\n"]),
    ),
    (
        "bind = '127.0.0.1:0'\nworkers = 2\nworker_class = 'sync'\ntimeout = 90\naccesslog = '-'\n\
         logconfig_dict = {'version': 1, 'disable_existing_loggers': False,\n    \
         'handlers': {'console': {'class': 'logging.StreamHandler', 'stream': 'ext://sys.stdout'}},\n    \
         'root': {'level': 'INFO', 'handlers': ['console']}}\n",
        Served(&[]),
    ),
    (
        "bind = '127.0.0.1:0'\nworkers = 2\ndaemon = 'false'\nreuse_port = True\nsendfile = True\npreload_app = True\nreload = False\n\
         statsd_host = None\ncertfile = None\nkeyfile = None\n",
        Served(&["reuse_port = True"]),
    ),
    (
        "bind = '127.0.0.1:0'\nworkers = 2\nworker_class = 'gthread'\nthreads = 2\nworker_connections = 1000\n\n\
         def worker_int(worker):\n    worker.log.info('interrupted')\n\ndef worker_abort(worker):\n    worker.log.info('aborted')\n",
        Served(&[THREADS]),
    ),
    (
        "bind = '0.0.0.0:8443'\nworkers = 2\nkeyfile = 'key.pem'\ncertfile = 'cert.pem'\n",
        Refused("--certfile cert.pem: no such file"),
    ),
    (
        "import gevent.monkey\ngevent.monkey.patch_all()\nbind = '127.0.0.1:0'\nworkers = 2\nworker_class = 'gevent'\n",
        Served(&["there are no greenlets here"]),
    ),
];

/// Command lines; variables in front, `$PORT` is 0, `{dir}` the directory of the application.
const LINES: [(&str, Expected); 33] = [
    ("gunicorn app:app", Served(&[])),
    ("gunicorn app:app --bind 0.0.0.0:$PORT", Served(&[])),
    ("PORT=0 gunicorn app:app", Served(&[])),
    ("gunicorn -w 4 -b 0.0.0.0:$PORT app:app", Served(&[])),
    ("gunicorn --bind 0.0.0.0:$PORT --workers 2 --threads 8 --timeout 0 app:app", Served(&[])),
    (
        "gunicorn app:app --workers 1 --threads 4 --bind 0.0.0.0:$PORT --timeout 120 --access-logfile - --error-logfile -",
        Served(&[]),
    ),
    ("gunicorn app:app --log-file -", Served(&[])),
    ("gunicorn app:app --log-file - --log-level debug", Served(&[])),
    ("gunicorn --workers 3 --bind unix:{dir}/app.sock app:app", Served(&[])),
    ("gunicorn --access-logfile - --workers 3 --bind unix:{dir}/app.sock app:application", Served(&[])),
    ("gunicorn --workers 3 --bind unix:{dir}/app.sock -m 007 app:app", Served(&[])),
    ("gunicorn --bind=127.0.0.1:$PORT --workers=2 --worker-class=sync app:app", Served(&["how workers are here"])),
    ("gunicorn -k gthread --threads 4 -w 2 -b :$PORT app:app", Served(&[THREADS])),
    ("gunicorn --preload --bind 0.0.0.0:$PORT --workers 2 app:app", Served(&[])),
    ("gunicorn app:app -b 0.0.0.0:$PORT -w 4 --preload --max-requests 1000 --max-requests-jitter 50", Served(&[])),
    ("gunicorn app:app --preload --workers 2 --timeout 300 --access-logfile -", Served(&[])),
    (
        "gunicorn --worker-tmp-dir /dev/shm --workers 2 --thread=4 --worker-class gthread --bind 0.0.0.0:$PORT --log-file=- app:app",
        Served(&[THREADS]),
    ),
    ("gunicorn 'app:create_app()' -w 2 -b 0.0.0.0:$PORT", Served(&[])),
    ("gunicorn --chdir {dir} app:app -w 2 -b 0.0.0.0:$PORT", Served(&[])),
    ("gunicorn --pythonpath {dir} app:app --bind 0.0.0.0:$PORT --env STAGE=production", Served(&[])),
    ("gunicorn -c gunicorn.conf.py app:app", Served(&["configuration of gunicorn"])),
    ("gunicorn --config {dir}/gunicorn.conf.py --pid {dir}/app.pid app:app", Served(&["configuration of gunicorn"])),
    ("gunicorn --config python:gunicorn_settings app:app", Served(&["configuration of gunicorn: python:gunicorn_settings"])),
    ("GUNICORN_CMD_ARGS='--bind=0.0.0.0:0 --workers=3 --access-logfile=-' gunicorn app:app", Served(&[])),
    ("GUNICORN_CMD_ARGS='--bind=0.0.0.0:0 --preload' gunicorn app:app --workers 2", Served(&[])),
    ("gunicorn app:app --bind 0.0.0.0:$PORT --workers 2 --log-config {dir}/logging.ini", Served(&[])),
    ("gunicorn --log-config={dir}/logging.ini --bind 0.0.0.0:$PORT --graceful-timeout 60 --keep-alive 5 app:app", Served(&[])),
    ("gunicorn --reload --bind 0.0.0.0:$PORT app:app", Served(&["1 worker x 1 thread"])),
    (
        "gunicorn --forwarded-allow-ips='*' --access-logformat '%(h)s %({x-forwarded-for}i)s %(r)s' --access-logfile - -b :$PORT app:app",
        Served(&[]),
    ),
    ("gunicorn --name shop --user root --group root --bind 127.0.0.1:$PORT --error-logfile {dir}/error.log app:app", Served(&[])),
    ("gunicorn -k gevent -w 4 -b 0.0.0.0:$PORT app:app", Served(&["there are no greenlets here"])),
    ("gunicorn app:app -w 4 -k uvicorn.workers.UvicornWorker --bind 0.0.0.0:$PORT", Refused("runs ASGI applications")),
    (
        "gunicorn --worker-class eventlet -w 1 app:app --logger-class shop.Logger",
        Refused("no Python code runs for a line of the log"),
    ),
];

/// A directory with all that the shapes name; the words of the line behind the program's name.
fn server(line: &str, file: Option<&str>) -> Server {
    let server = Server::source(
        "def app(environ, start_response):\n    \
         start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [b'served']\n\
         application = app\n\
         def create_app():\n    return app\n",
    );
    let directory = server.temp().to_owned();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("the directory is writable");
    let names_file = line.contains("gunicorn.conf.py");
    if let Some(file) = file.or_else(|| names_file.then_some("bind = '127.0.0.1:0'\nworkers = 1\n")) {
        write("gunicorn.conf.py", &file.replace("{dir}", directory.to_str().expect("UTF-8")));
    }
    write("gunicorn_settings.py", "bind = '127.0.0.1:0'\nworkers = 1\n");
    write(
        "logging.ini",
        "[loggers]\nkeys=root\n[handlers]\nkeys=out\n[formatters]\nkeys=plain\n[logger_root]\nlevel=INFO\nhandlers=out\n\
         [handler_out]\nclass=StreamHandler\nformatter=plain\nargs=(sys.stdout,)\n[formatter_plain]\nformat=%(message)s\n",
    );
    let line = line.replace("{dir}", directory.to_str().expect("UTF-8")).replace("$PORT", "0");
    let words = split(&line).expect("the quotes are paired");
    let program = words.iter().position(|word| word == "gunicorn").expect("each line has the word");
    // Only where the address is nobody's business is it the default one, whose port another test may have.
    let own = ["-b", "--bind", "PORT=", "gunicorn.conf.py", "python:"].iter().any(|part| line.contains(part)) || file.is_some();
    let address = if own { &[][..] } else { &["--bind", "127.0.0.1:0"] };
    let options = words[program + 1..].iter().map(String::as_str).chain(address.iter().copied());
    let mut server = server.frameworks().command_line(options);
    for variable in &words[..program] {
        let (name, value) = variable.split_once('=').expect("variables stand in front");
        server = server.env(name, value);
    }
    if line.contains("GUNICORN_CMD_ARGS") {
        // Read under gunicorn's name.
        let link = directory.join("gunicorn");
        symlink(binary(), &link).expect("a link can be made");
        server = server.program(&link);
    }
    server
}

/// Whether the shape does what is expected; the reason if not.
fn judge(line: &str, file: Option<&str>, expected: Expected) -> Result<(), String> {
    let server = server(line, file);
    match expected {
        Served(parts) => {
            let running = server.start();
            let answer = running.get("/");
            if answer.text() != "served" {
                return Err(format!("it is answered {}", answer.status));
            }
            let log = everything_logged(&running);
            let missing = parts.iter().find(|part| !log.contains(**part));
            running.signal(Signal::SIGTERM);
            running.wait_for_empty_group(common::server::STOP_LIMIT);
            missing.map_or(Ok(()), |part| Err(format!("{part:?} is not in {log}")))
        }
        Refused(reason) => {
            let ended = server.run_to_end();
            let refused = ended.code == Some(2) && ended.ready.is_empty() && ended.stderr.contains(reason);
            if refused { Ok(()) } else { Err(format!("{reason:?} is not the reason: {ended:?}")) }
        }
    }
}

fn everything_logged(running: &Running) -> String {
    running.log().text() + &fs::read_to_string(running.temp().join("error.log")).unwrap_or_default()
}

#[track_caller]
fn assert_all(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} shapes fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn files_of_gunicorn_are_served_or_refused_with_the_reason() {
    let failures = FILES.iter().enumerate().filter_map(|(number, (file, expected))| {
        // The file that takes everything from the environment.
        let line = match file.contains("GUNICORN_'") {
            true => "GUNICORN_BIND=127.0.0.1:0 GUNICORN_WORKERS=1 gunicorn app:app",
            false => "PORT=0 gunicorn app:app",
        };
        judge(line, Some(file), *expected).err().map(|why| format!("file {number}: {why}"))
    });
    assert_all(failures.collect());
}

#[test]
fn command_lines_of_gunicorn_are_served_or_refused_with_the_reason() {
    let failures =
        LINES.iter().filter_map(|(line, expected)| judge(line, None, *expected).err().map(|why| format!("{line}: {why}")));
    assert_all(failures.collect());
}
