//! The functions of a gunicorn file that the server calls.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::client::Response;
use common::server::{Running, Server};
use common::{SOON, user, wait_for};

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

/// Functions that note their names and the process that they run in.
const IN_PROCESS: &str = "\
def on_starting(server):
    note('on_starting', server.num_workers, len(server.WORKERS), server.cfg.workers)
    assert server.pid == os.getppid()
def when_ready(server):
    note('when_ready', os.getpid())
def on_reload(server):
    note('on_reload', server.num_workers)
def pre_fork(server, worker):
    note('pre_fork', worker.age, len(server.WORKERS))
def child_exit(server, worker):
    note('child_exit', worker.age, worker.alive, len(server.WORKERS))
def nworkers_changed(server, new, old):
    note('nworkers_changed', new, old)
def pre_exec(server):
    note('pre_exec')
def on_exit(server):
    note('on_exit')
    server.log.info('exits')
";

/// The process of the hooks.
#[track_caller]
fn hook_process(running: &Running) -> i32 {
    wait_for("the hook process", SOON, || {
        let title = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.starts_with(b"tapster: hooks ["));
        running.workers().into_iter().find(title)
    })
}

/// Ends it by SIGTERM and returns the notes.
#[track_caller]
fn stopped(mut running: Running) -> Vec<String> {
    running.signal(Signal::SIGTERM);
    assert!(running.wait(SOON).success());
    let notes = notes(&running);
    running.finish();
    notes
}

/// Notes without the process ids.
fn names(notes: &[String]) -> Vec<&str> {
    notes.iter().map(|line| if line.starts_with("when_ready") { "when_ready" } else { line.as_str() }).collect()
}

#[test]
fn the_hooks_of_gunicorns_master_run_in_a_process_of_their_own() {
    let running = server(IN_PROCESS).workers(2).start();
    noted(&running, 7);
    running.signal(Signal::SIGTTIN);
    noted(&running, 9);
    let pid = hook_process(&running);
    // Its streams, the log, the socket, and what the interpreter opens: none of the server's sockets.
    let sockets = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let sockets = sockets.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")));
    assert_eq!(sockets.count(), 1);
    let notes = stopped(running);
    assert!(notes.contains(&format!("when_ready {pid}")), "{notes:?}");
    let notes: Vec<&str> = names(&notes).into_iter().filter(|line| *line != "import").collect();
    assert_eq!(notes[..2], ["nworkers_changed 2 None", "on_starting 2 0 2"]);
    assert_eq!(notes[2..5], ["pre_fork 1 1", "pre_fork 2 2", "when_ready"]);
    assert_eq!(notes[5..7], ["nworkers_changed 3 2", "pre_fork 3 3"]);
    let mut ends = notes[7..10].to_vec();
    ends.sort_unstable();
    assert_eq!(ends.iter().map(|line| &line[..12]).collect::<Vec<_>>(), ["child_exit 1", "child_exit 2", "child_exit 3"]);
    assert!(notes[9].ends_with(" False 0"), "{notes:?}");
    assert_eq!(notes[10..], ["on_exit"]);
}

#[test]
fn without_such_a_hook_there_is_no_such_process() {
    let running = server("def post_fork(server, worker):\n    note('post_fork')\n").start();
    assert_eq!(running.workers().len(), 1);
    running.stop();
}

#[test]
fn a_start_waits_for_on_starting_and_fails_with_it() {
    let running = server("import time\ndef on_starting(server):\n    time.sleep(0.3)\n    note('on_starting')\n").start();
    assert_eq!(notes(&running), ["on_starting", "import"]);
    running.stop();
    let ended = server("def on_starting(server):\n    raise ValueError('not today')\n").run_to_end();
    ended.failed(3, &["gunicorn.conf.py: on_starting raised an exception", "in on_starting", "ValueError: not today"]);
    let ended = server("def on_starting(server):\n    os._exit(7)\n").run_to_end();
    ended.failed(3, &["the process for the hooks has ended before on_starting was done"]);
    let ended = server("def on_starting(server):\n    os.read(os.pipe()[0], 1)\n").options(["--boot-timeout", "1"]).run_to_end();
    ended.failed(3, &["on_starting takes longer than --boot-timeout"]);
    let ended = server("assert not open('/proc/self/cmdline').read().startswith('tapster: hooks')\ndef on_exit(server): pass\n")
        .run_to_end();
    ended.failed(3, &["gunicorn.conf.py cannot be executed for its hooks", "AssertionError"]);
}

#[test]
fn a_hook_process_that_dies_costs_no_request_and_is_started_again() {
    let running = server(IN_PROCESS).workers(2).expect_error("the process of the hooks was killed by SIGKILL").start();
    noted(&running, 7);
    let first = hook_process(&running);
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it runs");
    for _ in 0..200 {
        assert_eq!(running.get("/").status, 200);
    }
    running.log().wait(&["the process of the hooks was killed by SIGKILL", "started again in 0.5 s", "when_ready is called"]);
    let all = noted(&running, 8);
    let second = hook_process(&running);
    assert_ne!(first, second);
    assert_eq!(all[7..], [format!("when_ready {second}")], "on_starting may empty what the workers use");
    let notes = stopped(running);
    assert_eq!(notes.last().map(String::as_str), Some("on_exit"));
}

#[test]
fn a_reload_has_the_functions_of_the_new_file_and_a_failed_one_those_of_the_old() {
    let mut running = server(IN_PROCESS).start();
    noted(&running, 5);
    let first = hook_process(&running);
    let file = running.temp().join("gunicorn.conf.py");
    let app = running.temp().join("app.py");
    fs::write(&app, "import nowhere\n").expect("writable");
    running.expect_error("No module named 'nowhere'");
    running.expect_error("reload failed");
    running.signal(Signal::SIGHUP);
    running.log().wait(&["reload failed, generation 1 keeps serving"]);
    assert_eq!(hook_process(&running), first);
    fs::write(&app, APPLICATION).expect("writable");
    fs::write(&file, format!("{NOTES}workers = 2\n{}", IN_PROCESS.replace("'on_reload'", "'new on_reload'"))).expect("writable");
    running.signal(Signal::SIGHUP);
    running.log().wait(&["all workers are of generation 3"]);
    wait_for("the new functions", SOON, || notes(&running).iter().any(|line| line.starts_with("new on_reload")).then_some(()));
    let notes = stopped(running);
    assert_eq!(notes.iter().filter(|line| line.as_str() == "on_exit").count(), 1, "{notes:?}");
    assert_eq!(notes.iter().filter(|line| line.starts_with("when_ready")).count(), 2, "{notes:?}");
    assert_eq!(notes.iter().filter(|line| line.starts_with("on_starting")).count(), 1, "{notes:?}");
}

#[test]
fn an_upgrade_calls_pre_exec_and_the_new_program_has_its_own_process() {
    let running = server(IN_PROCESS).start();
    noted(&running, 5);
    let first = hook_process(&running);
    running.signal(Signal::SIGUSR2);
    running.log().wait(&["all workers are of generation 2"]);
    wait_for("the new process", SOON, || {
        (notes(&running).iter().filter(|line| line.starts_with("when_ready")).count() == 2).then_some(())
    });
    assert_ne!(hook_process(&running), first);
    let notes = stopped(running);
    let names = names(&notes);
    let at = |name: &str| names.iter().rposition(|line| *line == name);
    assert!(at("pre_exec").is_some_and(|exec| Some(exec) < at("when_ready")), "{names:?}");
    assert!(names.iter().any(|line| line.starts_with("pre_fork 2")), "workers are counted on: {names:?}");
    assert!(!names.iter().any(|line| line.starts_with("on_reload")), "{names:?}");
}

#[test]
fn a_hook_that_never_ends_or_raises_stops_nothing() {
    let mut running = server(
        "def when_ready(server):\n    note('waits')\n    os.read(os.pipe()[0], 1)\n\
         def child_exit(server, worker):\n    note('never')\n",
    )
    .start();
    noted(&running, 2);
    assert_eq!(running.get("/").status, 200);
    let began = Instant::now();
    running.signal(Signal::SIGTERM);
    assert!(running.wait(SOON).success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    running.log().wait(&["WARNING hooks do not end in 5 s: their process is killed"]);
    assert!(!notes(&running).contains(&"never".into()));
    running.finish();
    let running =
        server("def child_exit(server, worker):\n    raise ValueError('mine')\ndef on_exit(server):\n    note('on_exit')\n")
            .expect_error("Exception in child_exit hook")
            .start();
    assert_eq!(stopped(running), ["import", "on_exit"]);
}

#[test]
fn the_hook_process_has_the_user_of_the_workers_and_follows_the_log() {
    let Some(other) = user::other() else { return };
    let server = server(
        "def when_ready(server):\n    note('when_ready', os.getuid())\n    server.log.info('begins')\n\
         def on_exit(server):\n    server.log.info('leaves')\n",
    );
    let log = server.temp().join("error.log");
    user::open_to_all(server.temp());
    fs::set_permissions(server.temp(), fs::Permissions::from_mode(0o777)).expect("ours");
    let path = log.to_str().expect("UTF-8").to_owned();
    let mut server = server.options(["--user", user::NAME, "--error-logfile", &path]);
    if let Some(home) = other.python_home() {
        server = server.env("PYTHONHOME", home.to_str().expect("UTF-8"));
    }
    let running = server.start();
    let all = noted(&running, 2);
    assert!(
        all.iter().any(|line| line.starts_with("when_ready ") && *line == format!("when_ready {}", other.user.uid)),
        "{all:?}"
    );
    let text = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default();
    wait_for("a record", SOON, || text(&log).contains("] [hooks] INFO begins").then_some(()));
    fs::rename(&log, log.with_extension("1")).expect("ours");
    running.signal(Signal::SIGUSR1);
    wait_for("the new log", SOON, || text(&log).contains("logs opened anew").then_some(()));
    let mut running = running;
    running.signal(Signal::SIGTERM);
    running.wait(SOON);
    assert!(text(&log).contains("] [hooks] INFO leaves"), "{}", text(&log));
    running.finish();
}

#[test]
fn prometheus_clients_hooks_work_as_written_for_gunicorn() {
    let running = server(
        "import glob\n\
         def on_starting(server):\n    \
             os.makedirs(os.environ['PROMETHEUS_MULTIPROC_DIR'], exist_ok=True)\n    \
             for file in glob.glob(os.environ['PROMETHEUS_MULTIPROC_DIR'] + '/*.db'): os.remove(file)\n\
         def child_exit(server, worker):\n    \
             from prometheus_client import multiprocess\n    \
             multiprocess.mark_process_dead(worker.pid)\n    \
             note('marked', worker.pid)\n",
    );
    fs::write(
        running.temp().join("app.py"),
        format!(
            "{APPLICATION}\nfrom prometheus_client import Gauge\nGauge('alive', 'Workers', multiprocess_mode='livesum').set(1)\n"
        ),
    )
    .expect("writable");
    let metrics = running.temp().join("metrics");
    fs::create_dir(&metrics).expect("writable");
    fs::write(metrics.join("gauge_livesum_1.db"), "left over").expect("writable");
    let variable = format!("PROMETHEUS_MULTIPROC_DIR={}", metrics.display());
    let running = running.frameworks().options(["--env", &variable]).expect_error("SIGKILL").start();
    assert!(!metrics.join("gauge_livesum_1.db").exists());
    let hooks = hook_process(&running);
    let worker = running.workers().into_iter().find(|pid| *pid != hooks).expect("there is one");
    assert!(metrics.join(format!("gauge_livesum_{worker}.db")).exists());
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it runs");
    wait_for("the hook", SOON, || notes(&running).contains(&format!("marked {worker}")).then_some(()));
    assert!(!metrics.join(format!("gauge_livesum_{worker}.db")).exists());
    running.stop();
}

#[test]
fn what_hooks_print_becomes_records_of_them_with_captured_output() {
    let hooks = "\
import sys
def on_starting(server):
    print('starting')
def when_ready(server):
    print('ready, on', open('/dev/stderr', 'w').name, file=sys.stderr)
    subprocess.run(['echo', 'from a program'])
def on_exit(server):
    print('x' * 200000)
    sys.stdout.write('leaves')
    sys.stdout.flush()
import subprocess
";
    let server = server(hooks).options(["--capture-output", "--log-level", "error"]).start();
    for text in ["starting", "ready, on /dev/stderr", "from a program"] {
        let record = server.log().wait(&[text]);
        assert!(record.text.contains("] [hooks] INFO ") && record.text.ends_with(text), "{record:?}");
    }
    let log = server.stop();
    assert_eq!(log.text().matches('x').count() / 100_000, 2, "{}", log.text().len());
    assert!(log.find(&["[hooks] INFO leaves"]).is_some(), "the last words are lost");
}
