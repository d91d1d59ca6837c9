//! What the server uses again for the next request: it carries nothing from one to the other, whatever the application did.

mod wsgi_driver;

use tapster::worker::app::Peer;
use wsgi_driver::{Server, Setup, with_python};

/// More often than it takes for a header block to be known and its environ to be used again.
const OFTEN: usize = 6;

/// Header fields of a block that is kept.
const FIELDS: &str = "HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-Own: one\r\n\r\n";

#[test]
fn no_change_of_an_environ_is_in_the_next() {
    with_python(|| {
        let mut server = Server::new(
            "CHANGES = [
    lambda e: e.__setitem__('PATH_INFO', 'dirty'),
    lambda e: e.__setitem__('mark', 'dirty'),
    lambda e: e.__delitem__('HTTP_X_OWN'),
    lambda e: e.pop('REMOTE_ADDR'),
    lambda e: e.popitem(),
    lambda e: e.clear(),
    lambda e: e.update(REMOTE_PORT='dirty'),
    lambda e: e.setdefault('mark', 'dirty'),
    lambda e: dict.__setitem__(e, 'wsgi.input', None),
    lambda e: dict.__init__(e, HTTP_HOST='dirty'),
    lambda e: exec('mark = 1', e),
    lambda e: [e.pop(key) for key in list(e)[5:]],
    lambda e: (e.__setitem__('mark', 1), e.__delitem__('mark'), e.__setitem__('QUERY_STRING', 'dirty')),
]
def app(environ, start_response):
    start_response('200 OK', [])
    seen = sorted((key, value) for key, value in environ.items() if type(value) is not type(start_response))
    seen = [(key, value if type(value) is str else type(value)) for key, value in seen]
    if environ['REQUEST_METHOD'] == 'POST':
        CHANGES[int(environ['HTTP_X_CHANGE'])](environ)
    if environ['REQUEST_METHOD'] == 'PUT':
        return [b'%d' % len(CHANGES)]
    return [repr(seen).encode()]
",
        );
        let get = |server: &mut Server, change: usize| {
            let answer = server.get(&format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Own: one\r\nX-Change: {change:02}\r\n\r\n"));
            assert_eq!(answer.status(), 200, "{}", server.log());
            answer.body().to_owned()
        };
        let changes = server.get(&format!("PUT /x {FIELDS}")).body().parse::<usize>().expect("a number");
        for change in 0..changes {
            let clean = get(&mut server, change);
            for round in 0..OFTEN {
                server.get(&format!("POST /x HTTP/1.1\r\nHost: a\r\nX-Own: one\r\nX-Change: {change:02}\r\n\r\n"));
                assert_eq!(get(&mut server, change), clean, "change {change} in round {round}");
            }
        }
    });
}

#[test]
fn an_environ_that_is_kept_stays_as_it_was() {
    with_python(|| {
        let mut server = Server::new(
            "kept = []
def app(environ, start_response):
    start_response('200 OK', [])
    kept.append((environ, dict(environ)))
    for old, copy in kept:
        assert old == copy and list(old) == list(copy)
    assert len(set(id(old) for old, _ in kept)) == len(kept)
    return [b'kept']
",
        );
        for round in 0..OFTEN * 2 {
            let peer = Peer { addr: "10.0.0.1".into(), port: round.to_string().as_str().into(), trusted: false, proxy: None };
            let answer = server.call(format!("GET /{round} {FIELDS}").as_bytes(), &Setup { peer, ..Setup::default() });
            assert_eq!(answer.body(), "kept", "{}", server.log());
        }
    });
}

#[test]
fn whatever_still_refers_to_an_environ_keeps_it_from_the_next_request() {
    // An object that lives has its identity for itself.
    with_python(|| {
        let mut server = Server::new(
            "import sys
kept, identities = [], []
KEEP = [lambda e: e.keys(), lambda e: iter(e.items()), lambda e: (lambda: e), lambda e: sys._getframe(1), lambda e: e.get,
        lambda e: {'environ': e}, lambda e: e.values()]
def app(environ, start_response):
    assert id(environ) not in identities
    number = int(environ['QUERY_STRING'])
    start_response('200 OK', [])
    if number % 2:
        kept.append(KEEP[number // 2 % len(KEEP)](environ))
        identities.append(id(environ))
    return [b'own']
",
        );
        for round in 0..OFTEN * 4 {
            assert_eq!(server.get(&format!("GET /?{round} {FIELDS}")).body(), "own", "{}", server.log());
        }
    });
}

#[test]
fn what_an_environ_offered_belongs_to_its_request_alone() {
    with_python(|| {
        let mut server = Server::new(
            "kept = []
def app(environ, start_response):
    number = int(environ['QUERY_STRING'])
    hints, gone = environ['wsgi.early_hints'], environ['tapster.client_disconnected']
    assert gone() is False
    for old_hints, old_gone in kept:
        assert old_hints is not hints and old_gone is not gone
        assert old_gone() is True
        old_hints([('Link', '</a.css>')])
    if number % 3 == 0:
        kept.append((hints, gone))
    start_response('200 OK', [])
    return [b'own']
",
        );
        for round in 0..OFTEN * 3 {
            let answer = server.get(&format!("GET /?{round} {FIELDS}"));
            assert_eq!((answer.body(), answer.pushes), ("own".to_owned(), 0), "{}", server.log());
        }
    });
}

#[test]
fn each_client_of_a_known_block_gets_its_own_values() {
    // As it is; kept; changed; kept and changed.
    for habit in
        ["pass", "kept.append(environ)", "environ['HTTP_COOKIE'] = environ['mark'] = 'dirty'", "kept.append(environ.copy())"]
    {
        with_python(move || {
            let mut server = Server::new(&format!(
                "kept = []
NAMES = ['HTTP_COOKIE', 'HTTP_AUTHORIZATION', 'HTTP_REFERER', 'HTTP_X_REQUEST_ID', 'HTTP_IF_NONE_MATCH', 'mark']
def app(environ, start_response):
    start_response('200 OK', [])
    seen = [environ.get(name) for name in NAMES]
    {habit}
    return [repr(seen).encode('latin-1')]
"
            ));
            for number in 0..OFTEN * 12 {
                // Some values are those of the request before, some of the one before that.
                let (cookie, user, page, id) = (number / 2, number % 2, number % 3, number);
                let answer = server.get(&format!(
                    "GET / HTTP/1.1\r\nHost: a\r\nCookie: c={cookie}\r\nAuthorization: Basic {user}\r\nReferer: /{page}\r\n\
                     X-Request-Id: {id}\r\nIf-None-Match: \"{page}\"\r\n\r\n"
                ));
                let wanted = format!("['c={cookie}', 'Basic {user}', '/{page}', '{id}', '\"{page}\"', None]");
                assert_eq!(answer.body(), wanted, "{habit}");
            }
        });
    }
}

#[test]
fn bodies_and_lengths_are_those_of_their_request() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):
    start_response('200 OK', [])
    body = environ['wsgi.input'].read()
    return [repr([environ.get('CONTENT_LENGTH'), environ['HTTP_COOKIE'], body, environ['wsgi.input'].read()]).encode()]
",
        );
        for round in 0..OFTEN * 3 {
            for body in ["", "a", "bc", &"x".repeat(round)] {
                let len = body.len();
                let head = format!("Host: a\r\nCookie: {round}\r\nContent-Length: {len}\r\nAccept: */*\r\n\r\n");
                let answer = server.get(&format!("POST / HTTP/1.1\r\n{head}{body}"));
                assert_eq!(answer.body(), format!("['{len}', '{round}', b'{body}', b'']"));
            }
            let answer = server.get(&format!("POST / HTTP/1.1\r\nHost: a\r\nCookie: {round}\r\nAccept: */*\r\n\r\n"));
            assert_eq!(answer.body(), format!("[None, '{round}', b'', b'']"));
        }
    });
}

#[test]
fn more_targets_than_are_kept_are_distinguished() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):
    start_response('200 OK', [])
    return ['{PATH_INFO} {QUERY_STRING} {RAW_URI}'.format(**environ).encode()]
",
        );
        let long = "y".repeat(2000);
        for _ in 0..2 {
            for number in 0..300 {
                for tail in ["", &long] {
                    let answer = server.get(&format!("GET /{number}{tail}?q={number} {FIELDS}"));
                    assert_eq!(answer.body(), format!("/{number}{tail} q={number} /{number}{tail}?q={number}"));
                }
            }
        }
    });
}

#[test]
fn targets_and_methods_change_from_request_to_request_of_a_known_block() {
    with_python(|| {
        let mut server = Server::new(
            "NAMES = ['REQUEST_METHOD', 'PATH_INFO', 'QUERY_STRING', 'RAW_URI', 'REQUEST_URI', 'HTTP_HOST']
def app(environ, start_response):
    start_response('200 OK', [])
    return ['|'.join(environ[name] for name in NAMES).encode()]
",
        );
        let requests = [
            ("GET / ", "GET|/||/|/|a"),
            ("GET /a%20b?q ", "GET|/a b|q|/a%20b?q|/a%20b?q|a"),
            ("DELETE /a%20b?q ", "DELETE|/a b|q|/a%20b?q|/a%20b?q|a"),
            ("PURGE http://other/x?y ", "PURGE|/x|y|http://other/x?y|http://other/x?y|other"),
            ("GET http://other/x?y ", "GET|/x|y|http://other/x?y|http://other/x?y|other"),
            ("GET /x?y ", "GET|/x|y|/x?y|/x?y|a"),
            ("OPTIONS * ", "OPTIONS|||*|*|a"),
            ("OPTIONS http://other ", "OPTIONS|||http://other|http://other|other"),
            ("GET http://other ", "GET|/||http://other|http://other|other"),
            ("GET /x ", "GET|/x||/x|/x|a"),
        ];
        for (first, _) in requests {
            for (second, wanted) in requests {
                server.get(&format!("{first}{FIELDS}"));
                assert_eq!(server.get(&format!("{second}{FIELDS}")).body(), wanted, "{second}behind {first}");
            }
        }
    });
}
