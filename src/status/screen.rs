//! The document as text for a terminal: what `tapster status` prints once and `tapster top` each second.

use std::fmt::Write;

use super::document::{CertificateFigures, ChangeKind, Document, ExitRecord, RunningRequest, WorkerFigures};
use super::times::Times;

/// A day.
const SECONDS_PER_DAY: f64 = 24.0 * 3600.0;

/// Columns where nothing says how many there are.
const WIDTH: usize = 110;

/// Fewest columns that are drawn for.
const WIDTH_MIN: usize = 40;

/// Columns of the bars.
const BAR: usize = 40;

/// Boxes for the threads of a worker.
const BOXES: usize = 12;

/// Workers that ended and are shown.
const EXITS: usize = 4;

/// Lines on the screen for the reason why a change has failed.
const REASON_LINES: usize = 12;

/// Bars of rising height.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Parts of a bar's last column.
const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// How a document is looked at.
#[derive(Clone, Debug)]
pub struct View {
    /// Columns of the terminal.
    pub width: usize,
    /// Requests per second at the last looks, the latest last.
    pub rates: Vec<f64>,
    /// Order of the workers.
    pub sort: Sort,
}

/// Order of the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By their slots.
    #[default]
    Slot,
    /// The busiest first, then by their requests.
    Busy,
    /// The largest first.
    Memory,
    /// Those whose request is oldest first.
    Oldest,
}

impl Sort {
    /// The next one, round and round.
    pub fn next(self) -> Self {
        match self {
            Self::Slot => Self::Busy,
            Self::Busy => Self::Memory,
            Self::Memory => Self::Oldest,
            Self::Oldest => Self::Slot,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Busy => "busy",
            Self::Memory => "memory",
            Self::Oldest => "oldest request",
        }
    }
}

impl Default for View {
    fn default() -> Self {
        Self { width: WIDTH, rates: Vec::new(), sort: Sort::Slot }
    }
}

/// What has happened between two documents, per second.
struct Interval<'a> {
    now: &'a Document,
    before: Option<&'a Document>,
    span: f64,
}

impl<'a> Interval<'a> {
    fn new(now: &'a Document, before: Option<&'a Document>) -> Self {
        // Another process has begun to count anew.
        let before = before.filter(|before| before.server.pid == now.server.pid && before.requests.total <= now.requests.total);
        let span = before.map_or(0.0, |before| now.now_s - before.now_s);
        Self { now, before: before.filter(|_| span > 0.0), span }
    }

    fn of(&self, figure: impl Fn(&Document) -> f64) -> Option<f64> {
        let before = self.before?;
        Some(((figure(self.now) - figure(before)) / self.span).max(0.0))
    }
}

/// Requests per second between two documents; `None` when they do not belong together.
pub fn rate(now: &Document, before: &Document) -> Option<f64> {
    Interval::new(now, Some(before)).of(|document| document.requests.total as f64)
}

/// One picture of the server. Rates need the document of a moment `before`.
pub fn frame(now: &Document, before: Option<&Document>, view: &View) -> String {
    let width = view.width.max(WIDTH_MIN);
    let pace = Interval::new(now, before);
    let mut lines = head(now, &pace, view, width);
    lines.extend([
        String::new(),
        format!(
            "{:>6} {:>7} {:<8} {:<BOXES$} {:>7} {:>7} {:>5} {:>5} {:>6} {:>6}  {}",
            "WORKER", "PID", "STATE", "THREADS", "REQ/S", "REQS", "CONN", "CPU%", "RSS", "AGE", "REQUEST (OLDEST)"
        ),
    ]);
    if now.workers.is_empty() {
        lines.push("none".to_owned());
    }
    for worker in sorted(now, view.sort) {
        lines.push(self::worker(worker, &pace));
    }
    if !now.exits.is_empty() {
        lines.extend([String::new(), "LAST EXITS".to_owned()]);
        lines.extend(now.exits.iter().take(EXITS).map(|exit| self::exit(exit, now.now_s)));
    }
    if let Some(change) = now.last_change.as_ref().filter(|change| !change.ok) {
        let what = match change.kind {
            ChangeKind::Reload => "RELOAD",
            ChangeKind::Upgrade => "UPGRADE",
        };
        let ago = duration((now.now_s - change.at_s).max(0.0));
        lines.extend([String::new(), format!("LAST {what} FAILED {ago} ago")]);
        let why = essence(change.error.as_deref().unwrap_or("see the log"));
        lines.extend(why.iter().flat_map(|line| wrapped(line, width)).take(REASON_LINES));
    }
    join(lines, width)
}

/// All requests in the application, the oldest first.
pub fn requests(now: &Document) -> String {
    let mut lines = vec![format!("{:>6} {:>6} {:>8}  REQUEST", "WORKER", "THREAD", "FOR")];
    if now.in_flight.is_empty() {
        lines.push("none".to_owned());
    }
    lines.extend(now.in_flight.iter().map(|request| {
        format!("{:>6} {:>6} {:>8}  {}", request.worker, request.thread, duration(request.age_s), in_words(request))
    }));
    join(lines, usize::MAX)
}

fn head(now: &Document, pace: &Interval<'_>, view: &View, width: usize) -> Vec<String> {
    let (server, capacity, queue) = (&now.server, &now.capacity, &now.queue);
    let state = format!("{:?}", server.state).to_uppercase();
    let title = format!(
        "tapster {}  {}  {state}  generation {}  pid {}  up {}  {}",
        server.version,
        server.name,
        server.generation,
        server.pid,
        duration(server.uptime_s),
        server.python
    );
    let served = |times: &Times| {
        let quantile = |share| times.quantile(share).map_or_else(|| "–".to_owned(), duration);
        format!("50% {:>7}  99% {:>7}", quantile(0.5), quantile(0.99))
    };
    let recent = pace.before.and_then(|before| now.requests.duration.since(&before.requests.duration));
    let recent = recent.filter(|times| times.count > 0).unwrap_or_else(|| now.requests.duration.clone());
    let errors = |document: &Document| {
        let server_errors = document.requests.by_status.iter().filter(|(code, _)| code.starts_with('5'));
        server_errors.map(|(_, count)| *count as f64).sum()
    };
    let shown = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), number);
    let backlog: Vec<String> =
        now.listeners.iter().filter_map(|listener| Some(format!("{}/{}", listener.backlog?, listener.backlog_limit?))).collect();
    let sent = pace.of(|document| document.requests.bytes_sent as f64).map_or_else(|| "–".to_owned(), bytes);
    let busy = format!("{}/{}", capacity.threads_busy, capacity.threads);
    let mut lines = vec![title, String::new()];
    let rate = pace.of(|document| document.requests.total as f64);
    lines.push(format!("req/s {:>8}  {:<BAR$}  {}", shown(rate), spark(&view.rates), served(&recent)));
    lines.push(format!(
        "busy  {busy:>8}  {}  5xx/s {}  total {}",
        bar(capacity.threads_busy as f64 / capacity.threads.max(1) as f64),
        shown(pace.of(errors)),
        number(now.requests.total as f64)
    ));
    let backlog = if backlog.is_empty() { String::new() } else { format!("  backlog {}", backlog.join(" ")) };
    lines.push(format!(
        "wait  {:>8}{backlog}  connections {}  sent {sent}/s  workers {} of {} ready",
        queue.waiting, now.connections.open, capacity.workers_ready, capacity.workers_wanted
    ));
    if !now.certificates.is_empty() {
        lines.push(format!(
            "tls   {}",
            now.certificates.iter().map(|one| certificate(one, now.now_s)).collect::<Vec<_>>().join("  ")
        ));
    }
    lines.iter_mut().for_each(|line| *line = cut(line, width));
    lines
}

fn certificate(certificate: &CertificateFigures, now: f64) -> String {
    let name = certificate.names.first().map_or("(no name)", String::as_str);
    let more = if certificate.names.len() > 1 { " and others" } else { "" };
    let days = (certificate.expires_s as f64 - now) / SECONDS_PER_DAY;
    if days < 0.0 { format!("{name}{more} HAS EXPIRED") } else { format!("{name}{more} {} days left", days.floor()) }
}

fn sorted(now: &Document, sort: Sort) -> Vec<&WorkerFigures> {
    let mut workers: Vec<&WorkerFigures> = now.workers.iter().collect();
    let oldest = |worker: &WorkerFigures| oldest(now, worker).map_or(0.0, |request| request.age_s);
    match sort {
        Sort::Slot => {}
        Sort::Busy => workers.sort_by_key(|worker| std::cmp::Reverse((worker.threads_busy, worker.requests))),
        Sort::Memory => workers.sort_by_key(|worker| std::cmp::Reverse(worker.rss_bytes)),
        Sort::Oldest => workers.sort_by(|a, b| oldest(b).total_cmp(&oldest(a))),
    }
    workers
}

fn oldest<'a>(now: &'a Document, worker: &WorkerFigures) -> Option<&'a RunningRequest> {
    // They are listed oldest first.
    now.in_flight.iter().find(|request| request.worker == worker.worker)
}

fn worker(worker: &WorkerFigures, pace: &Interval<'_>) -> String {
    let earlier = |document: &Document| document.workers.iter().find(|other| other.pid == worker.pid).cloned();
    let known = pace.before.and_then(earlier);
    let per_second = |now: f64, before: f64| ((now - before) / pace.span).max(0.0);
    let rate = known.as_ref().map(|before| per_second(worker.requests as f64, before.requests as f64));
    let cpu = known.as_ref().map(|before| 100.0 * per_second(worker.cpu_s, before.cpu_s));
    let shown = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), number);
    let state = format!("{:?}", worker.state).to_lowercase();
    let request = match oldest(pace.now, worker) {
        Some(request) => format!("{:>7} {}", duration(request.age_s), in_words(request)),
        None => "      –".to_owned(),
    };
    format!(
        "{:>6} {:>7} {state:<8} {:<BOXES$} {:>7} {:>7} {:>5} {:>5} {:>6} {:>6}  {request}",
        worker.worker,
        worker.pid,
        boxes(worker),
        shown(rate),
        number(worker.requests as f64),
        worker.connections,
        cpu.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.0}")),
        bytes(worker.rss_bytes as f64),
        duration(worker.age_s),
    )
}

fn boxes(worker: &WorkerFigures) -> String {
    if worker.threads > BOXES as u64 {
        return format!("{}/{}", worker.threads_busy, worker.threads);
    }
    (0..worker.threads).map(|thread| if thread < worker.threads_busy { '■' } else { '□' }).collect()
}

fn exit(exit: &ExitRecord, now: f64) -> String {
    let detail = exit.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let serving = exit.requests.first().map(|request| format!("  serving {request}")).unwrap_or_default();
    let ago = duration((now - exit.at_s).max(0.0));
    format!("{ago:>7} ago  worker {} ({})  {}{detail}{serving}", exit.worker, exit.pid, exit.cause.name())
}

fn in_words(request: &RunningRequest) -> String {
    let mut text = format!("{} {}", request.method, request.path);
    // Writing to a string cannot fail.
    if let Some(query) = &request.query {
        let _ = write!(text, "?{query}");
    }
    if let Some(client) = &request.client {
        let _ = write!(text, "  from {client}");
    }
    if let Some(id) = &request.request_id {
        let _ = write!(text, "  id {id}");
    }
    if request.held {
        text.push_str("  (keeps its connection)");
    }
    text
}

/// Lines of at most this width. Figures come from elsewhere: a terminal must not obey what is in them.
fn join(lines: Vec<String>, width: usize) -> String {
    lines.iter().map(|line| cut(line, width).trim_end().to_owned() + "\n").collect()
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).map(|character| if character.is_control() { '?' } else { character }).collect()
}

/// What of a reason fits on a screen: where a traceback follows, its last line, which names the exception, and not the rest.
fn essence(why: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = why.lines().collect();
    let traceback = lines.iter().position(|line| line.trim_start().starts_with("Traceback (most recent call last)"));
    if let (Some(from), Some(last)) = (traceback, lines.iter().rposition(|line| !line.trim().is_empty())) {
        lines.truncate(last + 1);
        lines.drain(from..last);
    }
    lines
}

/// The words of a text on lines of at most this width, a longer word cut into several.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut room = width;
    for word in text.split_whitespace() {
        let characters: Vec<char> = word.chars().collect();
        if room < width && characters.len() < room {
            lines.last_mut().expect("there is one from the start").push(' ');
            room -= 1;
        } else if room < width {
            lines.push(String::new());
            room = width;
        }
        for piece in characters.chunks(width) {
            if piece.len() > room {
                lines.push(String::new());
                room = width;
            }
            lines.last_mut().expect("there is one from the start").extend(piece);
            room -= piece.len();
        }
    }
    lines
}

fn spark(rates: &[f64]) -> String {
    let rates = &rates[rates.len().saturating_sub(BAR)..];
    let top = rates.iter().copied().fold(1.0, f64::max);
    let height = |rate: &f64| ((rate / top) * (HEIGHTS.len() as f64 - 0.001)) as usize;
    rates.iter().map(|rate| HEIGHTS[height(rate).min(HEIGHTS.len() - 1)]).collect()
}

fn bar(share: f64) -> String {
    let filled = share.clamp(0.0, 1.0) * BAR as f64;
    let whole = filled as usize;
    let part = PARTS[((filled - whole as f64) * PARTS.len() as f64) as usize % PARTS.len()];
    let full = "█".repeat(whole.min(BAR));
    let rest: String =
        std::iter::once(part).filter(|_| whole < BAR).chain(std::iter::repeat('·')).take(BAR - whole.min(BAR)).collect();
    full + &rest
}

/// A time in at most six characters.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.1 => format!("{:.1}ms", s * 1e3),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1}s"),
        s if s < 3600.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.0}h", s / 3600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// A number in at most six characters.
fn number(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.1}G", n / 1e9),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n if n >= 10.0 || n.fract() == 0.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

/// A size in at most six characters.
fn bytes(bytes: f64) -> String {
    match bytes {
        b if b >= f64::from(1 << 30) => format!("{:.1}G", b / f64::from(1 << 30)),
        b if b >= f64::from(10 << 20) => format!("{:.0}M", b / f64::from(1 << 20)),
        b if b >= f64::from(1 << 20) => format!("{:.1}M", b / f64::from(1 << 20)),
        b => format!("{:.0}K", b / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::Change;
    use crate::status::{ServerState, WorkerState};

    fn document(total: u64, at: f64) -> Document {
        let mut document = Document { now_s: at, ..Document::default() };
        document.server.name = "shop".into();
        document.server.state = ServerState::Serving;
        document.requests.total = total;
        document.capacity.threads = 4;
        document.capacity.threads_busy = 2;
        document.workers = vec![
            WorkerFigures { worker: 0, pid: 7, state: WorkerState::Ready, threads: 2, threads_busy: 1, ..Default::default() },
            WorkerFigures { worker: 1, pid: 8, state: WorkerState::Draining, threads: 2, requests: total, ..Default::default() },
        ];
        let request =
            RunningRequest { worker: 1, method: "GET".into(), path: "/x\x1b[2J".into(), age_s: 2.5, ..Default::default() };
        document.in_flight = vec![request];
        document
    }

    #[test]
    fn a_frame_has_what_the_server_does() {
        let text = frame(&document(300, 12.0), Some(&document(100, 10.0)), &View::default());
        assert!(text.starts_with("tapster   shop  SERVING  generation 0"), "{text}");
        assert!(text.contains("req/s      100  "), "{text}");
        assert!(text.contains("busy       2/4  ████████████████████ ···"), "{text}");
        assert!(text.contains("     1       8 draining □□               100     300"), "{text}");
        assert!(text.contains("   2.5s GET /x?[2J\n"), "what clients send is no order to the terminal: {text}");
    }

    #[test]
    fn without_an_earlier_look_there_are_no_rates() {
        for before in [None, Some(document(500, 1.0)), Some(document(300, 12.0))] {
            let text = frame(&document(300, 12.0), before.as_ref(), &View::default());
            assert!(text.contains("req/s        –"), "{text}");
        }
    }

    #[test]
    fn a_narrow_terminal_cuts_lines_and_nothing_else() {
        let view = View { width: 50, rates: vec![1.0, 4.0, 2.0], ..View::default() };
        let text = frame(&document(300, 12.0), None, &view);
        assert!(text.lines().all(|line| line.chars().count() <= 50), "{text}");
        assert!(text.contains("▂█▄"), "{text}");
    }

    #[test]
    fn a_failed_change_has_its_whole_reason() {
        let named = "upgrade failed, generation 1 keeps serving: generation 2 cannot boot\n\
                     worker 0 (pid 7) cannot boot: cannot load shop.wsgi: importing `shop.wsgi` raised an exception\n";
        let error = format!("{named}  Traceback (most recent call last):\n    File \"x\"\n  ValueError: \x1b[2J no\n");
        let change = Change { kind: ChangeKind::Upgrade, generation: 2, at_s: 10.0, ok: false, error: Some(error) };
        let failed = Document { last_change: Some(change), ..document(300, 12.0) };
        let text = frame(&failed, None, &View { width: 60, ..View::default() });
        let (_, shown) = text.split_once("LAST UPGRADE FAILED 2.0s ago\n").expect("what has failed, and when");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(shown), words(named) + " ValueError: ?[2J no");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn words_are_wrapped() {
        for (text, lines) in [
            ("", vec![""]),
            ("one two", vec!["one two"]),
            ("one two three", vec!["one two", "three"]),
            ("12345678 9", vec!["12345678", "9"]),
            ("a 123456789 b", vec!["a", "12345678", "9 b"]),
        ] {
            assert_eq!(wrapped(text, 8), lines, "{text}");
        }
    }

    #[test]
    fn workers_are_put_in_order() {
        let order = |sort| sorted(&document(5, 1.0), sort).iter().map(|worker| worker.worker).collect::<Vec<_>>();
        assert_eq!((order(Sort::Slot), order(Sort::Busy), order(Sort::Oldest)), (vec![0, 1], vec![0, 1], vec![1, 0]));
        assert_eq!(Sort::Slot.next().next().next().next(), Sort::Slot);
    }

    #[test]
    fn figures_are_short() {
        for (seconds, text) in [(0.0042, "4.2ms"), (0.5, "500ms"), (5.0, "5.0s"), (120.0, "2m"), (7200.0, "2h"), (1e6, "12d")] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(
            (number(9_999.0), number(12_345.0), number(0.5), bytes(3e6)),
            ("9999".into(), "12.3k".into(), "0.5".into(), "2.9M".into())
        );
        assert_eq!((bar(0.0).chars().count(), bar(0.49).chars().count(), bar(1.0).chars().count()), (BAR, BAR, BAR));
    }
}
