//! The figures of a server against what its clients did: every count is equal, times agree, and nothing ever goes back.

mod common;

use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;

use common::cgroup::MemoryGroup;
use common::client::{Address, Client};
use common::server::{Running, Server, signal_to};
use common::{SOON, wait_for};

/// What a path does is its name; the query is its measure.
const APP: &str = r#"
import os, time
def spin():
    while True: pass
def application(environ, start_response):
    path, query = environ['PATH_INFO'], environ['QUERY_STRING']
    status, body = '200 OK', [b'hello']
    if path == '/status':
        status = query + ' Whatever'
    elif path == '/echo':
        body = [environ['wsgi.input'].read()]
    elif path == '/sleep':
        time.sleep(float(query))
    elif path == '/raise':
        raise ValueError('on purpose')
    elif path == '/stream':
        body = (time.sleep(0.01) or b'x' * 100 for _ in range(int(query)))
    elif path == '/spin':
        while True:
            try:
                spin()
            except TimeoutError:
                if query != 'stubborn': raise
    elif path == '/signal':
        os.kill(os.getpid(), int(query))
        time.sleep(60)
    elif path == '/exit':
        os._exit(int(query))
    elif path == '/eat':
        hoard = []
        while True: hoard.append(bytearray(10_000_000))
    start_response(status, [('Content-Type', 'text/plain')])
    return body
"#;

fn server(options: &[&str]) -> Server {
    let server = Server::source(APP);
    let door = server.temp().join("status");
    server.options(["--status-bind", &format!("unix:{}", door.display())]).options(options)
}

#[track_caller]
fn figures(server: &Running) -> Value {
    let mut client = Client::connect(&Address::Unix(server.temp().join("status")));
    client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.response().json()
}

/// Waits until a figure, by its path in the document, is this: a count is there a moment after the client has its answer.
#[track_caller]
fn await_figure(server: &Running, path: &str, value: u64) -> Value {
    wait_for(&format!("{path} to be {value}"), SOON, || {
        let figures = figures(server);
        let found = figures.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        assert!(found <= value, "{path} is {found}, more than {value}: {figures:#}");
        (found == value).then_some(figures)
    })
}

/// The counts of a histogram beyond a time in seconds.
fn beyond(times: &Value, seconds: f64) -> u64 {
    let bounds = times["bounds_s"].as_array().expect("a list");
    let buckets = times["buckets"].as_array().expect("a list");
    assert_eq!(bounds.len(), buckets.len());
    let longer = |bound: &Value| bound.as_f64().is_none_or(|bound| bound > seconds);
    bounds.iter().zip(buckets).filter(|(bound, _)| longer(bound)).filter_map(|(_, count)| count.as_u64()).sum()
}

#[test]
fn every_count_is_what_the_clients_did() {
    let server = server(&["--limit-request-body", "100000", "--threads", "2"]).workers(2).expect_error("on purpose").start();
    let mut client = server.connect();
    let mut sent = 0;
    let mut total = 0;
    for status in ["200", "201", "302", "404", "404", "418", "451", "500", "599", "477"] {
        client.send(format!("GET /status?{status} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let answer = client.response();
        assert_eq!(answer.status.to_string(), status);
        (sent, total) = (sent + answer.body.len(), total + 1);
    }
    for size in [0, 1_000, 70_000] {
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n{}", "x".repeat(size)));
        assert_eq!(client.response().body.len(), size);
        (sent, total) = (sent + size, total + 1);
    }
    client.send("GET /stream?7 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().body.len(), 700);
    (sent, total) = (sent + 700, total + 1);
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        client.send("GET /sleep?0.06 HTTP/1.1\r\nHost: test\r\n\r\n");
        sent += client.response().body.len();
        times.push(began.elapsed().as_secs_f64());
        total += 1;
    }
    for (request, status) in [
        ("GET /raise HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", 500),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100001\r\n\r\n", 413),
    ] {
        let answer = server.exchange(request);
        assert_eq!(answer.status, status);
        (sent, total) = (sent + answer.body.len(), total + 1);
    }
    let seen = await_figure(&server, "/requests/total", total);
    for (status, count) in [
        ("200", 1 + 3 + 1 + 20),
        ("201", 1),
        ("302", 1),
        ("404", 2),
        ("418", 1),
        ("451", 1),
        ("500", 2),
        ("5xx", 1),
        ("4xx", 1),
        ("400", 2),
        ("413", 1),
    ] {
        assert_eq!(seen["requests"]["by_status"][status], count, "{status}: {seen:#}");
    }
    assert_eq!((&seen["requests"]["bytes_sent"], &seen["requests"]["bytes_received"]), (&sent.into(), &71_000.into()));
    assert_eq!(seen["requests"]["app_exceptions"], 1);
    let refused = &seen["queue"]["refused"];
    assert_eq!((&refused["malformed"], &refused["body_too_large"], &refused["queue_full"]), (&2.into(), &1.into(), &0.into()));
    assert_eq!(seen["connections"]["accepted"], 5);
    let durations = &seen["requests"]["duration"];
    assert_eq!(durations["count"], total - 3, "three never reached the application");
    // The stream took 70 ms, the sleepers 60 each; nobody else takes so long, unless the machine does.
    assert!((21..=24).contains(&beyond(durations, 0.055)), "{durations}");
    let (sum, client_sum): (f64, f64) = (durations["sum_s"].as_f64().expect("a number"), times.iter().sum());
    let at_least = 20.0 * 0.06 + 0.07;
    assert!(sum >= at_least && sum <= client_sum * 1.05 + 3.0, "{sum} s, of which clients saw {client_sum}");
    let busy = seen["capacity"]["busy_thread_s"].as_f64().expect("a number");
    assert!(busy >= at_least && busy <= sum * 1.05 + 0.5, "{busy} s of thread time, {sum} s of requests");
    server.stop();
}

#[test]
fn what_runs_and_what_waits_is_seen() {
    let server = server(&["--threads", "1", "--max-queue", "1", "--queue-timeout", "30"]).workers(1).start();
    let ask = |target: &str| {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client
    };
    let mut running = ask("/sleep?1.5");
    let early = await_figure(&server, "/capacity/threads_busy", 1);
    let mut waiting = ask("/");
    await_figure(&server, "/queue/waiting", 1);
    let mut refused = ask("/");
    assert_eq!(refused.response().status, 503);
    let later = await_figure(&server, "/queue/refused/queue_full", 1);
    let busy = |figures: &Value| figures["capacity"]["busy_thread_s"].as_f64().expect("a number");
    assert!(busy(&later) > busy(&early), "a call that runs counts");
    assert!(later["capacity"]["oldest_request_s"].as_f64().expect("a number") > 0.0);
    assert_eq!((running.response().status, waiting.response().status), (200, 200));
    let seen = await_figure(&server, "/requests/total", 3);
    assert_eq!(seen["queue"]["waited"]["count"], 1);
    wait_for("nobody to wait", SOON, || (figures(&server)["queue"]["waiting"] == 0).then_some(()));
    assert!(seen["queue"]["waited"]["sum_s"].as_f64().expect("a number") > 0.1);
    assert!(busy(&seen) >= 1.5 && seen["workers"][0]["rss_bytes"].as_u64() > Some(1 << 20));
    server.stop();
}

#[test]
fn connections_that_wait_to_be_accepted_are_seen() {
    let server = server(&[]).workers(1).binds(["127.0.0.1:0", "unix:{temp}/socket"]).start();
    let worker = server.workers()[0];
    signal_to(worker, Signal::SIGSTOP);
    let mut clients: Vec<Client> = Vec::new();
    for (address, count) in server.addresses().iter().zip([3, 2]) {
        for _ in 0..count {
            let mut client = Client::connect(address);
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            clients.push(client);
        }
    }
    await_figure(&server, "/listeners/0/backlog", 3);
    let seen = await_figure(&server, "/listeners/1/backlog", 2);
    assert!(seen["listeners"][1]["backlog_limit"].as_u64() > Some(2), "{seen:#}");
    signal_to(worker, Signal::SIGCONT);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    await_figure(&server, "/listeners/0/backlog", 0);
    server.stop();
}

#[test]
fn calls_that_meet_their_deadline_are_counted() {
    let server = server(&["--timeout", "1", "--timeout-grace", "0.3", "--threads", "2"])
        .workers(1)
        .expect_error("interrupted at --timeout")
        .expect_error("does not end within --timeout")
        .expect_error("does not go on and was ended")
        .start();
    assert_eq!(server.get("/spin").status, 504);
    let seen = await_figure(&server, "/requests/timeouts/raised", 1);
    assert_eq!((&seen["requests"]["timeouts"]["answered"], &seen["requests"]["app_exceptions"]), (&0.into(), &0.into()));
    assert_eq!(server.get("/spin?stubborn").status, 504);
    let seen = await_figure(&server, "/requests/timeouts/answered", 1);
    assert_eq!((&seen["requests"]["timeouts"]["raised"], &seen["requests"]["by_status"]["504"]), (&2.into(), &2.into()));
    let seen = await_figure(&server, "/worker_exits/timeout", 1);
    assert!(seen["exits"][0]["requests"][0].as_str().is_some_and(|text| text.starts_with("GET /spin for ")), "{seen:#}");
    server.stop();
}

/// The figures that may only grow, by their paths.
fn counters(figures: &Value) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    let mut add = |path: &str, value: &Value| match value {
        Value::Number(number) => found.push((path.to_owned(), number.as_f64().expect("a number"))),
        Value::Array(list) => {
            found.extend(list.iter().enumerate().map(|(at, n)| (format!("{path}/{at}"), n.as_f64().expect("a number"))));
        }
        Value::Object(map) => {
            found.extend(map.iter().map(|(key, n)| (format!("{path}/{key}"), n.as_f64().expect("a number"))));
        }
        _ => panic!("{path}: {figures:#}"),
    };
    for path in [
        "/requests/total",
        "/requests/by_status",
        "/requests/bytes_sent",
        "/requests/duration/buckets",
        "/requests/duration/sum_s",
        "/queue/waited/buckets",
        "/queue/refused",
        "/connections/accepted",
        "/connections/lent",
        "/capacity/busy_thread_s",
        "/worker_exits",
        "/reloads",
        "/server/generation",
    ] {
        add(path, figures.pointer(path).unwrap_or_else(|| panic!("{path}: {figures:#}")));
    }
    for worker in figures["workers"].as_array().expect("a list") {
        for field in ["requests", "cpu_s", "cpu_wait_s"] {
            add(&format!("/workers/{}/{field}", worker["worker"]), &worker[field]);
        }
    }
    found
}

#[test]
fn nothing_goes_back_over_reloads_kills_and_upgrades() {
    const RELOADS: u64 = 5;
    const KILLS: u64 = 3;
    const UPGRADES: u64 = 2;
    let mut server = server(&["--threads", "2"]).workers(2).start();
    let mut highest: std::collections::HashMap<String, f64> = std::collections::HashMap::new();
    let mut answered = 0;
    let mut look = |server: &Running, count: &mut u64| {
        let mut client = server.connect();
        // It fails where its worker has just been killed.
        let _ = client.try_send(b"GET /sleep?0.002 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        // One that was just accepted by a worker that is killed gets no answer, and is in no count.
        *count += u64::from(client.try_response_to("GET").is_ok_and(|answer| answer.status == 200));
        let figures = figures(server);
        for (path, value) in counters(&figures) {
            let before = highest.entry(path.clone()).or_default();
            assert!(value >= *before, "{path} went from {before} to {value}: {figures:#}");
            *before = value;
        }
        figures
    };
    for turn in 1..=RELOADS {
        server.signal(Signal::SIGHUP);
        wait_for("the reload", SOON, || (look(&server, &mut answered)["reloads"]["ok"] == turn).then_some(()));
    }
    // One that is about to leave would be no victim.
    await_figure(&server, "/worker_exits/reload", 2 * RELOADS);
    for turn in 1..=KILLS {
        let victim = server.workers()[0];
        server.expect_error("was killed by SIGKILL");
        signal_to(victim, Signal::SIGKILL);
        wait_for("the successor", SOON, || {
            let seen = look(&server, &mut answered);
            (seen["worker_exits"]["killed"] == turn && seen["capacity"]["workers_ready"] == 2).then_some(())
        });
    }
    for turn in 1..=UPGRADES {
        server.signal(Signal::SIGUSR2);
        wait_for("the upgrade", SOON, || (look(&server, &mut answered)["reloads"]["ok"] == RELOADS + turn).then_some(()));
    }
    let seen = await_figure(&server, "/worker_exits/upgrade", 2 * UPGRADES);
    assert_eq!((&seen["worker_exits"]["reload"], &seen["server"]["generation"]), (&(2 * RELOADS).into(), &8.into()), "{seen:#}");
    let total = seen["requests"]["by_status"]["200"].as_u64().expect("a count");
    assert!(total == answered || total == answered + 1, "{total}, and clients had {answered}");
    assert_eq!(seen["exits"].as_array().map(Vec::len), Some((2 * RELOADS + KILLS + 2 * UPGRADES) as usize));
    server.stop();
}

#[test]
fn every_end_of_a_worker_has_its_cause_and_its_request() {
    let server = server(&["--max-requests", "3"])
        .workers(2)
        .expect_error("was killed by SIGSEGV")
        .expect_error("exited with code 7")
        .start();
    let ended = |cause: &str| await_figure(&server, &format!("/worker_exits/{cause}"), 1)["exits"][0].clone();
    let cut = |target: &str| {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        assert!(client.try_response_to("GET").is_err(), "its worker is gone");
    };
    cut("/signal?11");
    let exit = ended("crashed");
    let request = exit["requests"][0].as_str().unwrap_or_else(|| panic!("{exit:#}"));
    assert!(request.starts_with("GET /signal for "), "without its query: {request}");
    assert_eq!(exit["detail"].as_str().map(|text| text.starts_with("was killed by SIGSEGV")), Some(true), "{exit:#}");
    cut("/exit?7");
    assert_eq!(ended("exited")["detail"], "exited with code 7");
    // One that is worn, and leaves, is not to be the one that is sent away: those come last.
    wait_for("two workers", SOON, || (figures(&server)["capacity"]["workers_ready"] == 2).then_some(()));
    signal_to(server.workers()[0], Signal::SIGTERM);
    assert_eq!(ended("dismissed")["detail"], Value::Null);
    wait_for("two workers", SOON, || (figures(&server)["capacity"]["workers_ready"] == 2).then_some(()));
    server.signal(Signal::SIGTTOU);
    ended("scale");
    wait_for("a worn worker", SOON, || {
        server.get("/");
        (figures(&server)["worker_exits"]["max_requests"].as_u64() >= Some(1)).then_some(())
    });
    server.stop();
}

#[test]
fn a_worker_that_the_kernel_kills_for_its_memory_is_known() {
    let Some(group) = MemoryGroup::of(300 << 20) else {
        println!("skipped: no control group with a limit of memory can be made here");
        return;
    };
    let server = server(&[]).workers(1).launcher(group.launcher()).expect_error("was killed by SIGKILL").start();
    let mut client = server.connect();
    client.send("GET /eat HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.try_response_to("GET").is_err());
    let seen = await_figure(&server, "/worker_exits/out_of_memory", 1);
    assert_eq!(seen["worker_exits"]["killed"], 0);
    assert!(seen["exits"][0]["requests"][0].as_str().is_some_and(|text| text.starts_with("GET /eat for ")), "{seen:#}");
    server.stop();
}
