//! The functions of a gunicorn file that the server calls.

mod common;

use std::fs;

use nix::sys::signal::Signal;

use common::client::Response;
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// Functions that write a line for each call, with what they were given.
const NOTES: &str = "\
import os
NOTES = os.environ['NOTES']
def note(*words):
    with open(NOTES, 'a') as file:
        file.write(' '.join(str(word) for word in words) + '\\n')
";

const APPLICATION: &str = "\
import os, time
def note(text):
    with open(os.environ['NOTES'], 'a') as file:
        file.write(text + '\\n')
note('import')
def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/raise':
        raise ValueError('no answer')
    if path == '/early':
        start_response('200 OK', [('Content-Length', '3')])
        raise ValueError('too late')
    if path == '/file':
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return environ['wsgi.file_wrapper'](open('big', 'rb'))
    if path == '/object':
        class File:
            def __init__(self): self.left = 3
            def read(self, size):
                self.left -= 1
                return b'xyz' if self.left >= 0 else b''
            def close(self): note('closed')
        start_response('200 OK', [])
        return environ['wsgi.file_wrapper'](File())
    if path == '/stream':
        start_response('203 Fine', [('X-Kind', 'stream')])
        def blocks():
            try:
                yield b'one'
                yield b'three'
            finally:
                note('closed')
        return blocks()
    if path == '/write':
        write = start_response('200 OK', [])
        write(b'written')
        return [b' and returned']
    if path == '/hang':
        while not os.path.exists('gate'):
            time.sleep(0.01)
    body = ','.join(environ.get(key, '-') for key in ('REQUEST_METHOD', 'HTTP_X_NEW', 'HTTP_X_OLD', 'QUERY_STRING')).encode()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

/// A server with a gunicorn file that begins with [`NOTES`].
fn server(file: &str) -> Server {
    let server = Server::source(APPLICATION);
    let notes = server.temp().join("notes").display().to_string();
    fs::write(server.temp().join("gunicorn.conf.py"), format!("{NOTES}{file}")).expect("the directory is writable");
    server.env("NOTES", notes)
}

fn notes(running: &Running) -> Vec<String> {
    let text = fs::read_to_string(running.temp().join("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until there are so many lines, and returns them.
#[track_caller]
fn noted(running: &Running, count: usize) -> Vec<String> {
    wait_for("the notes of hooks", SOON, || Some(notes(running)).filter(|notes| notes.len() >= count))
}

const IN_WORKERS: &str = "\
def post_fork(server, worker):
    assert worker.pid == os.getpid() and worker.ppid == os.getppid() == server.pid, (worker.pid, worker.ppid, server.pid)
    note('post_fork', worker.age, worker.booted, worker.nr, worker.cfg.workers, worker.cfg.loglevel, server.num_workers,
         worker.cfg.answer, worker.cfg.group, worker.timeout, server.cfg.bind)
    server.log.info('of %s', worker.age)
    worker.log.warning('of %(it)s', {'it': 'all'})
def post_worker_init(worker):
    note('post_worker_init', worker.booted, worker.wsgi is worker.app.callable, worker.app.wsgi().__name__)
def worker_int(worker):
    note('worker_int', worker.alive, worker.nr)
def worker_exit(server, worker):
    note('worker_exit', worker.booted, worker.nr)
answer = 42
";

#[test]
fn a_worker_calls_its_hooks_in_gunicorns_order() {
    let mut running = server(IN_WORKERS).options(["--threads", "2", "--timeout", "90s"]).start();
    assert_eq!(running.get("/").status, 200);
    assert_eq!(running.get("/").status, 200);
    running.log().wait(&["worker 0", "INFO of 1"]);
    running.log().wait(&["worker 0", "WARNING of all"]);
    running.signal(Signal::SIGINT);
    running.wait(SOON);
    assert_eq!(
        notes(&running),
        [
            "post_fork 1 False 0 1 info 1 42 None 90 ['127.0.0.1:0']",
            "import",
            "post_worker_init False True application",
            "worker_int False 2",
            "worker_exit True 2"
        ]
    );
    running.finish();
}

#[test]
fn a_graceful_stop_is_no_interruption_and_every_worker_has_its_age() {
    let mut running = server(IN_WORKERS).workers(2).start();
    running.signal(Signal::SIGHUP);
    running.log().wait(&["all workers are of generation 2"]);
    running.signal(Signal::SIGTERM);
    running.wait(SOON);
    let notes = notes(&running);
    let with = |start: &str| notes.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((with("post_fork"), with("post_worker_init"), with("worker_int"), with("worker_exit")), (4, 4, 0, 4), "{notes:?}");
    for age in 1..=4 {
        assert_eq!(with(&format!("post_fork {age} ")), 1, "{notes:?}");
    }
    running.finish();
}

#[test]
fn a_hook_that_raises_fails_the_boot_or_is_logged_by_its_kind() {
    let ended = server("def post_fork(server, worker):\n    raise ValueError('not here')\n").run_to_end();
    ended.failed(3, &["gunicorn.conf.py: post_fork raised an exception", "line 7, in post_fork", "ValueError: not here"]);
    let ended = server("def post_worker_init(worker):\n    import nowhere\n").run_to_end();
    ended.failed(3, &["gunicorn.conf.py: post_worker_init raised an exception", "No module named 'nowhere'"]);
    let ended = server("def post_fork(worker):\n    pass\n").run_to_end();
    ended.failed(3, &["gunicorn.conf.py cannot be executed for its hooks", "post_fork must take 2 arguments, not 1"]);
    let mut running = server(
        "def worker_int(worker):\n    raise ValueError('int')\n\
         def worker_exit(server, worker):\n    note('worker_exit')\n    raise SystemError('exit')\n",
    )
    .expect_error("Exception in worker_int hook")
    .expect_error("Exception in worker_exit hook")
    .start();
    running.signal(Signal::SIGQUIT);
    running.wait(SOON);
    assert_eq!(notes(&running), ["import", "worker_exit"]);
    running.finish();
}

#[test]
fn worker_exit_follows_an_application_that_cannot_be_loaded() {
    let server =
        server("def worker_exit(server, worker):\n    worker.log.warning('left before it was ready: %s', worker.booted)\n");
    fs::write(server.temp().join("app.py"), "import nowhere\n").expect("the directory is writable");
    server.run_to_end().failed(4, &["No module named 'nowhere'", "WARNING left before it was ready: False"]);
}

#[test]
fn a_worker_whose_call_never_ends_calls_worker_abort() {
    let running = server("def worker_abort(worker):\n    note('worker_abort', worker.alive, worker.aborted)\n")
        .options(["--timeout", "500ms", "--timeout-grace", "0"])
        .expect_error("a request does not end within --timeout")
        .start();
    assert_eq!(running.get("/hang").status, 504);
    assert_eq!(noted(&running, 2)[1], "worker_abort False True");
    running.open_gate("gate");
    running.stop();
}

const AROUND: &str = "\
def pre_request(worker, req):
    note('pre', req.method, req.uri, req.path, req.query, req.version, dict(req.headers).get('X-OLD'), req.scheme,
         req.remote_addr[0])
    if req.query == 'raise':
        raise ValueError('refused')
    if req.query == 'change':
        req.headers = [pair for pair in req.headers if pair[0] != 'X-OLD'] + [('X-New', 'a')]
        req.query = 'b=c'
def post_request(worker, req, environ, resp):
    note('post', worker.nr, environ.get('PATH_INFO'), *(resp and (resp.status, resp.sent, resp.response_length,
         resp.headers_sent, [name for name, _ in resp.headers]) or [resp]))
";

fn ask(running: &Running, target: &str) -> Response {
    running.exchange(format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Old: old\r\nConnection: close\r\n\r\n"))
}

#[test]
fn requests_have_their_hooks_around_them_whatever_the_answer_is() {
    let server = server(AROUND).expect_error("no answer").expect_error("too late").expect_error("refused");
    let size = 300_000;
    fs::write(server.temp().join("big"), vec![b'x'; size]).expect("the directory is writable");
    let running = server.start();
    let mut seen = 1;
    let mut answered = |target: &str| {
        let response = ask(&running, target);
        let all = noted(&running, seen + 2);
        let new = all[seen..].to_vec();
        seen = all.len();
        (response, new)
    };
    let (response, new) = answered("/a?q=1");
    assert_eq!((response.status, response.text()), (200, "GET,-,old,q=1".into()));
    assert_eq!(new[0], "pre GET /a?q=1 /a q=1 (1, 1) old http 127.0.0.1");
    assert!(new[1].starts_with("post 1 /a 200 OK 13 13 True ['Content-Length']"), "{new:?}");
    let (response, _) = answered("/b?change");
    assert_eq!(response.text(), "GET,a,-,b=c");
    let (response, new) = answered("/c?raise");
    assert_eq!((response.status, &*new[1]), (500, "post 2 /c None"));
    let (response, new) = answered("/raise");
    assert_eq!((response.status, &*new[1]), (500, "post 3 /raise None 0 None False []"));
    let (response, new) = answered("/early");
    assert_eq!((response.status, &*new[1]), (500, "post 4 /early 200 OK 0 3 False ['Content-Length']"));
    let (response, new) = answered("/stream");
    assert_eq!(
        (response.text(), &new[1..]),
        ("onethree".into(), &["closed".into(), "post 5 /stream 203 Fine 8 None True ['X-Kind']".into()][..])
    );
    let (response, new) = answered("/write");
    assert_eq!((response.text(), &*new[1]), ("written and returned".into(), "post 6 /write 200 OK 20 None True []"));
    let (response, new) = answered("/file");
    assert_eq!((response.body.len(), &*new[1]), (size, "post 7 /file 200 OK 300000 None True ['Content-Type']"));
    let (response, new) = answered("/object");
    assert_eq!(
        (response.text(), &new[1..]),
        ("xyzxyzxyz".into(), &["closed".into(), "post 8 /object 200 OK 9 None True []".into()][..])
    );
    running.stop();
}

#[test]
fn post_request_may_take_fewer_arguments_and_raise() {
    for (parameters, words) in [("worker, req", "req.path"), ("worker, req, environ", "environ['PATH_INFO']")] {
        let running = server(&format!("def post_request({parameters}):\n    note({words})\n    raise ValueError('mine')\n"))
            .expect_error("Exception in post_request hook")
            .start();
        assert_eq!(running.get("/x").status, 200);
        assert_eq!(noted(&running, 2)[1], "/x");
        running.stop();
    }
}

#[test]
fn the_application_can_be_replaced_once_it_is_loaded() {
    let running = server(
        "def post_worker_init(worker):\n    \
             inner = worker.wsgi\n    \
             def outer(environ, start_response):\n        \
                 return [b'outer '] + inner(environ, start_response)\n    \
             worker.wsgi = lambda environ, start: outer(dict(environ, QUERY_STRING='new'), lambda s, h: start(s, []))\n",
    )
    .start();
    assert_eq!(running.get("/").text(), "outer GET,-,-,new");
    running.stop();
    let ended = server("def post_worker_init(worker):\n    worker.wsgi = 3\n").run_to_end();
    ended.failed(3, &["worker.wsgi is set to what cannot be called"]);
}

#[test]
fn hooks_may_be_named_and_the_file_is_executed_where_the_server_was_started() {
    let server = server(
        "import mine\npost_fork = 'mine.begin'\nassert os.path.exists('gunicorn.conf.py')\n\
         def post_worker_init(worker):\n    note(os.path.basename(os.getcwd()))\n",
    );
    let below = server.temp().join("below");
    fs::create_dir(&below).expect("the directory is writable");
    fs::write(server.temp().join("mine.py"), "def begin(server, worker):\n    worker.log.info('named')\n").expect("writable");
    fs::rename(server.temp().join("app.py"), below.join("app.py")).expect("writable");
    let running = server.options(["--chdir", "below"]).start();
    running.log().wait(&["INFO named"]);
    assert_eq!(noted(&running, 2)[1], "below");
    running.stop();
}
