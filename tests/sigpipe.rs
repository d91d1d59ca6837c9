//! Signals whose default action a client or a limit could turn against the worker: SIGPIPE and SIGXFSZ, whatever the application
//! does with them; and what its children have of them.

mod common;

use nix::sys::signal::Signal;

use common::server::{Running, Server};
use common::{SOON, procfs, wait_for};

/// A common snippet, in Python and in C; answers that begin when the client has left; children.
const APP: &str = "
import atexit, ctypes, os, signal, subprocess, sys, tempfile, threading, time
if os.environ['BY'] == 'python':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
else:
    ctypes.CDLL(None).signal(int(signal.SIGPIPE), 0)
BLOCK = b'x' * 100_000
DONE = []
def app(environ, s):
    path = environ['PATH_INFO']
    if path == '/':
        s('200 OK', [])
        return [b'%d' % len(DONE)]
    if path == '/children':
        s('200 OK', [])
        return [children()]
    if path == '/limit':
        s('200 OK', [])
        return [limit()]
    if path == '/long-write':
        write = s('200 OK', [])
        for _ in range(50):
            write(BLOCK)
        return []
    if path == '/long-file':
        s('200 OK', [])
        return file(environ)
    open(os.environ['ENTERED'], 'w').close()
    gone = environ['tapster.client_disconnected']
    limit_at = time.monotonic() + 60
    while not gone() and time.monotonic() < limit_at:
        time.sleep(.005)
    DONE.append(path)
    write = s('200 OK', [])
    if path == '/file':
        return file(environ)
    if path == '/write':
        try:
            for _ in range(5):
                write(b'some')
        except OSError:
            pass
        return []
    return {'/small': [b'some'], '/large': [BLOCK], '/blocks': [BLOCK, BLOCK], '/stream': (b'some' for _ in range(5))}[path]
def file(environ):
    file = tempfile.TemporaryFile()
    file.write(BLOCK * 50)
    file.seek(0)
    return environ['wsgi.file_wrapper'](file)
def ends(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def children():
    # Each writes to a pipe that nobody reads.
    reader, writer = os.pipe()
    os.close(reader)
    pid = os.fork()
    if pid == 0:
        os.write(writer, b'x')
        os._exit(5)
    try:
        os.write(writer, b'x')
        own = 'written'
    except BrokenPipeError:
        own = 'an error'
    shell = os.waitstatus_to_exitcode(os.system('kill -PIPE $$; exit 5'))
    run = subprocess.run(['sh', '-c', 'kill -PIPE $$; exit 5'], restore_signals=False).returncode
    return f'{signal.getsignal(signal.SIGPIPE).name} {own} {ends(pid)} {shell} {run}'.encode()
def at_exit():
    with open(os.environ['AT_EXIT'], 'wb') as file:
        file.write(children())
if os.environ.get('AT_EXIT'):
    atexit.register(at_exit)
def limit():
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            file.truncate(2_000_000)
            return b'written'
    except OSError as error:
        return str(error.errno).encode()
";

/// Paths whose answers take each way to the socket.
const WAYS: [&str; 6] = ["/small", "/large", "/blocks", "/stream", "/file", "/write"];

fn server(by: &str) -> Server {
    let server = Server::source(APP).env("BY", by);
    let entered = server.temp().join("entered").display().to_string();
    server.env("ENTERED", entered).binds(["127.0.0.1:0", "unix:{temp}/socket"])
}

fn served(server: &Running) -> usize {
    server.get("/").text().parse().expect("a number")
}

#[test]
fn no_client_that_leaves_ends_a_worker() {
    for by in ["python", "c"] {
        for threads in ["1", "4"] {
            let server = server(by).options(["--threads", threads]).start();
            let workers = server.workers();
            let mut asked = 0;
            for address in server.addresses() {
                for way in WAYS {
                    let mut client = common::client::Client::connect(address);
                    client.send(format!("GET {way} HTTP/1.1\r\nHost: test\r\n\r\n"));
                    let entered = server.temp().join("entered");
                    wait_for("the call", SOON, || std::fs::remove_file(&entered).ok());
                    // A reset after the end of the client's side is EPIPE at the first send.
                    client.finish_sending();
                    client.reset();
                    asked += 1;
                    wait_for("the application to answer a client that is gone", SOON, || {
                        (served(&server) == asked).then_some(())
                    });
                    assert_eq!(served(&server), asked);
                    assert_eq!(server.workers(), workers, "{way} by {address} with SIG_DFL by {by}");
                }
            }
            server.stop();
        }
    }
}

#[test]
fn no_client_that_leaves_a_file_in_the_middle_ends_a_worker() {
    for by in ["python", "c"] {
        let server = server(by);
        let root = server.temp().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("long"), vec![b'x'; 5_000_000]).unwrap();
        let server = server.options(["--static-map", &format!("/static={}", root.display())]).start();
        let workers = server.workers();
        for address in server.addresses() {
            for way in ["/long-file", "/long-write", "/static/long"] {
                let mut client = common::client::Client::connect(address);
                client.send(format!("GET {way} HTTP/1.1\r\nHost: test\r\n\r\n"));
                client.take(100_000);
                drop(client);
                // By now the worker has run, and has noticed.
                for _ in 0..3 {
                    assert_eq!(served(&server), 0);
                }
                assert_eq!(server.workers(), workers, "{way} by {address} with SIG_DFL by {by}");
            }
        }
        server.stop();
    }
}

#[test]
fn children_have_the_action_that_the_application_has_chosen() {
    let server = server("python").start();
    assert_eq!(server.get("/children").text(), "SIG_DFL an error -13 -13 -13");
    server.stop();
}

#[test]
fn a_thread_that_has_just_sent_a_file_gives_its_children_no_mask() {
    const EXPECTED: &str = "SIG_DFL an error -13 -13 -13";
    for threads in ["1", "2"] {
        let server = server("python").options(["--threads", threads]);
        // It outlives the server's directory.
        let at_exit = tempfile::NamedTempFile::new().unwrap();
        let server = server.env("AT_EXIT", at_exit.path().display().to_string());
        let root = server.temp().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("long"), vec![b'x'; 300_000]).unwrap();
        let server = server.options(["--static-map", &format!("/static={}", root.display())]).start();
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        for address in server.addresses() {
            let mut client = common::client::Client::connect(address);
            // Together, so that the call follows at once; of the answer from the application the kernel sends a file too.
            client.send([get("/static/long"), get("/children"), get("/long-file"), get("/children")].concat());
            assert_eq!(client.response().body.len(), 300_000);
            assert_eq!(client.response().text(), EXPECTED, "{threads} threads by {address}");
            assert_eq!(client.response().body.len(), 5_000_000);
            assert_eq!(client.response().text(), EXPECTED, "{threads} threads by {address}");
            client.send(get("/static/long"));
            assert_eq!(client.response().body.len(), 300_000);
        }
        server.stop();
        assert_eq!(std::fs::read_to_string(at_exit.path()).unwrap(), EXPECTED, "at the end of a worker with {threads} threads");
    }
}

#[test]
fn a_loop_that_waits_after_a_file_blocks_no_signal() {
    for also in ["", "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"] {
        let server = Server::source(&format!("{APP}\n{also}")).env("BY", "python").workers(1);
        let root = server.temp().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("long"), vec![b'x'; 300_000]).unwrap();
        let server = server.options(["--static-map", &format!("/static={}", root.display())]).start();
        let worker = server.workers()[0];
        for _ in 0..5 {
            let mut client = server.connect();
            client.send("GET /static/long HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(client.response().body.len(), 300_000);
            // Its main thread has the loop and calls the application: the other ones of the server block all signals.
            wait_for("a loop that waits", SOON, || (!procfs::blocks(worker, Signal::SIGPIPE)).then_some(()));
        }
        server.stop();
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_end() {
    let server = server("python").start();
    let workers = server.workers();
    assert_eq!(server.get("/limit").text(), "27", "EFBIG");
    assert_eq!(server.workers(), workers);
    server.stop();
}
