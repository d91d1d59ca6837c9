//! `wsgi.file_wrapper`: files go out by the kernel, everything else by reading, and all are closed once.

mod wsgi_driver;

use tapster::worker::app::{Fate, Produced, Reply};
use wsgi_driver::{Answer, Sent, Server, Setup, with_python};

const GET: &str = "GET / HTTP/1.1\r\nHost: testing\r\n\r\n";

/// Serves `make(data_path)` through the wrapper; the file holds 100,000 bytes. `/closed` answers which were closed.
fn server(code: &str, headers: &str) -> Server {
    let code = code.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
    Server::new(&format!(
        "import gzip, io, os, tempfile\nDATA = bytes(i % 251 for i in range(100000))\nPATH = os.path.join(os.path.dirname(__file__), 'data')\n\
         open(PATH, 'wb').write(DATA)\nCLOSED = []\ndef make():\n{code}\ndef app(environ, start_response):\n    if environ['PATH_INFO'] == \
         '/closed':\n        start_response('200 OK', [])\n        return [repr(CLOSED).encode()]\n    start_response('200 OK', {headers})\n    \
         return environ['wsgi.file_wrapper'](make())\n"
    ))
}

fn data() -> Vec<u8> {
    (0..100_000).map(|i| (i % 251) as u8).collect()
}

/// Whether the answer came by [`Produced::File`], and the answer.
#[track_caller]
fn fetch(code: &'static str, headers: &'static str) -> (bool, Answer) {
    with_python(move || {
        let mut server = server(code, headers);
        let answer = server.get(GET);
        let (mut out, mut sent) = (Vec::new(), Sent { wire: Vec::new(), pushes: 0, left: None });
        let by_kernel = match server.begin(GET.as_bytes(), &Setup::default(), &mut out, &mut sent) {
            Reply::Blocks(mut stream) => matches!(stream.advance(&mut out, &mut sent), Produced::File { .. }),
            Reply::Complete(_) => false,
        };
        assert!(!server.log().contains("ERROR"), "{}", server.log());
        (by_kernel, answer)
    })
}

#[test]
fn a_plain_file_is_sent_by_the_kernel_with_its_length() {
    for open in ["open(PATH, 'rb')", "open(PATH, 'rb', buffering=0)", "open(PATH, 'r+b')"] {
        let code: &'static str = format!("return {open}").leak();
        let (by_kernel, answer) = fetch(code, "[]");
        assert!(by_kernel, "{open}");
        assert_eq!((answer.field("Content-Length").as_deref(), answer.summary.fate), (Some("100000"), Fate::Keep));
        assert_eq!((answer.raw_body(), answer.summary.sent), (&data()[..], 100_000));
    }
}

#[test]
fn a_temporary_file_is_sent_by_the_kernel() {
    let (by_kernel, answer) = fetch("f = tempfile.NamedTemporaryFile()\nf.write(DATA)\nf.seek(0)\nreturn f", "[]");
    assert!(by_kernel);
    assert_eq!(answer.raw_body(), &data()[..]);
}

#[test]
fn sending_begins_where_reading_would() {
    let (by_kernel, answer) = fetch("f = open(PATH, 'rb')\nf.seek(1000)\nassert f.read(10)\nreturn f", "[]");
    assert!(by_kernel);
    assert_eq!((answer.raw_body(), answer.field("Content-Length").as_deref()), (&data()[1010..], Some("98990")));
}

#[test]
fn a_content_length_bounds_what_is_sent() {
    let (by_kernel, answer) = fetch("f = open(PATH, 'rb')\nf.seek(5)\nreturn f", "[('Content-Length', '100')]");
    assert!(by_kernel);
    assert_eq!((answer.raw_body(), answer.summary.fate, answer.summary.sent), (&data()[5..105], Fate::Keep, 100));
}

#[test]
fn a_file_shorter_than_the_content_length_is_cut() {
    with_python(|| {
        let mut server = server("f = open(PATH, 'rb')\nf.seek(99990)\nreturn f", "[('Content-Length', '100')]");
        let answer = server.get(GET);
        assert_eq!((answer.raw_body(), answer.summary.fate), (&data()[99990..], Fate::Cut));
        assert!(server.log().contains("90 bytes less"), "{}", server.log());
    });
}

#[test]
fn what_is_no_plain_file_is_read() {
    for code in [
        "return io.BytesIO(DATA)",
        "class Like:\n    data = io.BytesIO(DATA)\n    def read(self, size):\n        return self.data.read(size)\nreturn Like()",
        "with gzip.open(PATH + '.gz', 'wb') as f:\n    f.write(DATA)\nreturn gzip.open(PATH + '.gz')",
        "class Sub(io.BufferedReader):\n    pass\nreturn Sub(io.FileIO(PATH))",
    ] {
        let (by_kernel, answer) = fetch(code, "[]");
        assert!(!by_kernel, "{code}");
        assert_eq!(answer.body().len(), String::from_utf8_lossy(&data()).len(), "{code}");
        let (_, answer) = fetch(code, "[('Content-Length', '100000')]");
        assert_eq!(answer.raw_body(), &data()[..], "{code}");
    }
}

#[test]
fn a_pipe_is_read() {
    let (by_kernel, answer) = fetch("r, w = os.pipe()\nos.write(w, b'piped')\nos.close(w)\nreturn os.fdopen(r, 'rb')", "[]");
    assert!(!by_kernel);
    answer.expect_ok("piped");
}

#[test]
fn an_empty_file_is_an_empty_body() {
    let (_, answer) = fetch("open(PATH, 'wb').close()\nreturn open(PATH, 'rb')", "[]");
    answer.expect_ok("");
    assert_eq!(answer.field("Content-Length").as_deref(), Some("0"));
}

#[test]
fn head_sends_no_file() {
    with_python(|| {
        let mut server = server("return open(PATH, 'rb')", "[]");
        let answer = server.get("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!((answer.raw_body(), answer.field("Content-Length").as_deref()), (&b""[..], Some("100000")));
    });
}

/// Counts `close` of what the code makes; `drop_after` as in [`Setup`].
#[track_caller]
fn expect_closed_once(code: &'static str, drop_after: Option<usize>) {
    with_python(move || {
        let mut server = server(code, "[]");
        server.call(GET.as_bytes(), &Setup { drop_after, ..Setup::default() });
        server.get("GET /closed HTTP/1.1\r\nHost: h\r\n\r\n").expect_ok("['closed']");
    });
}

#[test]
fn the_file_is_closed_once_on_every_path() {
    let like =
        "class Like:\n    read = io.BytesIO(DATA).read\n    def close(self):\n        CLOSED.append('closed')\nreturn Like()";
    let temporary = "class File(tempfile._TemporaryFileWrapper):\n    def close(self):\n        CLOSED.append('closed')\nFile.__name__ = \
                     '_TemporaryFileWrapper'\nreturn File(open(PATH, 'rb'), PATH, False)";
    for code in [like, temporary] {
        for drop_after in [None, Some(0), Some(1), Some(2)] {
            expect_closed_once(code, drop_after);
        }
    }
}

#[test]
fn an_object_without_close_is_fine() {
    let (_, answer) = fetch(
        "class Like:\n    left = [b'a', b'b', b'']\n    def read(self, size):\n        return self.left.pop(0)\nreturn Like()",
        "[]",
    );
    assert_eq!(answer.summary.fate, Fate::Keep);
}

#[test]
fn the_wrapper_is_an_iterable_for_middleware() {
    with_python(|| {
        let mut server = Server::new(
            "import io\ndef app(e, s):\n    wrapper = e['wsgi.file_wrapper'](io.BytesIO(b'abcdef'), 4)\n    s('200 OK', [])\n    return (block.upper() \
             for block in wrapper)\n",
        );
        server.get(GET).expect_ok("ABCDEF");
        let mut server = Server::new("def app(e, s):\n    s('200 OK', [])\n    return e['wsgi.file_wrapper'](None, 0)\n");
        assert_eq!(server.get(GET).status(), 500);
    });
}
