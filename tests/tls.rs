//! TLS as clients meet it: versions, names, certificates of both sides, what the application is told, and what is no TLS at all.

mod common;

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use common::client::{Address, Client, Response};
use common::server::{Running, Server};
use common::tls::{self, Authority, EXPIRED, Key, Manner, TLS12, TLS13, Wish, client_wish, server_wish};
use common::{SOON, tools, venv, wait_for};

const GET: &str = "GET /environ HTTP/1.1\r\nHost: test\r\n\r\n";

fn server() -> Server {
    Server::new("probe").tls()
}

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).expect("it is a name")
}

fn ask_for(server: &Running, name: ServerName<'static>, config: Arc<ClientConfig>) -> io::Result<Response> {
    let mut client = Client::try_connect_tls(server.address(), name, config)?;
    client.try_send(GET.as_bytes())?;
    client.try_response_to("GET")
}

fn ask(server: &Running, config: Arc<ClientConfig>) -> io::Result<Response> {
    ask_for(server, tls::localhost(), config)
}

/// What the application was told, as this client spoke.
#[track_caller]
fn environ(server: &Running, config: Arc<ClientConfig>) -> Value {
    let response = ask(server, config).expect("an answer");
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// One more client is served.
#[track_caller]
fn serves(server: &Running) {
    assert_eq!(ask(server, Manner::default().forgetful()).expect("an answer").status, 200);
}

#[test]
fn the_application_is_told_how_its_client_speaks() {
    let server = server().start();
    assert!(matches!(server.address(), Address::Tls(_)), "{}", server.address());
    for (version, expected) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        let manner = Manner { version: Some(version), ..Manner::default() };
        let seen = environ(&server, manner.config());
        assert_eq!(seen["SSL_PROTOCOL"], expected);
        assert_eq!(seen["wsgi.url_scheme"], "https");
        assert_eq!(seen["HTTPS"], "on");
        assert_eq!(seen["SERVER_PORT"], server.address().tcp().port().to_string());
        assert_eq!(seen["SSL_CLIENT_VERIFY"], "NONE");
        assert_eq!((&seen["SSL_CLIENT_S_DN"], &seen["SSL_CLIENT_CERT"]), (&Value::Null, &Value::Null));
        let cipher = seen["SSL_CIPHER"].as_str().expect("a name");
        assert!(cipher.contains("AES") || cipher.contains("CHACHA20"), "{cipher}");
        assert!(!cipher.starts_with("TLS13_"), "the name is OpenSSL's, not the library's: {cipher}");
    }
    server.stop();
}

#[test]
fn what_is_older_than_the_oldest_version_is_refused() {
    let openssl = |server: &Running, version: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-connect", &server.address().tcp().to_string()]);
        tools::run(&mut command, SOON).status.success()
    };
    let (both, newer) = (server().start(), server().options(["--tls-min", "1.3"]).start());
    for (server, version, accepted) in [
        (&both, "-tls1_1", false),
        (&both, "-tls1_2", true),
        (&both, "-tls1_3", true),
        (&newer, "-tls1_2", false),
        (&newer, "-tls1_3", true),
    ] {
        assert_eq!(openssl(server, version), accepted, "{version}");
        serves(server);
    }
    newer.stop();
    both.stop();
}

#[test]
fn each_name_has_its_certificate() {
    let authority = Authority::new("Names");
    let issue = |name: &str, names: &str| authority.issue(name, Wish { subject: "/CN=any", ..server_wish(names) });
    let (first, second) = (issue("first", "DNS:first.test"), issue("second", "DNS:second.test,DNS:other.test"));
    let (wild, exact) = (issue("wild", "DNS:*.wild.test"), issue("exact", "DNS:exact.wild.test"));
    let server = Server::new("probe").certificate(&first).certificate(&second).certificate(&wild).certificate(&exact).start();
    for (asked, expected) in [
        ("first.test", &first),
        ("second.test", &second),
        ("OTHER.test", &second),
        ("a.wild.test", &wild),
        ("exact.wild.test", &exact),
        // A star is one label (RFC 6125 section 6.4.3).
        ("a.b.wild.test", &first),
        ("wild.test", &first),
        ("unknown.test", &first),
        // An address asks for no name (RFC 6066 section 3).
        ("127.0.0.1", &first),
    ] {
        for version in [&TLS12, &TLS13] {
            let manner = Manner { version: Some(version), ..Manner::default() };
            let mut client = Client::try_connect_tls(server.address(), name(asked), manner.config()).expect("a handshake");
            let shown = client.tls().conn.peer_certificates().expect("one").to_vec();
            assert_eq!(shown, tls::certificates(&expected.chain), "{asked} is shown {}", expected.chain.display());
            assert_eq!(client.get("/").status, 200);
        }
    }
    server.stop();
}

#[test]
fn certificates_of_both_kinds_are_accepted_by_clients_that_check() {
    let authority = Authority::new("Kinds");
    for key in [Key::Ecdsa, Key::Rsa] {
        let certificate = authority.issue("server", Wish { key, ..server_wish("DNS:localhost") });
        let server = Server::new("probe").certificate(&certificate).start();
        let root = authority.root();
        for version in [&TLS12, &TLS13] {
            let manner = Manner { root: Some(&root), version: Some(version), ..Manner::default() };
            assert_eq!(environ(&server, manner.config())["HTTPS"], "on", "{key:?}");
        }
        let (other, _) = tls::shared();
        let stranger = other.root();
        assert!(ask(&server, Manner { root: Some(&stranger), ..Manner::default() }.config()).is_err(), "the client sees to it");
        serves(&server);
        server.stop();
    }
}

/// Servers that ask for certificates: optional, required.
fn asking(authority: &Authority) -> [Running; 2] {
    ["optional", "required"].map(|wish| {
        let roots = authority.root().display().to_string();
        server().options(["--ca-certs", &roots, "--cert-reqs", wish]).start()
    })
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let authority = Authority::new("Clients");
    let known = authority.issue("known", client_wish("/O=People/CN=Known One"));
    let [optional, required] = asking(&authority);
    for version in [&TLS12, &TLS13] {
        let manner = Manner { version: Some(version), ..Manner::default() };
        let seen = environ(&optional, manner.config());
        assert_eq!((&seen["SSL_CLIENT_VERIFY"], &seen["SSL_CLIENT_S_DN"]), (&"NONE".into(), &Value::Null));
        assert!(ask(&required, manner.config()).is_err(), "without a certificate");
        // Each twice: the second time it resumes, and is known all the same.
        let config = Manner { certificate: Some(&known), ..manner }.config();
        for server in [&optional, &optional, &required, &required] {
            let seen = environ(server, config.clone());
            assert_eq!(seen["SSL_CLIENT_VERIFY"], "SUCCESS");
            // The last part first (RFC 2253 section 2.1).
            assert_eq!(seen["SSL_CLIENT_S_DN"], "CN=Known One,O=People");
            let pem = seen["SSL_CLIENT_CERT"].as_str().expect("it is there");
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeezed(pem), squeezed(&std::fs::read_to_string(&known.chain).expect("it is there")));
        }
    }
    optional.stop();
    required.stop();
}

#[test]
fn a_certificate_that_does_not_hold_is_no_optional_one() {
    let (authority, stranger) = (Authority::new("Clients"), Authority::new("Clients"));
    let expired = authority.issue("expired", Wish { valid: EXPIRED, ..client_wish("/CN=Late") });
    let foreign = stranger.issue("foreign", client_wish("/CN=Foreign"));
    let of_server = authority.issue("server", Wish { usage: "serverAuth", ..client_wish("/CN=A server") });
    let servers = asking(&authority);
    for server in &servers {
        for version in [&TLS12, &TLS13] {
            for wrong in [&expired, &foreign, &of_server] {
                let config = Manner { version: Some(version), certificate: Some(wrong), ..Manner::default() }.config();
                let answer = ask(server, config);
                assert!(answer.is_err(), "{}: {answer:?}", wrong.chain.display());
            }
        }
        let held = authority.issue("good", client_wish("/CN=Good"));
        let config = Manner { certificate: Some(&held), ..Manner::default() }.config();
        assert_eq!(environ(server, config)["SSL_CLIENT_S_DN"], "CN=Good");
    }
    servers.into_iter().for_each(|server| drop(server.stop()));
}

/// What a subject is in text: RFC 2253 section 2.4, the same with which openssl speaks of it.
#[test]
fn odd_names_of_clients_are_escaped() {
    let authority = Authority::new("Clients");
    let roots = authority.root().display().to_string();
    let server = server().options(["--ca-certs", &roots, "--cert-reqs", "required"]).start();
    for (index, subject) in [
        "/CN=a,b\\+c\"d\\\\e<f>g;h",
        "/CN=#hash",
        "/CN= blanks ",
        "/CN=Zoë Ünïcode",
        "/CN=line\nend\r\nX-Injected: yes",
        "/C=DE/O=A=B/OU=one/OU=two/CN=many",
        "/CN=one+emailAddress=one@example.test",
        "/CN=tab\tand \u{1}",
    ]
    .into_iter()
    .enumerate()
    {
        let certificate = authority.issue(&format!("odd{index}"), client_wish(subject));
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"]).arg(&certificate.chain);
        let expected = tools::run(&mut openssl, SOON).succeeded().stdout;
        let seen = environ(&server, Manner { certificate: Some(&certificate), ..Manner::default() }.config());
        let found = seen["SSL_CLIENT_S_DN"].as_str().expect("a name");
        assert!(!found.bytes().any(|byte| byte < b' '), "{found:?}");
        // Other escapes of the same bytes are as good; which of several parts of one name goes first is nobody's rule.
        if !subject.contains('+') && !subject.contains(|letter: char| !letter.is_ascii() || letter < ' ') {
            assert_eq!(found, expected.trim_end_matches('\n').trim_start_matches("subject="), "{subject:?}");
        }
    }
    server.stop();
}

#[test]
fn plain_http_is_told_that_the_port_speaks_tls() {
    let server = server().start();
    let plain = Address::Tcp(server.address().tcp());
    for request in ["GET / HTTP/1.1\r\nHost: test\r\n\r\n", "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"]
    {
        let mut client = Client::connect(&plain);
        client.send(request);
        let response = client.response();
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.closes() && response.text().to_lowercase().contains("https"), "{response:?}");
        assert!(client.is_closed());
    }
    serves(&server);
    server.stop();
}

#[test]
fn some_binds_speak_tls_and_some_do_not() {
    let server = server().binds(["https:127.0.0.1:0", "http:127.0.0.1:0", "unix:{temp}/s", "127.0.0.1:0"]).start();
    let [secure, plain, unix, usual] = server.addresses() else { panic!("four") };
    for (address, scheme) in [(secure, "https"), (plain, "http"), (unix, "http"), (usual, "https")] {
        let seen = Client::connect(address).get("/environ").json();
        assert_eq!(seen["wsgi.url_scheme"], scheme, "{address}");
        assert_eq!(seen["HTTPS"].as_str(), (scheme == "https").then_some("on"), "{address}");
        assert_eq!(seen["SSL_PROTOCOL"].is_string(), scheme == "https", "{address}");
    }
    server.stop();
}

#[test]
fn what_is_no_handshake_ends_its_connection_and_nothing_else() {
    let server = server().options(["--log-level", "debug"]).start();
    let plain = Address::Tcp(server.address().tcp());
    let mut hello = Vec::new();
    let mut connection = ClientConnection::new(tls::anyone(), tls::localhost()).expect("it can begin");
    connection.write_tls(&mut hello).expect("a vector takes everything");
    let changed = |at: usize, byte: u8| {
        let mut changed = hello.clone();
        changed[at] = byte;
        changed
    };
    let cases: Vec<Vec<u8>> = vec![
        b"\x16".to_vec(),
        b"\x00\x00\x00\x00".to_vec(),
        vec![0xff; 20_000],
        // SSL 2.0's hello, an alert, application data, and a record of no known type.
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".to_vec(),
        b"\x15\x03\x01\x00\x02\x02\x28".to_vec(),
        b"\x17\x03\x03\x00\x05hello".to_vec(),
        b"\x18\x03\x03\x00\x03\x01\x40\x00".to_vec(),
        // A record, and a handshake message, longer than may be.
        b"\x16\x03\x01\xff\xff".to_vec(),
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff".to_vec(),
        // An empty handshake record, a thousand times.
        b"\x16\x03\x01\x00\x00".repeat(1000),
        hello[..hello.len() / 2].to_vec(),
        changed(5, 2),
        changed(9, 9),
        changed(hello.len() - 1, 0xff),
        [hello.as_slice(), b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"].concat(),
        [hello.as_slice(), &hello].concat(),
    ];
    for case in &cases {
        let mut client = Client::connect(&plain);
        // It may have closed before it has read everything.
        let _ = client.try_send(case);
        client.finish_sending();
        let answer = client.rest();
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", answer.escape_ascii());
        serves(&server);
    }
    assert_eq!(server.workers().len(), 1);
    server.stop();
}

#[test]
fn the_protocols_are_those_of_http_1() {
    let server = server().start();
    let offering = |protocols: &[&[u8]]| {
        let mut config = Arc::unwrap_or_clone(Manner::default().forgetful());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Client::try_connect_tls(server.address(), tls::localhost(), Arc::new(config))
    };
    let mut client = offering(&[b"h2", b"http/1.1"]).expect("there is one for both");
    assert_eq!(client.tls().conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(client.get("/").status, 200);
    let mut client = offering(&[b"http/1.0", b"http/1.1"]).expect("there are two for both");
    assert_eq!(client.tls().conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let mut client = offering(&[b"http/1.0"]).expect("older clients are served");
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let mut client = offering(&[]).expect("nobody has to name one");
    assert_eq!(client.get("/").status, 200);
    // RFC 7301 section 3.2.
    assert!(offering(&[b"h2"]).is_err_and(|error| error.to_string().contains("NoApplicationProtocol")));
    server.stop();
}

#[test]
fn a_hello_that_comes_byte_by_byte_is_a_hello() {
    let server = server().start();
    for version in [&TLS12, &TLS13] {
        let manner = Manner { version: Some(version), ..Manner::default() };
        let mut connection = ClientConnection::new(manner.forgetful(), tls::localhost()).expect("it can begin");
        let mut socket = std::net::TcpStream::connect(server.address().tcp()).expect("it listens");
        socket.set_nodelay(true).and(socket.set_read_timeout(Some(SOON))).expect("a socket");
        let mut all = Vec::new();
        while connection.is_handshaking() {
            all.clear();
            while connection.wants_write() {
                connection.write_tls(&mut all).expect("a vector takes everything");
            }
            all.iter().for_each(|byte| socket.write_all(&[*byte]).expect("it listens"));
            if connection.is_handshaking() {
                assert_ne!(connection.read_tls(&mut socket).expect("it answers"), 0);
                connection.process_new_packets().expect("it speaks TLS");
            }
        }
        all.clear();
        connection.writer().write_all(GET.as_bytes()).expect("there is room");
        while connection.wants_write() {
            connection.write_tls(&mut all).expect("a vector takes everything");
        }
        all.iter().for_each(|byte| socket.write_all(&[*byte]).expect("it listens"));
        let mut head = [0; 12];
        StreamOwned::new(connection, socket).read_exact(&mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    server.stop();
}

/// Python's own client: the whole answer, and the end in order (`SSLEOFError` otherwise).
const PYTHON: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, sys.argv[3])
with socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20) as raw:
    with context.wrap_socket(raw, server_hostname='localhost', suppress_ragged_eofs=False) as client:
        client.sendall(b'GET /big?n=1000000 HTTP/1.0\\r\\nHost: test\\r\\n\\r\\n')
        answer = b''
        while block := client.recv(65536):
            answer += block
        client.unwrap().close()
head, body = answer.split(b'\\r\\n\\r\\n', 1)
assert head.startswith(b'HTTP/1.1 200'), head
assert body == bytes(1000000), len(body)
";

#[test]
fn python_curl_and_openssl_are_served() {
    let server = server().start();
    let port = server.address().tcp().port().to_string();
    let root = tls::shared().0.root();
    for version in ["1.2", "1.3"] {
        let mut python = Command::new(venv::base_python());
        python.args(["-c", PYTHON, &port]).arg(&root).arg(format!("TLSv{}", version.replace('.', "_")));
        tools::run(&mut python, SOON).succeeded();
        if tools::tool("curl").is_some() {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--tls-max", version, "--tlsv1.2", "--cacert"]).arg(&root);
            curl.args(["--data-binary", "hello"]).arg(format!("https://localhost:{port}/echo")).arg("--ipv4");
            curl.arg("--resolve").arg(format!("localhost:{port}:127.0.0.1"));
            assert_eq!(tools::run(&mut curl, SOON).succeeded().stdout, "hello");
        }
        let mut openssl = Command::new("openssl");
        let option = format!("-tls{}", version.replace('.', "_"));
        openssl.args(["s_client", &option, "-verify_return_error", "-servername", "localhost", "-quiet", "-CAfile"]).arg(&root);
        openssl.args(["-connect", &format!("127.0.0.1:{port}"), "-ign_eof"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = openssl.stderr(Stdio::null()).spawn().expect("openssl is installed");
        let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        child.stdin.take().expect("it is piped").write_all(request.as_bytes()).expect("it reads");
        wait_for("openssl's end", Duration::from_secs(30), || child.try_wait().expect("it is ours"));
        let said = child.wait_with_output().expect("it is ours").stdout;
        assert!(said.starts_with(b"HTTP/1.1 200") && said.ends_with(b"hello\n"), "{}", said.escape_ascii());
    }
    server.stop();
}
