//! What happens around the calls: waiting, signals, the interpreter's threads, and leaving.

mod wsgi_driver;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use wsgi_driver::{Server, with_python};

const GET: &str = "GET / HTTP/1.1\r\nHost: testing\r\n\r\n";

/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn threads_of_the_application_run_while_the_server_waits() {
    with_python(|| {
        let mut server = Server::new(
            "import threading, os\nGO = threading.Event()\nPATH = os.path.join(os.path.dirname(__file__), 'done')\ndef run():\n    GO.wait()\n    \
             open(PATH, 'w').close()\nthreading.Thread(target=run, daemon=True).start()\ndef app(e, s):\n    GO.set()\n    s('200 OK', [])\n    \
             return [b'x']\n",
        );
        server.get(GET).expect_ok("x");
        let (done, began) = (server.path("done"), Instant::now());
        server.app.release();
        while !done.exists() && began.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        assert!(done.exists());
        server.get(GET).expect_ok("x");
    });
}

#[test]
fn signal_handlers_of_the_application_run_after_a_wait() {
    with_python(|| {
        let mut server = Server::new(
            "import signal, threading\nassert threading.current_thread() is threading.main_thread()\nSEEN = []\nsignal.signal(signal.SIGUSR2, \
             lambda number, frame: SEEN.append(number))\ndef app(e, s):\n    s('200 OK', [])\n    return [b'%d' % len(SEEN)]\n",
        );
        server.get(GET).expect_ok("0");
        server.app.release();
        raise(Signal::SIGUSR2).expect("a signal to ourselves");
        server.app.signalled();
        server.get(GET).expect_ok("1");
    });
}

#[test]
fn a_signal_handler_that_raises_stops_nothing() {
    with_python(|| {
        let mut server = Server::new(
            "import signal, sys\nsignal.signal(signal.SIGURG, lambda number, frame: sys.exit('from handler'))\ndef app(e, s):\n    s('200 OK', [])\n    \
             return [b'x']\n",
        );
        server.app.release();
        raise(Signal::SIGURG).expect("a signal to ourselves");
        server.app.signalled();
        server.get(GET).expect_ok("x");
        assert!(server.log().contains("SystemExit: from handler"), "{}", server.log());
    });
}

#[test]
fn objects_of_a_request_are_released_with_it() {
    with_python(|| {
        let mut server = Server::new(
            "import gc, weakref\nclass Marker: pass\nALIVE = weakref.WeakSet()\ndef app(environ, start_response):\n    \
             count = len(ALIVE)\n    environ['marker'] = marker = Marker()\n    ALIVE.add(marker)\n    start_response('200 OK', [])\n    \
             if environ['PATH_INFO'] == '/list':\n        return [b'%d' % count]\n    return (b'%d' % n for n in [count, 7] if marker)\n",
        );
        for _ in 0..3 {
            server.get("GET /list HTTP/1.1\r\nHost: h\r\n\r\n").expect_ok("0");
            server.get(GET).expect_ok("07");
        }
    });
}

#[test]
fn no_kind_of_request_leaks_memory() {
    with_python(|| {
        let mut server = Server::new(
            "import gc, sys\nKEPT = []\ndef app(environ, start_response):\n    path = environ['PATH_INFO']\n    if path == '/raise':\n        \
             raise ValueError(start_response)\n    write = start_response('200 OK', [])\n    if path == '/keep':\n        KEPT[:] = \
             [environ, start_response, write]\n    if path == '/cycle':\n        environ['cycle'] = [environ, start_response, write]\n    if path \
             == '/write':\n        write(b'x')\n    if path == '/stream':\n        return iter([b'a', b'b'])\n    if path == '/wrong':\n        \
             return ['text']\n    if path == '/late':\n        def late():\n            yield b'x'\n            raise ValueError\n        return \
             late()\n    if path == '/blocks':\n        gc.collect()\n        return [b'%d' % sys.getallocatedblocks()]\n    return \
             [environ['wsgi.input'].read() or b'ok']\n",
        );
        let blocks = |server: &mut Server| -> i64 {
            let body = server.get("GET /blocks HTTP/1.1\r\nHost: h\r\n\r\n").body();
            body.parse().expect("a number")
        };
        for path in ["/", "/raise", "/keep", "/cycle", "/write", "/stream", "/wrong", "/late", "/body"] {
            let body = if path == "/body" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
            let request = format!("POST {path} HTTP/1.1\r\nHost: h\r\n{body}");
            let serve = |server: &mut Server| (0..300).for_each(|_| drop(server.get(&request)));
            // Caches of the interpreter fill up for a while; a leak grows every time.
            let grown = (0..5).map(|_| {
                let before = blocks(&mut server);
                serve(&mut server);
                blocks(&mut server) - before
            });
            let grown = grown.min().unwrap_or_default();
            assert!(grown < 150, "{path}: {grown} blocks for 300 requests");
        }
    });
}

#[test]
fn leaving_runs_the_exit_handlers() {
    with_python(|| {
        let mut server = Server::new(
            "import atexit, os, threading\nDIR = os.path.dirname(__file__)\ndef leave():\n    open(os.path.join(DIR, 'left'), 'w').close()\n\
             def bad():\n    raise ValueError('at exit')\natexit.register(leave)\natexit.register(bad)\ndef app(e, s):\n    \
             e['wsgi.errors'].write('last words')\n    s('200 OK', [])\n    return [b'x']\n",
        );
        server.get(GET).expect_ok("x");
        server.app.finish();
        assert!(fs::exists(server.path("left")).expect("readable"));
        assert!(server.log().contains("last words"), "{}", server.log());
    });
}
