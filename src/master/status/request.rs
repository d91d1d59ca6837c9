//! What an operator asks for: the bytes of a request in, its meaning out. Clients of every kind send them, so everything is
//! checked here, and nothing is done.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::Level;
use crate::http::error::Error;
use crate::http::framing::{self, Length};
use crate::http::head::{Head, HeadView, Limits, Parsed, Progress};
use crate::http::target::Target;
use crate::http::terms::Terms;
use crate::status::metrics::MetricsFormat;

/// Largest head of a request in bytes: what a browser sends with its cookies for other servers on the same host is less.
pub const HEAD_MAX: usize = 8 * 1024;

/// Limits of a head; the sum of its parts is bounded by [`HEAD_MAX`].
const LIMITS: Limits = Limits { request_line: 2 * 1024, fields: 64, field_size: HEAD_MAX };

/// Longest time that a request may wait for what it has begun.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Most workers that anybody asks for.
const WORKERS_MAX: usize = 100_000;

/// Which door a connection has come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorKind {
    /// `--status-bind`, which may be reached by anybody: reads only, without details of requests.
    Public {
        /// Whether it is bound to a loopback address: then pages of other hosts must not reach it by a name of theirs that
        /// resolves to this host (DNS rebinding).
        loopback: bool,
    },
    /// The control socket: whoever reaches it may as well send signals.
    Control,
}

/// How figures are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureForm {
    /// As the page.
    Page,
    /// As the document.
    Document,
    /// As metrics.
    Metrics(MetricsFormat),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The figures.
    Figures(FigureForm),
    /// Whether the master lives.
    Live,
    /// Whether requests can be served.
    Ready,
    /// Load configuration and application again, and say how it went within this time.
    Reload {
        /// `None`: nobody waits.
        wait: Option<Duration>,
    },
    /// Become the program that is on the disk now.
    Upgrade,
    /// End.
    Stop {
        /// Whether only the requests that run are finished.
        quick: bool,
    },
    /// Have so many workers.
    Scale(usize),
    /// Record this severity and above.
    LogLevel(Level),
    /// Open the logs again.
    Reopen,
    /// The stacks of the threads.
    Stacks {
        /// Of this worker; `None`: of all.
        worker: Option<usize>,
    },
}

/// A request that is answered at once: it cannot be carried out as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorRefusal {
    /// Status of the answer.
    pub status: u16,
    /// Why, in one clause.
    pub why: String,
    /// The methods that the path has, for 405.
    pub allow: Option<&'static str>,
}

impl DoorRefusal {
    fn new(status: u16, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), allow: None }
    }
}

/// A whole request.
#[derive(Clone, Debug)]
pub struct DoorRequest {
    /// What it asks for.
    pub ask: Result<Ask, DoorRefusal>,
    /// How the answer goes over the wire.
    pub terms: Terms,
}

/// The requests of one connection, as far as they have come.
#[derive(Debug, Default)]
pub struct RequestReader {
    bytes: Vec<u8>,
    progress: Progress,
}

impl RequestReader {
    /// Takes in bytes of the client, at most [`Self::room`].
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many more bytes are taken in before a request is taken out.
    pub fn room(&self) -> usize {
        HEAD_MAX.saturating_sub(self.bytes.len())
    }

    /// Whether nothing of a request has come.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next request out, if it is complete.
    pub fn next(&mut self, door: DoorKind) -> Option<DoorRequest> {
        let mut head = Head::default();
        match head.resume(&self.bytes, &LIMITS, &mut self.progress) {
            Ok(Parsed::Partial) if self.room() > 0 => None,
            Ok(Parsed::Partial) => Some(self.give_up(&Error::HeadTooLong(HEAD_MAX))),
            Ok(Parsed::Complete) => {
                let request = self.understand(&head, door);
                // What follows a refused request cannot be trusted, and the connection ends.
                self.bytes.drain(..head.len.min(self.bytes.len()));
                self.progress = Progress::default();
                Some(request)
            }
            Err(error) => Some(self.give_up(&error)),
        }
    }

    fn give_up(&mut self, error: &Error) -> DoorRequest {
        self.bytes.clear();
        refused(DoorRefusal::new(error.status(), error.to_string()), Terms::default())
    }

    fn understand(&self, head: &Head, door: DoorKind) -> DoorRequest {
        let view = HeadView { head, bytes: &self.bytes };
        let framing = match framing::of(head, &self.bytes) {
            Ok(framing) => framing,
            Err(error) => return refused(DoorRefusal::new(error.status(), error.to_string()), Terms::of(view, false)),
        };
        let terms = Terms::of(view, framing.persistent);
        if !matches!(framing.length, Length::None | Length::Known(0)) {
            return refused(DoorRefusal::new(413, "a request here has no body: leave it out"), terms);
        }
        DoorRequest { ask: self.ask(view, door), terms }
    }

    fn ask(&self, view: HeadView<'_>, door: DoorKind) -> Result<Ask, DoorRefusal> {
        let HeadView { head, bytes } = view;
        let target = Target::of(head, bytes).map_err(|error| DoorRefusal::new(error.status(), error.to_string()))?;
        let field =
            |name: &str| head.iter(bytes).find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value);
        if door == (DoorKind::Public { loopback: true }) {
            let authority = target.authority.of(bytes);
            let host = if authority.is_empty() { field("host").unwrap_or_default() } else { authority };
            if !is_loopback(host) {
                let why = "this address is for its own host: ask for localhost, 127.0.0.1 or [::1]";
                return Err(DoorRefusal::new(421, why));
            }
        }
        let accept = field("accept").and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        let read = match target.path(bytes) {
            b"/" => Some(Ask::Figures(FigureForm::Page)),
            b"/status.json" => Some(Ask::Figures(FigureForm::Document)),
            b"/metrics" => Some(Ask::Figures(FigureForm::Metrics(MetricsFormat::accepted(accept)))),
            b"/health/live" => Some(Ask::Live),
            b"/health/ready" => Some(Ask::Ready),
            _ => None,
        };
        let method = view.method();
        match read {
            Some(ask) if matches!(method, b"GET" | b"HEAD") => Ok(ask),
            Some(_) => Err(not_allowed("GET, HEAD")),
            None if door == DoorKind::Control => self.order(view, &target),
            None if matches!(method, b"GET" | b"HEAD") => Err(no_such_path()),
            None => Err(not_allowed("GET, HEAD")),
        }
    }

    /// What only the control socket does.
    fn order(&self, view: HeadView<'_>, target: &Target) -> Result<Ask, DoorRefusal> {
        let path = target.path(view.bytes);
        let wanted: &[&str] = match path {
            b"/reload" => &["wait"],
            b"/stop" => &["quick"],
            b"/workers" => &["count"],
            b"/log-level" => &["level"],
            b"/stacks" => &["worker"],
            b"/upgrade" | b"/reopen" => &[],
            _ => return Err(no_such_path()),
        };
        let (method, allowed) = if path == b"/stacks" { ("GET", "GET") } else { ("POST", "POST") };
        if view.method() != method.as_bytes() {
            return Err(not_allowed(allowed));
        }
        let query = Query::parse(target.query.of(view.bytes), wanted)?;
        match path {
            b"/reload" => {
                let wait = query.number("wait", WAIT_MAX.as_secs() as usize)?;
                Ok(Ask::Reload { wait: wait.map(|seconds| Duration::from_secs(seconds as u64)) })
            }
            b"/upgrade" => Ok(Ask::Upgrade),
            b"/stop" => Ok(Ask::Stop { quick: query.has("quick")? }),
            b"/workers" => {
                let count = query.number("count", WORKERS_MAX)?.filter(|count| *count > 0);
                count.map(Ask::Scale).ok_or_else(|| DoorRefusal::new(400, "say how many workers: /workers?count=4"))
            }
            b"/log-level" => {
                let level = Level::parse(query.value("level").unwrap_or_default());
                level.map(Ask::LogLevel).map_err(|why| DoorRefusal::new(400, format!("the level {why}")))
            }
            b"/reopen" => Ok(Ask::Reopen),
            _ => Ok(Ask::Stacks { worker: query.number("worker", usize::MAX)? }),
        }
    }
}

fn refused(refusal: DoorRefusal, terms: Terms) -> DoorRequest {
    DoorRequest { ask: Err(refusal), terms: terms.closing() }
}

fn not_allowed(methods: &'static str) -> DoorRefusal {
    DoorRefusal { allow: Some(methods), ..DoorRefusal::new(405, format!("this path has the methods {methods} here")) }
}

fn no_such_path() -> DoorRefusal {
    DoorRefusal::new(404, "there is /, /status.json, /metrics, /health/live and /health/ready")
}

/// The parameters of a command.
#[derive(Debug)]
struct Query<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Query<'a> {
    /// Refuses what is not `wanted`, and what comes twice: a misspelt parameter, or the other one of two, would be another command.
    fn parse(text: &'a [u8], wanted: &[&str]) -> Result<Self, DoorRefusal> {
        let refused = |why: String| Err(DoorRefusal::new(400, why));
        let text = std::str::from_utf8(text).map_err(|_| DoorRefusal::new(400, "the query is not UTF-8"))?;
        let mut found: Vec<(&str, Option<&str>)> = Vec::new();
        for pair in text.split('&').filter(|_| !text.is_empty()) {
            let (name, value) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
            let shown = name.escape_debug();
            match () {
                () if name.is_empty() => return refused("a parameter of the query has no name".into()),
                () if !wanted.contains(&name) => return refused(format!("no such parameter here: {shown}")),
                () if found.iter().any(|(other, _)| *other == name) => {
                    return refused(format!("{shown} is there twice: say it once"));
                }
                () => found.push((name, value)),
            }
        }
        Ok(Self(found))
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.get(name).map(Option::unwrap_or_default)
    }

    fn get(&self, name: &str) -> Option<Option<&'a str>> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// Whether a parameter is there, which is all that it says.
    fn has(&self, name: &str) -> Result<bool, DoorRefusal> {
        match self.get(name) {
            Some(Some(_)) => Err(DoorRefusal::new(400, format!("{name} has no value: leave it out, or the whole parameter"))),
            found => Ok(found.is_some()),
        }
    }

    fn number(&self, name: &str, max: usize) -> Result<Option<usize>, DoorRefusal> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten().filter(|number| *number <= max);
        number.map(Some).ok_or_else(|| DoorRefusal::new(400, format!("{name} must be a whole number of at most {max}")))
    }
}

/// Whether a Host field names this host itself; a client that sends none is no browser.
fn is_loopback(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.is_empty()
        || name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: DoorKind = DoorKind::Public { loopback: false };
    const LOOPBACK: DoorKind = DoorKind::Public { loopback: true };

    /// The verdict on a request, however its bytes come.
    #[track_caller]
    fn heard(text: &str, door: DoorKind) -> (Result<Ask, u16>, bool) {
        let verdict = |request: DoorRequest| (request.ask.map_err(|refusal| refusal.status), request.terms.persistent);
        let mut whole = RequestReader::default();
        whole.push(text.as_bytes());
        let at_once = verdict(whole.next(door).expect("it is complete"));
        let mut pieces = RequestReader::default();
        let last = text.bytes().find_map(|byte| {
            pieces.push(&[byte]);
            pieces.next(door)
        });
        assert_eq!(verdict(last.expect("it is complete")), at_once, "{text}");
        at_once
    }

    fn get(path: &str, door: DoorKind) -> Result<Ask, u16> {
        heard(&format!("GET {path} HTTP/1.1\r\nHost: localhost:9000\r\n\r\n"), door).0
    }

    fn post(path: &str) -> Result<Ask, u16> {
        heard(&format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"), DoorKind::Control).0
    }

    #[test]
    fn every_door_has_the_reads() {
        for door in [PUBLIC, LOOPBACK, DoorKind::Control] {
            assert_eq!(get("/", door), Ok(Ask::Figures(FigureForm::Page)));
            assert_eq!(get("/status.json?now", door), Ok(Ask::Figures(FigureForm::Document)));
            assert_eq!(get("/metrics", door), Ok(Ask::Figures(FigureForm::Metrics(MetricsFormat::Prometheus))));
            assert_eq!(get("/health/live", door), Ok(Ask::Live));
            assert_eq!(get("http://localhost/health/ready", door), Ok(Ask::Ready));
            assert_eq!(get("/status", door), Err(404));
        }
        let scrape = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n";
        assert_eq!(heard(scrape, PUBLIC).0, Ok(Ask::Figures(FigureForm::Metrics(MetricsFormat::OpenMetrics))));
    }

    #[test]
    fn only_the_control_socket_has_commands() {
        assert_eq!(get("/reload", PUBLIC), Err(404));
        assert_eq!(get("/reload", DoorKind::Control), Err(405));
        assert_eq!(heard("POST /reload HTTP/1.1\r\nHost: x\r\n\r\n", PUBLIC).0, Err(405));
        assert_eq!(heard("POST / HTTP/1.1\r\nHost: x\r\n\r\n", DoorKind::Control).0, Err(405));
        assert_eq!(post("/reload"), Ok(Ask::Reload { wait: None }));
        assert_eq!(post("/reload?wait=60"), Ok(Ask::Reload { wait: Some(Duration::from_secs(60)) }));
        assert_eq!(post("/stop"), Ok(Ask::Stop { quick: false }));
        assert_eq!(post("/stop?quick"), Ok(Ask::Stop { quick: true }));
        assert_eq!(post("/workers?count=3"), Ok(Ask::Scale(3)));
        assert_eq!(post("/log-level?level=debug"), Ok(Ask::LogLevel(Level::Debug)));
        assert_eq!(post("/reopen"), Ok(Ask::Reopen));
        assert_eq!(post("/upgrade"), Ok(Ask::Upgrade));
        assert_eq!(get("/stacks?worker=2", DoorKind::Control), Ok(Ask::Stacks { worker: Some(2) }));
    }

    #[test]
    fn a_command_with_a_mistake_is_none() {
        for path in
            ["/workers", "/workers?count=0", "/workers?count=+3", "/workers?count=3x", "/workers?count=99999999999999999999"]
        {
            assert_eq!(post(path), Err(400), "{path}");
        }
        for path in [
            "/reload?wait=5&wait=3",
            "/reload?wait=5&wait=5",
            "/reload?wait",
            "/reload?wait=",
            "/reload?wait=5&",
            "/reload?&wait=5",
            "/reload?=5",
            "/reload?wait=5&worker=1",
            "/reload?wait=3601",
            "/reload?Wait=5",
            "/stop?quick&quick",
            "/stop?quick=",
            "/stop?quick=no",
            "/stop?quick=0",
            "/workers?count",
            "/workers?count=3&count=4",
            "/log-level?level=",
            "/log-level?level=info&level=debug",
        ] {
            assert_eq!(post(path), Err(400), "{path}");
        }
        assert_eq!(get("/stacks?worker=1&worker=2", DoorKind::Control), Err(400));
        assert_eq!(get("/stacks?worker", DoorKind::Control), Err(400));
        let twice = Query::parse(b"wait=5&wait=3", &["wait"]).unwrap_err();
        assert_eq!((twice.status, twice.why.as_str()), (400, "wait is there twice: say it once"));
        for path in ["/stop?quik", "/reload?wait=-1", "/log-level?level=loud", "/log-level", "/reopen?x=1"] {
            assert_eq!(post(path), Err(400), "{path}");
        }
    }

    #[test]
    fn a_loopback_door_knows_its_names() {
        let asked = |host: &str| heard(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), LOOPBACK).0.is_ok();
        for host in ["localhost", "LOCALHOST.:80", "127.0.0.1:9000", "127.9.9.9", "[::1]:9000", "x.localhost", ""] {
            assert!(asked(host), "{host}");
        }
        for host in ["rebound.example:9000", "10.0.0.1", "localhost.example", "[::2]", "127.0.0.1.example"] {
            assert!(!asked(host), "{host}");
        }
        let absolute = "GET http://rebound.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(heard(absolute, LOOPBACK).0, Err(421));
    }

    #[test]
    fn what_cannot_be_trusted_ends_the_connection() {
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 413),
            ("POST /reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
            ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ] {
            assert_eq!(heard(text, DoorKind::Control), (Err(status), false), "{text}");
        }
        assert_eq!(
            heard("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", PUBLIC),
            (Ok(Ask::Figures(FigureForm::Page)), false)
        );
    }

    #[test]
    fn requests_that_come_together_are_taken_out_one_by_one() {
        let mut reader = RequestReader::default();
        reader.push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET");
        let asks: Vec<_> = std::iter::from_fn(|| reader.next(PUBLIC)).map(|request| request.ask).collect();
        assert_eq!(asks, [Ok(Ask::Figures(FigureForm::Page)), Ok(Ask::Figures(FigureForm::Metrics(MetricsFormat::Prometheus)))]);
        assert!(!reader.is_empty());
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_bound() {
        let mut reader = RequestReader::default();
        reader.push(b"GET / HTTP/1.1\r\n");
        for _ in 0..HEAD_MAX {
            if reader.room() > 0 {
                reader.push(b"a");
            }
        }
        assert_eq!(reader.next(PUBLIC).unwrap().ask.unwrap_err().status, 431);
    }
}
