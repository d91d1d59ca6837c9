//! The files of certificates and keys: what is refused at the start and by `--check-config`, with what to do, what is a warning, and
//! what becomes of files that change.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use tempfile::TempDir;

use common::client::Client;
use common::server::{Ended, Running, Server, binary, signal_to};
use common::tls::{Authority, EXPIRED, Wish, server_wish};
use common::tools::{Finished, run, tool};
use common::{SOON, place, user, wait_for};

const USAGE: i32 = 2;

/// How often the files are looked at here.
const LOOK: &str = "100ms";

/// Looks after which nothing more is to be expected of a state that does not change.
const LOOKS: Duration = Duration::from_millis(700);

/// Files that openssl has made, by what they are.
struct Files(TempDir);

impl Files {
    /// `None` without openssl.
    fn get() -> Option<&'static Self> {
        static FILES: OnceLock<Option<Files>> = OnceLock::new();
        FILES.get_or_init(|| tool("openssl").map(|_| Self::make())).as_ref()
    }

    fn make() -> Self {
        let files = Self(place::fresh("certificates-"));
        let issue = |name: &str, names: &str, more: &str| {
            files.openssl(&format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -addext subjectAltName={names} \
                 -keyout {name}.key {more}"
            ));
        };
        for (name, names) in [("a", "DNS:a.test,DNS:*.a.test,IP:127.0.0.1"), ("b", "DNS:b.test"), ("ca", "DNS:ca.test")] {
            issue(name, names, &format!("-x509 -days 90 -out {name}.pem"));
        }
        issue("soon", "DNS:soon.test", "-x509 -days 3 -out soon.pem");
        issue("leaf", "DNS:leaf.test", "-out leaf.csr");
        files.openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -copy_extensions copy -out leaf.pem",
        );
        files.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout bare.key -out bare.pem");
        files.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key");
        files.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out curve.key");
        files.openssl("pkey -in a.key -aes128 -passout pass:secret -out encrypted.key");
        files.openssl("ec -in a.key -aes128 -passout pass:secret -out encrypted-old.key");
        files.openssl("x509 -in a.pem -outform DER -out a.der");
        files.openssl("pkey -in a.key -outform DER -out key.der");
        files.openssl("pkcs12 -export -in a.pem -inkey a.key -passout pass:secret -out a.p12");
        files.write("both.pem", &[files.read("a.key"), files.read("a.pem")].concat());
        files.write("chain.pem", &[files.read("leaf.pem"), files.read("ca.pem")].concat());
        files.write("turned.pem", &[files.read("ca.pem"), files.read("leaf.pem")].concat());
        files.write("broken.pem", &[files.read("a.pem"), files.read("b.pem")].concat());
        files.write("cut.pem", &files.read("a.pem")[..200]);
        files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        files.write("empty", "");
        files.write("large", &"x".repeat((1 << 20) + 1));
        files.write("open.key", &files.read("a.key"));
        for (name, mode) in [("both.pem", 0o600), ("open.key", 0o644)] {
            fs::set_permissions(files.path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        files.write("long.pem", &[files.read("leaf.pem"), files.read("ca.pem").repeat(10)].concat());
        drop(std::os::unix::net::UnixListener::bind(files.path("socket")).expect("the temp directory is writable"));
        mkfifo(&files.path("fifo"), Mode::S_IRWXU).expect("the temp directory is writable");
        files
    }

    fn openssl(&self, words: &str) {
        run(Command::new("openssl").args(words.split_whitespace()).current_dir(self.0.path()), SOON).succeeded();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("it is there")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the temp directory is writable");
    }

    /// `--check-config` with these options in the directory of the files.
    fn check(&self, options: &[&str]) -> Finished {
        let mut command = Command::new(binary());
        command.arg("--check-config").args(options).current_dir(self.0.path()).env_clear().env("PATH", "/usr/bin:/bin");
        run(&mut command, SOON)
    }

    /// A start with these options, which is to fail.
    fn start(&self, options: &[&str]) -> Ended {
        Server::new("").dir(self.0.path()).options(options).run_to_end()
    }
}

#[test]
fn files_that_cannot_be_served_are_refused_before_anything_is_bound() {
    let Some(files) = Files::get() else { return };
    let pair = |chain: &'static str, key: &'static str| vec!["--certfile", chain, "--keyfile", key];
    for (options, parts) in [
        (vec!["--certfile", "gone.pem"], &["--certfile gone.pem: no such file"][..]),
        (pair("a.pem", "gone.key"), &["--keyfile gone.key: no such file"]),
        (pair("a.pem", "."), &["--keyfile .: it is no regular file"]),
        (vec!["--certfile", "fifo"], &["--certfile fifo: it is no regular file"]),
        (vec!["--certfile", "/dev/zero"], &["it is no regular file"]),
        (pair("a.pem", "/dev/tty"), &["--keyfile /dev/tty: it is no regular file"]),
        (pair("a.pem", "socket"), &["--keyfile socket: it is no regular file"]),
        (vec!["--certfile", "large"], &["it has more than 1048576 bytes"]),
        (vec!["--certfile", "empty"], &["there is no certificate in it", "it is empty"]),
        (vec!["--certfile", "a.pem"], &["--certfile a.pem: there is no private key in it", "name its file by --keyfile"]),
        (pair("leaf.csr", "leaf.key"), &["there is no certificate in it", "but a request for one"]),
        (pair("a.key", "a.key"), &["there is no certificate in it", "but PRIVATE KEY"]),
        (pair("a.der", "a.key"), &["in DER and not in PEM", "openssl x509 -inform DER -in a.der"]),
        (pair("a.pem", "key.der"), &["in DER and not in PEM", "openssl pkey -inform DER -in key.der"]),
        (vec!["--certfile", "a.p12"], &["openssl pkcs12 -nodes -in a.p12"]),
        (pair("cut.pem", "a.key"), &["--certfile cut.pem line 1: what begins there has no end"]),
        (pair("garbage.pem", "a.key"), &["--certfile garbage.pem line 1: the certificate cannot be read"]),
        (pair("a.pem", "b.key"), &["--keyfile b.key line 1: the key is not that of the certificate in a.pem"]),
        (pair("a.pem", "rsa.key"), &["--keyfile rsa.key line 1: the key is not that of the certificate in a.pem"]),
        (pair("a.pem", "curve.key"), &["--keyfile curve.key line 1: the key cannot be used", "P-256"]),
        (pair("a.pem", "encrypted.key"), &["line 1: the key is encrypted", "openssl pkey -in encrypted.key -out NEW.key"]),
        (pair("a.pem", "encrypted-old.key"), &["line 1: the key is encrypted", "openssl pkey -in encrypted-old.key"]),
        (
            pair("turned.pem", "leaf.key"),
            &["--certfile turned.pem line ", "has to be the first one, and the one in line 1 is another"],
        ),
        (
            vec!["--certfile", "both.pem", "--cert-reqs", "required", "--ca-certs", "a.key"],
            &["--ca-certs a.key: there is no certificate in it"],
        ),
    ] {
        let checked = files.check(&options);
        assert_eq!(checked.status.code(), Some(USAGE), "{options:?}: {}", checked.stderr);
        assert_eq!(checked.stderr.lines().count(), 1, "{options:?}: {}", checked.stderr);
        for part in parts {
            assert!(checked.stderr.contains(part), "{options:?} says nothing of {part:?}: {}", checked.stderr);
        }
    }
    let ended = files.start(&["--certfile", "a.pem", "--keyfile", "b.key"]);
    ended.failed(USAGE, &["the key is not that of the certificate"]);
    // Nothing was bound: the address is somebody else's, which would be said first.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let ended = Server::new("").binds([&address]).options(["--certfile", "/nonexistent"]).run_to_end();
    ended.failed(USAGE, &["--certfile /nonexistent: no such file"]);
}

#[test]
fn what_can_be_served_and_should_be_mended_is_a_warning() {
    let Some(files) = Files::get() else { return };
    for (options, parts) in [
        (vec!["--certfile", "both.pem"], &["INFO certificate both.pem for a.test, *.a.test, 127.0.0.1: 89 days left"][..]),
        (vec!["--certfile", "chain.pem", "--keyfile", "leaf.key"], &["INFO certificate chain.pem for leaf.test"]),
        (vec!["--certfile", "soon.pem", "--keyfile", "soon.key"], &["INFO certificate soon.pem for soon.test: 2 days left"]),
        (
            vec!["--certfile", "a.pem", "--keyfile", "open.key"],
            &["WARNING", "every user of this machine can read the key", "chmod o="],
        ),
        (
            vec!["--certfile", "broken.pem", "--keyfile", "a.key"],
            &["WARNING", "broken.pem line ", "does not sign the one before it"],
        ),
        (
            vec!["--certfile", "long.pem", "--keyfile", "leaf.key"],
            &["WARNING --certfile long.pem: it has 11 certificates", "some clients refuse more than 10"],
        ),
        (vec!["--certfile", "bare.pem", "--keyfile", "bare.key"], &["WARNING", "names no host (subjectAltName)"]),
        (vec!["--certfile", "both.pem", "--ca-certs", "ca.pem"], &["WARNING", "no client is asked for a certificate"]),
    ] {
        let checked = files.check(&options);
        // The days are those of the moment, and the moment of their making is some seconds ago.
        let said = checked.stderr.replace("90 days", "89 days").replace("3 days", "2 days");
        assert_eq!(checked.status.code(), Some(0), "{options:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{options:?} says nothing of {part:?}: {said}");
        }
    }
    let many = ["--certfile", "both.pem", "--certfile", "b.pem", "--keyfile", "a.key", "--keyfile", "b.key"];
    let said = files.check(&many).succeeded().stderr;
    assert!(said.contains("certificate both.pem") && said.contains("certificate b.pem for b.test"), "{said}");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let Some(files) = Files::get() else { return };
    let encrypted = ["--certfile", "both.pem"];
    for (options, part) in [
        (&["-b", "https:127.0.0.1:0"][..], "needs a certificate: give --certfile and --keyfile"),
        (&["--keyfile", "a.key"], "needs a certificate"),
        (
            &["--certfile", "a.pem", "--keyfile", "a.key", "--keyfile", "b.key"],
            "--keyfile b.key (command line): has no certificate",
        ),
        (&["--certfile", "both.pem", "--cert-reqs", "2"], "needs --ca-certs"),
        (&["--certfile", "both.pem", "-b", "http::80"], "--certfile both.pem (command line): is for no address"),
        (&["--certfile", "both.pem", "--protocol", "scgi"], "not with a gateway's protocol"),
        (&["--certfile", "both.pem", "--ciphers", "HIGH"], "ciphers are not chosen by hand"),
        (&["--certfile", "both.pem", "--tls-min", "1.1"], "is not spoken any more (RFC 8996)"),
    ] {
        let checked = files.check(options);
        assert_eq!(checked.status.code(), Some(USAGE), "{options:?}: {}", checked.stderr);
        assert!(checked.stderr.contains(part), "{options:?}: {}", checked.stderr);
    }
    for word in ["--do-handshake-on-connect", "--suppress-ragged-eofs", "--ssl-version=5"] {
        files.check(&[&encrypted[..], &[word]].concat()).succeeded();
    }
}

/// A server with its files in its directory.
struct Site {
    server: Running,
    files: &'static Files,
}

impl Site {
    /// Serves what `live/cert` and `live/key` are, by the link `live`, which leads to the first pair.
    fn start(files: &'static Files, watch: &str, options: &[&str]) -> Self {
        Self::start_with(files, watch, Self::server().options(options))
    }

    fn server() -> Server {
        Server::new("probe").env("PYTHONPATH", common::apps().display().to_string())
    }

    fn start_with(files: &'static Files, watch: &str, server: Server) -> Self {
        let server = server.options(["--tls-watch", watch, "--certfile", "live/cert", "--keyfile", "live/key"]);
        let dir = server.temp().to_owned();
        for (release, name) in [("1", "a"), ("2", "b")] {
            fs::create_dir(dir.join(release)).expect("the temp directory is writable");
            fs::copy(files.path(&format!("{name}.pem")), dir.join(release).join("cert")).expect("the temp directory is writable");
            fs::copy(files.path(&format!("{name}.key")), dir.join(release).join("key")).expect("the temp directory is writable");
        }
        symlink("1", dir.join("live")).expect("a link can be made");
        let server = server.dir(&dir).start_without_waiting();
        let site = Self { server, files };
        site.heard("https://127.0.0.1:", 1);
        site
    }

    fn dir(&self) -> &Path {
        self.server.temp()
    }

    /// Lets the link lead elsewhere in one step.
    fn switch(&self, release: &str) {
        let new = self.dir().join("new");
        symlink(release, &new).and_then(|()| fs::rename(new, self.dir().join("live"))).expect("the temp directory is writable");
    }

    /// How many records have this.
    fn count(&self, part: &str) -> usize {
        self.server.log().records().iter().filter(|record| record.text.contains(part)).count()
    }

    /// Its address, `127.0.0.1:443`.
    fn address(&self) -> String {
        let text = self.server.log().text();
        let (_, rest) = text.split_once("https://").expect("the log has it");
        rest.split_whitespace().next().expect("an address follows").to_owned()
    }

    /// Who is named as the subject by the certificate that a new client gets.
    fn shown(&self) -> String {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &self.address()]);
        let said = run(&mut client, SOON).stdout;
        let subject =
            said.lines().find_map(|line| line.strip_prefix("subject=CN = ").or_else(|| line.strip_prefix("subject=CN=")));
        subject.unwrap_or_else(|| panic!("no certificate in {said}")).to_owned()
    }

    /// Waits until every worker shows that of this subject.
    #[track_caller]
    fn shows(&self, subject: &str) {
        wait_for(&format!("the certificate of {subject}"), SOON, || (0..8).all(|_| self.shown() == subject).then_some(()));
    }

    #[track_caller]
    fn heard(&self, part: &str, count: usize) {
        wait_for(&format!("{count} of {part:?} in\n{}", self.server.log().text()), SOON, || {
            (self.count(part) >= count).then_some(())
        });
    }
}

#[test]
fn a_link_that_leads_to_other_files_renews_certificates_and_what_is_not_whole_is_waited_for() {
    let Some(files) = Files::get() else { return };
    let mut site = Site::start(files, LOOK, &[]);
    site.heard("certificate live/cert for a.test", 1);
    site.switch("2");
    site.heard("certificates renewed", 1);
    site.heard("certificate live/cert for b.test", 1);
    // The same content in another file is nothing new.
    let place = site.dir().join("2/cert");
    fs::copy(&place, site.dir().join("copy")).and_then(|_| fs::rename(site.dir().join("copy"), &place)).expect("it is ours");
    // The key of another certificate stays.
    site.server.expect_error("certificates are not renewed");
    fs::copy(site.files.path("a.key"), site.dir().join("2/key")).expect("it is ours");
    site.heard(
        "certificates are not renewed, the present ones are served on: --keyfile live/key line 1: the key is not that of",
        1,
    );
    std::thread::sleep(LOOKS);
    assert_eq!(site.count("certificates are not renewed"), 1, "it is said once");
    // Another useless state is another one.
    fs::remove_file(&place).expect("it is there");
    site.heard("certificates are not renewed, the present ones are served on: --certfile live/cert: no such file", 1);
    // It is as it was, by another file.
    fs::copy(site.files.path("b.key"), site.dir().join("2/key")).expect("it is ours");
    fs::copy(site.files.path("b.pem"), &place).expect("it is ours");
    std::thread::sleep(LOOKS);
    assert_eq!(
        (site.count("certificates renewed"), site.count("certificates are not renewed")),
        (1, 2),
        "the content is the same"
    );
    site.switch("1");
    site.heard("certificates renewed", 2);
    site.server.stop();
}

#[test]
fn a_copy_from_before_is_no_renewal() {
    let Some(files) = Files::get() else { return };
    let mut site = Site::start(files, LOOK, &[]);
    site.server.expect_error("the new certificate has expired, the one that is served has not");
    let old = site.dir().join("old");
    fs::create_dir(&old).expect("the temp directory is writable");
    let authority = Authority::new("Past");
    let expired = authority.issue("expired", Wish { valid: EXPIRED, ..server_wish("DNS:a.test") });
    for (from, to) in [(expired.chain, "cert"), (expired.key, "key")] {
        fs::copy(from, old.join(to)).expect("the temp directory is writable");
    }
    site.switch("old");
    site.heard("certificates are not renewed, the present ones are served on: --certfile live/cert: the new certificate has", 1);
    site.shows("a");
    assert_eq!(site.count("certificates renewed"), 0);
    site.server.stop();
}

/// Between two looks there is time to see the first and to change files, also on a busy machine.
const SELDOM: &str = "5s";

#[test]
fn files_that_are_whole_by_the_second_look_are_taken_without_a_word() {
    let Some(files) = Files::get() else { return };
    let site = Site::start(files, SELDOM, &[]);
    let place = site.dir().join("1/cert");
    let looks = Inotify::init(InitFlags::IN_CLOEXEC).expect("the kernel has it");
    fs::copy(files.path("b.pem"), site.dir().join("copy"))
        .and_then(|_| fs::rename(site.dir().join("copy"), &place))
        .expect("it is ours");
    looks.add_watch(&place, AddWatchFlags::IN_CLOSE_NOWRITE).expect("it is there");
    // The certificate alone is another one; it is read once, and found of no use.
    looks.read_events().expect("a look");
    fs::copy(files.path("b.key"), site.dir().join("1/key")).expect("it is ours");
    site.heard("certificates renewed", 1);
    assert_eq!(site.count("certificates are not renewed"), 0, "{}", site.server.log().text());
    site.server.stop();
}

#[test]
fn without_looks_a_reload_reads_the_files_and_refuses_what_is_of_no_use() {
    let Some(files) = Files::get() else { return };
    let mut site = Site::start(files, "0", &["--preload"]);
    site.server.expect_error("reload failed");
    fs::remove_file(site.dir().join("1/key")).expect("it is there");
    site.server.signal(Signal::SIGHUP);
    site.heard("reload failed, generation 1 keeps serving: --keyfile live/key: no such file", 1);
    site.switch("2");
    site.server.signal(Signal::SIGHUP);
    site.heard("reload done", 1);
    site.heard("for b.test", 1);
    site.shows("b");
    site.server.stop();
}

#[test]
fn workers_of_a_mold_are_born_with_what_was_renewed() {
    let Some(files) = Files::get() else { return };
    let mut site = Site::start_with(files, LOOK, Site::server().workers(2).options(["--preload"]));
    site.shows("a");
    site.switch("2");
    site.shows("b");
    site.server.expect_error("SIGKILL");
    let before = site.server.workers();
    before.iter().for_each(|pid| signal_to(*pid, Signal::SIGKILL));
    site.server.wait_for_end_of(&before);
    wait_for("others", SOON, || (site.server.workers().len() == 2).then_some(()));
    site.shows("b");
    site.server.stop();
}

/// Reads the key, and tells why it cannot.
const THIEF: &str = "
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    try:
        return [open(environ['QUERY_STRING'], 'rb').read()]
    except OSError as error:
        return [type(error).__name__.encode()]
";

/// The server with workers of the other user.
fn given_up(other: &user::Other, server: Server) -> Server {
    user::open_to_all(server.temp());
    let server = server.options(["--user", user::NAME]);
    match other.python_home() {
        Some(home) => server.env("PYTHONHOME", home.display().to_string()),
        None => server,
    }
}

#[test]
fn a_key_that_others_may_replace_is_named() {
    let (Some(files), Some(other)) = (Files::get(), user::other()) else { return };
    let server = given_up(&other, Server::source(THIEF));
    let dir = server.temp().join("open");
    fs::create_dir(&dir).expect("the temp directory is writable");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("it is ours");
    fs::copy(files.path("both.pem"), dir.join("both.pem")).expect("the temp directory is writable");
    let server = server.options(["--certfile", &dir.join("both.pem").display().to_string()]).start_without_waiting();
    server.log().wait(&[
        "WARNING",
        "both.pem: others may write to its directory, and could have root hand them the key of another server",
    ]);
    server.log().wait(&["https://127.0.0.1:"]);
    server.stop();
}

#[test]
fn the_master_reads_keys_that_its_workers_may_not() {
    let (Some(files), Some(other)) = (Files::get(), user::other()) else { return };
    let site = Site::start_with(files, LOOK, given_up(&other, Server::source(THIEF)));
    for (release, subject) in [("1", "a"), ("2", "b")] {
        user::open_to_all(&site.dir().join(release));
        site.switch(release);
        site.shows(subject);
        let url = format!("https://{}/?{}", site.address(), site.dir().join(release).join("key").display());
        let answer = run(Command::new("curl").args(["-sk", &url]), SOON).succeeded().stdout;
        assert_eq!(answer, "PermissionError");
    }
    site.server.stop();
}

/// Passes a listening socket as descriptor 5.
const PASS: &str = "
import os, socket, sys
kind, path, *command = sys.argv[1:]
given = socket.socket(getattr(socket, kind))
given.bind(('127.0.0.1', 0) if kind == 'AF_INET' else path)
given.listen()
os.dup2(given.fileno(), 5)
os.set_inheritable(5, True)
os.execv(command[0], command)
";

#[test]
fn a_socket_that_is_passed_is_encrypted_if_it_is_of_tcp() {
    let Some(files) = Files::get() else { return };
    for (kind, place) in [("AF_INET", "https://127.0.0.1:"), ("AF_UNIX", "unix:")] {
        let server = Server::new("probe").options(["--certfile", &files.path("both.pem").display().to_string()]);
        let socket = server.temp().join("socket").display().to_string();
        let server = server.launcher(["python3", "-c", PASS, kind, &socket]).binds(["fd://5"]).start_without_waiting();
        server.log().wait(&[" on ", place]);
        assert_eq!(server.log().find(&["WARNING", "no address is encrypted"]).is_some(), kind == "AF_UNIX");
        server.stop();
    }
}

/// What operators are shown.
fn figures(server: &Running) -> Value {
    let mut client = Client::connect(&server.control());
    client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.response().json()
}

#[test]
fn whether_tls_is_spoken_stays_until_a_restart() {
    let Some(files) = Files::get() else { return };
    let server = Server::new("probe").workers_by_default();
    let path = server.temp().join("t.toml");
    let (with, without) =
        (format!("workers = 1\ncertfile = {:?}\n", files.path("both.pem").display().to_string()), "workers = 1\n");
    for (first, second, scheme) in [(with.as_str(), without, "https://"), (without, with.as_str(), "http://")] {
        fs::write(&path, first).expect("the temp directory is writable");
        let server =
            Server::new("probe").workers_by_default().options(["--config", &path.display().to_string()]).start_without_waiting();
        server.log().wait(&[&format!("{scheme}127.0.0.1:")]);
        fs::write(&path, second).expect("the temp directory is writable");
        server.signal(Signal::SIGHUP);
        server.log().wait(&["WARNING", "changed, but only a restart can apply it: --certfile"]);
        server.log().wait(&["reload done"]);
        server.signal(Signal::SIGUSR2);
        server.log().wait(&["reload done: all workers are of generation 3"]);
        let told = |record: &common::errorlog::Record| record.text.contains("only a restart can apply it: --certfile");
        assert_eq!(server.log().records().iter().filter(|record| told(record)).count(), 2, "the new program keeps it too");
        let shown = figures(&server);
        assert_eq!(shown["listeners"][0]["protocol"], scheme.trim_end_matches("://"));
        assert_eq!(shown["certificates"].as_array().map(Vec::len), Some(usize::from(scheme == "https://")));
        server.stop();
    }
}
