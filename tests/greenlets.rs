//! Applications that replace parts of the standard library by those of gevent and eventlet.

mod common;

use common::server::{Running, Server};

const SERVE: &str = "
import threading, time
def application(environ, s):
    time.sleep(.01)
    s('200 OK', [])
    return [threading.current_thread().name.encode()]
";

/// What replaces everything, and everything but threads.
const PATCHES: [(&str, &str); 2] = [
    ("from gevent import monkey; monkey.patch_all()", "from gevent import monkey; monkey.patch_all(thread=False)"),
    ("import eventlet; eventlet.monkey_patch()", "import eventlet; eventlet.monkey_patch(thread=False)"),
];

fn server(first: &str, threads: &str) -> Server {
    Server::source(&format!("{first}\n{SERVE}")).frameworks().options(["--threads", threads])
}

fn answers(server: &Running) {
    for _ in 0..5 {
        assert_eq!(server.get("/").status, 200);
    }
}

#[test]
fn replaced_threads_are_refused_at_once_with_what_to_do() {
    for (all, _) in PATCHES {
        let ended = server(all, "4").options(["--boot-timeout", "300"]).run_to_end();
        ended.failed(3, &["--threads above 1 needs Python's own threads", "monkey patching", "--threads 1", "thread=False"]);
    }
}

#[test]
fn one_thread_and_patches_without_threads_are_served() {
    for (all, without_threads) in PATCHES {
        for (patch, threads) in [(all, "1"), (without_threads, "1"), (without_threads, "4")] {
            let server = server(patch, threads).start();
            answers(&server);
            server.stop();
        }
    }
}

#[test]
fn a_patch_by_the_first_request_leaves_the_threads_as_they_are() {
    for (all, _) in PATCHES {
        for threads in ["1", "4"] {
            let app =
                format!("{SERVE}\nserve = application\ndef application(environ, s):\n    {all}\n    return serve(environ, s)\n");
            let server = Server::source(&app).frameworks().options(["--threads", threads]).start();
            answers(&server);
            server.stop();
        }
    }
}
