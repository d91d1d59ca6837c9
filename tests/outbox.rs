//! Answers that wait for others of the same iteration: none waits for a slow call, none is lost, and each client has its own in
//! order.

// Alone, because the rest of the harness needs the build's Python.
#[path = "common/native.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod native;

#[path = "outbox/client.rs"]
mod client;
#[path = "outbox/echo.rs"]
mod echo;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use client::Client;
use echo::{LARGE, start};
use native::{PATIENCE, until};
use tapster::config::{Bind, Endpoint};

#[test]
fn answers_do_not_wait_for_a_slow_request_of_the_same_client() {
    for threads in [1, 4] {
        let (worker, gate) = start(|settings| settings.threads = threads);
        let mut client = Client::new(&worker);
        for round in 0..20 {
            let quick: Vec<String> = (0..round % 4 + 1).map(|n| format!("/{round}/{n}")).collect();
            let mut targets: Vec<&str> = quick.iter().map(String::as_str).collect();
            targets.extend(["/gate", "/behind"]);
            gate.close();
            client.send(&targets);
            client.expect(&targets[..quick.len()]);
            gate.open();
            client.expect(&["/gate", "/behind"]);
        }
        drop(client);
        worker.stop();
    }
}

#[test]
fn answers_do_not_wait_for_a_slow_request_of_another_client() {
    const CLIENTS: usize = 8;
    for threads in [1, 4] {
        // Bytes that are sent to a unix socket arrive at once. Packets of TCP wait in a queue of the processor that sends them,
        // and those of a thread that changes processors may overtake each other.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (worker, gate) = start(|settings| {
            settings.threads = threads;
            settings.binds = vec![Bind::plain(Endpoint::Unix(path.clone()))];
        });
        let connect = || {
            let stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Client::over(stream)
        };
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
        let (mut slow, mut busy) = (connect(), connect());
        // Accepted and watched, so that requests are seen in the order in which they are sent.
        for client in [&mut busy, &mut slow].into_iter().chain(&mut clients) {
            client.send(&["/"]);
            client.expect(&["/"]);
        }
        for round in 0..50 {
            gate.close();
            // A unix socket also reports to the worker when its client has read. After one more answer no such event is left that
            // could put another request before this one.
            busy.send(&["/"]);
            busy.expect(&["/"]);
            // All of them arrive while this one runs, so that they have one iteration, the slow one at any place in it.
            busy.send(&["/spin"]);
            for (index, client) in clients.iter_mut().enumerate() {
                if index == round % CLIENTS {
                    slow.send(&["/gate"]);
                }
                client.send(&["/quick"]);
            }
            busy.expect(&["/spin"]);
            // Those before the slow one; with one thread the others wait for it.
            let before = if threads == 1 { round % CLIENTS } else { CLIENTS };
            clients[..before].iter_mut().for_each(|client| client.expect(&["/quick"]));
            gate.open();
            slow.expect(&["/gate"]);
            clients[before..].iter_mut().for_each(|client| client.expect(&["/quick"]));
        }
        drop((clients, slow, busy));
        worker.stop();
    }
}

#[test]
fn an_answer_in_front_of_half_a_request_does_not_wait_for_its_other_half() {
    for threads in [1, 4] {
        let (worker, gate) = start(|settings| settings.threads = threads);
        let mut client = Client::new(&worker);
        for round in 0..12 {
            gate.close();
            client.0.get_mut().write_all(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\nGET /ha").unwrap();
            // From a few milliseconds on another thread has the loop, and gives it back after this answer.
            std::thread::sleep(Duration::from_millis(round));
            gate.open();
            client.expect(&["/gate"]);
            client.0.get_mut().write_all(b"lf HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client.expect(&["/half"]);
        }
        drop(client);
        worker.stop();
    }
}

#[test]
fn every_kind_of_answer_keeps_its_place_among_pipelined_ones() {
    for threads in [1, 4] {
        let (worker, gate) = start(|settings| settings.threads = threads);
        gate.open();
        let kinds = ["/", "/blocks", "/write", "/spin", "/gate", "/a", "/b", "/blocks-again", "/write-again", "/c"];
        let mut client = Client::new(&worker);
        for turn in 0..200 {
            let mut targets = kinds;
            targets.rotate_left(turn % kinds.len());
            client.send(&targets);
            client.expect(&targets);
        }
        drop(client);
        worker.stop();
    }
}

#[test]
fn a_client_that_has_done_with_sending_has_every_answer_before_the_end() {
    let (worker, _gate) = start(|_| {});
    let mut busy = Client::new(&worker);
    for round in 0..40 {
        let mut client = Client::new(&worker);
        client.send(&["/first"]);
        client.expect(&["/first"]);
        let targets: Vec<String> = (0..round % 5 + 1).map(|n| format!("/{n}")).collect();
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        // Requests and end arrive while this one runs, so that they are seen together.
        busy.send(&["/spin"]);
        client.send(&targets);
        client.0.get_ref().shutdown(Shutdown::Write).unwrap();
        client.expect(&targets);
        client.expect_end();
        busy.expect(&["/spin"]);
    }
    drop(busy);
    worker.stop();
}

#[test]
fn answers_of_more_requests_than_an_iteration_has_room_for_leave_at_its_end() {
    // Less than any deadline of the connection, whose passing would send them too, and enough for a busy machine.
    const PROMPT: Duration = Duration::from_secs(20);
    let (worker, _gate) = start(|settings| settings.keep_alive = Duration::from_secs(60));
    let mut client = Client::new(&worker);
    for _ in 0..20 {
        let targets = vec!["/"; 200];
        let begin = Instant::now();
        client.send(&targets);
        client.expect(&targets);
        assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
    }
    drop(client);
    worker.stop();
}

#[test]
fn a_refusal_and_the_end_of_the_connection_come_after_the_answers_before_them() {
    let (worker, _gate) = start(|_| {});
    let mut client = Client::new(&worker);
    client
        .0
        .get_mut()
        .write_all(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
        .unwrap();
    client.expect(&["/1", "/2"]);
    assert_eq!(client.receive().0, 400);
    client.expect_end();
    let mut client = Client::new(&worker);
    let last = "GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.0.get_mut().write_all(format!("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n{last}").as_bytes()).unwrap();
    client.expect(&["/1", "/3"]);
    client.expect_end();
    let mut client = Client::new(&worker);
    let body = "POST /5 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.0.get_mut().write_all(format!("GET /4 HTTP/1.1\r\nHost: x\r\n\r\n{body}").as_bytes()).unwrap();
    client.expect(&["/4"]);
    assert_eq!(client.head().0, 100, "asked for when the answer before it is on its way");
    client.0.get_mut().write_all(b"12345").unwrap();
    client.expect(&["/5"]);
    drop(client);
    worker.stop();
}

#[test]
fn a_client_that_reads_late_has_every_answer_in_order() {
    /// Together more than any socket buffer takes.
    const REQUESTS: usize = 4_000;
    let (worker, _gate) = start(|_| {});
    let filling = "x".repeat(4_000);
    let targets: Vec<String> = (0..REQUESTS).map(|n| format!("/{n}/{filling}")).collect();
    let mut client = Client::new(&worker);
    let stream = client.0.get_ref().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = &stream;
            for target in &targets {
                stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
            }
        });
        // Others are served while this one's answers wait.
        let mut other = Client::new(&worker);
        for _ in 0..100 {
            other.send(&["/other"]);
            other.expect(&["/other"]);
        }
        for target in &targets {
            client.expect(&[target]);
        }
    });
    drop(client);
    worker.stop();
}

#[test]
fn a_client_that_has_done_with_sending_and_reads_late_has_every_answer() {
    // Of a unix socket the kernel takes some hundred thousand bytes: one of these numbers of answers fills it with the last few.
    const MOST: usize = 80;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let (worker, _gate) = start(|settings| settings.binds = vec![Bind::plain(Endpoint::Unix(path.clone()))]);
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let exchange = |stream: &mut UnixStream, target: &str| {
        stream.write_all(request(target).as_bytes()).unwrap();
        assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
    };
    let mut other = UnixStream::connect(&path).unwrap();
    for count in 1..=MOST {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(&mut client, "/");
        // Requests and end arrive while the other one's runs, so that they are seen together.
        other.write_all(request("/spin").as_bytes()).unwrap();
        client.write_all(request("/large").repeat(count).as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(other.read(&mut [0; 1000]).unwrap() > 0);
        // As many iterations of the loop.
        (0..8).for_each(|_| exchange(&mut other, "/"));
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).unwrap();
        let heads = memchr::memmem::find_iter(&answers, b"HTTP/1.1 200 OK").count();
        let body = answers.iter().rev().take_while(|&&byte| byte == b'x').count();
        assert_eq!((heads, body), (count, LARGE - "/large".len()), "{} bytes of {count} answers", answers.len());
    }
    drop(other);
    worker.stop();
}

#[test]
fn a_client_that_resets_while_its_answer_waits_costs_no_thread() {
    const THREADS: usize = 4;
    let (worker, gate) = start(|settings| settings.threads = THREADS);
    // Sends the requests, the first of which waits at the gate.
    let enter = |client: &mut Client, targets: &[&str]| {
        let before = gate.reached();
        client.send(targets);
        until(|| (gate.reached() > before).then_some(()));
    };
    for _ in 0..2 * THREADS {
        gate.close();
        let mut client = Client::new(&worker);
        enter(&mut client, &["/gate", "/behind"]);
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(client.0.get_ref(), nix::sys::socket::sockopt::Linger, &reset).unwrap();
        drop(client);
        gate.open();
        let mut next = Client::new(&worker);
        next.send(&["/next"]);
        next.expect(&["/next"]);
    }
    let mut slow: Vec<Client> = (1..THREADS).map(|_| Client::new(&worker)).collect();
    let mut quick = Client::new(&worker);
    quick.0.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    gate.close();
    slow.iter_mut().for_each(|client| enter(client, &["/gate"]));
    quick.send(&["/quick"]);
    quick.expect(&["/quick"]);
    gate.open();
    slow.iter_mut().for_each(|client| client.expect(&["/gate"]));
    drop((slow, quick));
    worker.stop();
}

#[test]
fn what_is_written_in_the_last_call_of_an_iteration_is_sent() {
    for before in 40..56 {
        // New each time: a thread whose application writes does not hold answers back for a request of the same client.
        let (worker, _gate) = start(|_| {});
        let mut client = Client::new(&worker);
        client.0.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.send(&["/first"]);
        client.expect(&["/first"]);
        let mut targets = vec!["/"; before];
        targets.push("/hints");
        client.send(&targets);
        client.expect(&targets);
        drop(client);
        worker.stop();
    }
}

#[test]
fn output_of_a_call_after_an_earlier_answer_does_not_wait_for_its_end() {
    for threads in [1, 4] {
        let (worker, gate) = start(|settings| settings.threads = threads);
        let (mut client, mut busy) = (Client::new(&worker), Client::new(&worker));
        let mut others: Vec<Client> = (0..8).map(|_| Client::new(&worker)).collect();
        client.0.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for _ in 0..10 {
            gate.close();
            busy.send(&["/spin"]);
            client.send(&["/quick", "/hint-gate"]);
            others.iter_mut().for_each(|other| other.send(&["/other"]));
            client.expect(&["/quick"]);
            assert_eq!(client.head(), (200, "/hint-gate".len(), false));
            let mut body = [0; 10];
            client.0.read_exact(&mut body[..3]).unwrap();
            gate.open();
            client.0.read_exact(&mut body[3..]).unwrap();
            assert_eq!(&body, b"/hint-gate");
            busy.expect(&["/spin"]);
            others.iter_mut().for_each(|other| other.expect(&["/other"]));
        }
        drop((client, busy, others));
        worker.stop();
    }
}

#[test]
fn bytes_that_come_during_the_last_call_do_not_cost_its_answer() {
    let (worker, _gate) = start(|_| {});
    for _ in 0..20 {
        let mut client = Client::new(&worker);
        client.0.get_mut().write_all(b"GET /spin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        // The worker has read the head and is in the call.
        std::thread::sleep(Duration::from_micros(150));
        client.0.get_mut().write_all(b"\r\n").unwrap();
        client.expect(&["/spin"]);
    }
    worker.stop();
}
