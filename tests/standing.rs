//! Answers that last and bodies that are large, many at once: events in time, clients that are gone, memory that stays bounded.

mod common;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::client::Client;
use common::server::{Running, Server};
use common::{SOON, procfs, wait_for};

/// Clients of server-sent events.
const LISTENERS: usize = 200;

/// Events for each, and the seconds between two.
const EVENTS: usize = 5;
const INTERVAL: f64 = 2.0;

/// Longest way of an event to its client, on a busy machine with some hundred threads on both sides. All events of a client take
/// longer: those that were kept to the end would be late.
const LATE: f64 = 8.0;

/// Connections that stand and do nothing.
const STANDING: usize = 1_000;

/// Clients of large answers and uploads, and the size of each in bytes; with TAPSTER_TEST_FULL=1 the larger one.
const LARGE_CLIENTS: usize = 100;
const LARGE: usize = 8 * 1024 * 1024;
const LARGE_FULL: usize = 100 * 1024 * 1024;

/// Memory of the worker above its idle state, at its peak, in bytes.
const PEAK_COST: u64 = 200 * 1024 * 1024;

fn streams(threads: usize) -> Server {
    let server = Server::new("streams:application").options(["--threads", &threads.to_string()]);
    let temp = server.temp().display().to_string();
    server.env("STREAMS_DIR", temp)
}

fn ask(server: &Running, target: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client
}

/// Waits until the note has these lines.
#[track_caller]
fn wait_for_note(server: &Running, name: &str, wanted: &str) {
    let path = server.temp().join(name);
    wait_for(&format!("{wanted:?} in {name}"), SOON, || (fs::read_to_string(&path).unwrap_or_default() == wanted).then_some(()));
}

/// Reads the next event; returns how many seconds it was on its way.
#[track_caller]
fn event(client: &mut Client) -> f64 {
    loop {
        let line = client.line().expect("an event comes");
        // Chunks have their own lines around those of the event.
        if let Some(rest) = line.split("data: ").nth(1) {
            let made: f64 = rest.trim().parse().expect("a time");
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            return now.as_secs_f64() - made;
        }
    }
}

/// Every client has its first event while no second one is made, and then all of them in time.
fn events_are_in_time(workers: usize, threads: usize) {
    let server = streams(threads).workers(workers).start();
    let mut clients: Vec<Client> =
        (0..LISTENERS).map(|_| ask(&server, &format!("/events?count={EVENTS}&interval={INTERVAL}"))).collect();
    for client in &mut clients {
        // How long it took depends on the crowd; that it came shows that it did not wait for the second one.
        event(client);
    }
    fs::write(server.temp().join("gate"), "").expect("the temp directory is writable");
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| thread::spawn(move || (0..EVENTS).map(|_| event(&mut client)).fold(0.0, f64::max)))
        .collect();
    let latest = readers.into_iter().map(|reader| reader.join().expect("every event comes")).fold(0.0, f64::max);
    println!("{workers} x {threads}: the latest of {} events was {latest:.3} s on its way", LISTENERS * EVENTS);
    assert!(latest < LATE, "{latest} s");
    server.stop();
}

#[test]
fn two_hundred_clients_have_their_events_in_time_from_one_worker() {
    events_are_in_time(1, 256);
}

#[test]
fn two_hundred_clients_have_their_events_in_time_from_four_workers() {
    events_are_in_time(4, 64);
}

#[test]
fn standing_connections_take_no_thread() {
    common::raise_open_files();
    let server = streams(2).options(["--keep-alive", "300", "--header-timeout", "300"]).start();
    let worker = server.workers()[0];
    server.get("/name");
    let threads = || fs::read_dir(format!("/proc/{worker}/task")).expect("the worker is there").count();
    let before = threads();
    let mut clients: Vec<Client> = (0..STANDING).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        match n % 3 {
            0 => assert_eq!(client.get("/name").status, 200),
            1 => client.send("GET /name HT"),
            _ => client.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhalf"),
        }
    }
    for _ in 0..100 {
        assert_eq!(server.get("/name").status, 200);
    }
    assert_eq!(threads(), before);
    // What the requests before have left to do may take a while on a busy machine.
    wait_for("2 s of nothing with at most 50 ms of processor time", SOON, || {
        let before = procfs::cpu_millis(worker);
        thread::sleep(Duration::from_secs(2));
        (procfs::cpu_millis(worker) - before <= 50).then_some(())
    });
    drop(clients);
    server.stop();
}

#[test]
fn a_stream_of_empty_blocks_ends_with_its_client() {
    for threads in [1, 4] {
        for pause in ["0", "0.02"] {
            let server = streams(threads).start();
            let client = ask(&server, &format!("/empty?pause={pause}"));
            wait_for_note(&server, "empty", "begun\n");
            client.reset();
            wait_for_note(&server, "empty", "begun\nclosed\n");
            assert_eq!(server.get("/name").status, 200);
            server.stop();
        }
    }
}

#[test]
fn a_stream_of_empty_blocks_ends_with_the_client_of_a_unix_socket() {
    let server = streams(2).binds(["unix:{temp}/app.sock"]).start();
    let client = ask(&server, "/empty?pause=0.01");
    wait_for_note(&server, "empty", "begun\n");
    drop(client);
    wait_for_note(&server, "empty", "begun\nclosed\n");
    server.stop();
}

#[test]
fn empty_blocks_cut_no_answer_of_a_client_that_only_said_that_it_sends_nothing_more() {
    for threads in [1, 4] {
        let server = streams(threads).start();
        let mut client = ask(&server, "/few?pause=0.05");
        client.finish_sending();
        assert_eq!(client.response().text(), "abc");
        server.stop();
    }
}

/// Runs one client for each; returns how many bytes they moved.
fn crowd(server: &Running, work: impl Fn(TcpStream) -> io::Result<usize> + Send + Copy + 'static) -> usize {
    let address = server.address().tcp();
    let clients: Vec<_> = (0..LARGE_CLIENTS)
        .map(|_| {
            thread::spawn(move || {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(10 * SOON))?;
                work(stream)
            })
        })
        .collect();
    clients.into_iter().map(|client| client.join().expect("no client panics").expect("no client fails")).sum()
}

/// Asks for this and counts the body.
fn download(mut stream: TcpStream, target: &str) -> io::Result<usize> {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut block = vec![0; 64 * 1024];
    let (mut head, mut count) = (Vec::new(), 0);
    loop {
        let read = stream.read(&mut block)?;
        if read == 0 {
            return Ok(count);
        }
        if count > 0 {
            count += read;
            continue;
        }
        head.extend_from_slice(&block[..read]);
        if let Some(end) = common::client::find(&head, b"\r\n\r\n") {
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
            count = head.len() - end - 4;
        }
    }
}

/// Sends a body of this size and reads what the application says of it.
fn send(mut stream: TcpStream, size: usize) -> io::Result<usize> {
    write!(stream, "POST /upload HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n")?;
    let block = vec![b'x'; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let sent = left.min(block.len());
        stream.write_all(&block[..sent])?;
        left -= sent;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.contains(&format!("\r\n{size} ")), "{answer}");
    Ok(size)
}

#[test]
fn a_hundred_large_downloads_and_uploads_at_once_take_bounded_memory() {
    let full = std::env::var("TAPSTER_TEST_FULL").as_deref() == Ok("1");
    let size = if full { LARGE_FULL } else { LARGE };
    let server = streams(8).start();
    let worker = server.workers()[0];
    File::create(server.temp().join("large")).and_then(|file| file.set_len(size as u64)).expect("a sparse file");
    server.get("/name");
    let idle = procfs::peak_memory(worker);
    let report = |what: &str, began: Instant, moved: usize| {
        let peak = procfs::peak_memory(worker).saturating_sub(idle);
        println!("{what}: {} MB in {:.1} s, peak {} MB above idle", moved >> 20, began.elapsed().as_secs_f64(), peak >> 20);
        assert_eq!(moved, size * LARGE_CLIENTS, "{what}");
        assert!(peak < PEAK_COST, "{what}: {} MB", peak >> 20);
    };
    let began = Instant::now();
    report("file_wrapper", began, crowd(&server, move |stream| download(stream, &format!("/file?size={size}"))));
    let began = Instant::now();
    report("generator", began, crowd(&server, move |stream| download(stream, &format!("/blocks?size={size}"))));
    let began = Instant::now();
    report("upload", began, crowd(&server, move |stream| send(stream, size)));
    assert_eq!(server.get("/name").status, 200);
    server.stop();
}
