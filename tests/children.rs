//! Children that the application forks by `os.fork()` and how they end: by the codes that Python gives them, wherever that
//! happens.

mod common;

use common::server::Server;

/// Each path forks a child that ends in its way; the parent answers with how, and with what the child has printed. At import
/// another child ends.
const APP: &str = "
import atexit, os, sys
atexit.register(lambda: open(os.path.join(os.environ['DIR'], 'atexit'), 'a').write('%d ' % os.getpid()))
def fork(end):
    pid = os.fork()
    if pid == 0:
        end()
        return 'child'
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def leave(code):
    sys.exit(code)
def fail():
    raise SystemExit
def text():
    print('printed by the child', end='')
    sys.exit('words of the child')
ENDS = {
    '/code': lambda: leave(3), '/none': fail, '/zero': lambda: leave(0), '/text': text, '/large': lambda: leave(256 + 7),
    '/true': lambda: leave(True), '/negative': lambda: leave(-1), '/tuple': lambda: leave((1, 2)), '/return': lambda: None,
    '/raise': lambda: {}['missing'], '/exit': lambda: os._exit(9),
}
IMPORTED = fork(lambda: leave(5))
class Closing:
    def __init__(self, made):
        self.made = made
    def __iter__(self):
        return iter([])
    def close(self):
        fork_and_note(self.made)
def fork_and_note(end):
    code = fork(end)
    with open(os.path.join(os.environ['DIR'], 'note'), 'w') as file:
        file.write(str(code))
def app(environ, s):
    path, query = environ['PATH_INFO'], environ['QUERY_STRING']
    if path == '/imported':
        s('200 OK', [])
        return [str(IMPORTED).encode()]
    if path == '/note':
        s('200 OK', [])
        return [open(os.path.join(os.environ['DIR'], 'note')).read().encode()]
    if query == 'stream':
        return stream(s, ENDS[path])
    if query == 'close':
        s('200 OK', [])
        return Closing(ENDS[path])
    code = fork(ENDS[path])
    s('200 OK', [])
    return [str(code).encode()]
def stream(s, end):
    s('200 OK', [])
    yield b''
    yield str(fork(end)).encode()
";

/// Paths and codes.
const ENDS: [(&str, &str); 10] = [
    ("/code", "3"),
    ("/none", "0"),
    ("/zero", "0"),
    ("/text", "1"),
    ("/large", "7"),
    ("/true", "1"),
    ("/negative", "255"),
    ("/tuple", "1"),
    ("/raise", "1"),
    ("/exit", "9"),
];

fn server(threads: &str) -> Server {
    let server = Server::source(APP).options(["--threads", threads, "--access-logfile", "-", "--access-logformat", "%(U)s"]);
    let dir = server.temp().display().to_string();
    server.env("DIR", dir)
}

#[test]
fn a_child_that_ends_by_sys_exit_has_its_code() {
    for threads in ["1", "4"] {
        // Any other exception than SystemExit is an error of the application, and the child returns from its call.
        let expected = [
            "the application raised an exception",
            "close() of the application's iterable raised an exception",
            "a child that the application has forked returned",
        ];
        let server = expected.into_iter().fold(server(threads), Server::expect_error).start();
        let worker = server.workers();
        assert_eq!(server.get("/imported").text(), "5");
        let mut lines = vec!["/imported"];
        let mut kept = server.connect();
        for (path, code) in ENDS {
            assert_eq!(kept.get(path).text(), code, "{path}");
            assert_eq!(kept.get(&format!("{path}?stream")).text(), code, "{path} by a generator");
            assert_eq!(kept.get(&format!("{path}?close")).text(), "");
            assert_eq!(kept.get("/note").text(), code, "{path} by close()");
            lines.extend([path, path, path, "/note"]);
        }
        assert_eq!(server.workers(), worker);
        const PRINTED: &str = "printed by the child";
        let stdout = common::wait_for("the access log", common::SOON, || {
            let stdout = server.stdout();
            (stdout.matches('/').count() >= lines.len()).then_some(stdout)
        });
        // One line for each request, none by the children.
        assert_eq!(stdout.matches(PRINTED).count(), 3, "{stdout}");
        assert_eq!(stdout.replace(PRINTED, "").lines().collect::<Vec<_>>(), lines);
        let noted = server.temp().join("atexit");
        assert!(!noted.exists(), "the handlers of atexit are the worker's");
        let text = server.stop().text();
        assert_eq!(text.matches("words of the child").count(), 3, "{text}");
        assert_eq!(text.matches("CRITICAL").count(), 3, "only of /raise:\n{text}");
        assert!(!text.contains("SystemExit") && text.contains("KeyError: 'missing'"), "{text}");
    }
}

#[test]
fn a_child_that_returns_from_its_call_is_ended_and_logged() {
    let server = server("1").expect_error("a child that the application has forked returned from its call").start();
    assert_eq!(server.get("/return").text(), "1");
    server.stop();
}
