use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::config::{Bind, Endpoint, Settings};
use crate::net::bind::bind_all;

struct House {
    doors: Doors,
    path: PathBuf,
    now: Instant,
    _dir: TempDir,
}

impl House {
    /// A house with one door.
    fn new(control: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        let binds = vec![Bind::plain(Endpoint::Unix(path.clone()))];
        let listener = bind_all(&Settings { binds, ..Settings::default() }).unwrap().remove(0);
        Self { doors: Doors::new(vec![Door::new(listener, control)]), path, now: Instant::now(), _dir: dir }
    }

    fn client(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    /// A turn of the loop in which everything has woken it; each request is answered with its number.
    fn turn(&mut self) -> usize {
        let knocks: Vec<Knock> = self.doors.descriptors().map(|(knock, ..)| knock).collect();
        let asked = self.doors.attend(&knocks, self.now);
        for (id, ..) in &asked {
            self.doors.answer(*id, &DoorReply::text(200, "answered"), self.now);
        }
        asked.len()
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn visitors(&self) -> usize {
        self.doors.visitors.len()
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

fn answer(client: &mut UnixStream) -> String {
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while !text.ends_with(b"\n\r\n") && !text.ends_with(b"answered\n") && !text.ends_with(b"}\n") {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_request_that_has_come_is_answered_in_the_turn_of_its_connection() {
    let mut house = House::new(false);
    let mut client = house.client();
    client.write_all(GET).unwrap();
    assert_eq!(house.turn(), 1);
    assert!(answer(&mut client).starts_with("HTTP/1.1 200 OK\r\n"));
    client.write_all(GET).unwrap();
    assert_eq!(house.turn(), 1, "the connection is kept");
}

#[test]
fn one_connection_gives_one_request_in_a_turn() {
    let mut house = House::new(false);
    let mut client = house.client();
    client.write_all(&GET.repeat(3)).unwrap();
    assert_eq!([house.turn(), house.turn(), house.turn(), house.turn()], [1, 1, 1, 0]);
    for _ in 0..3 {
        answer(&mut client);
    }
}

#[test]
fn silent_connections_give_way_and_nothing_grows() {
    for control in [false, true] {
        let most = if control { CONTROL_MAX } else { PUBLIC_MAX };
        let mut house = House::new(control);
        let silent: Vec<UnixStream> = (0..100)
            .map(|_| {
                let client = house.client();
                house.turn();
                client
            })
            .collect();
        assert_eq!(house.visitors(), most);
        let mut client = house.client();
        client.write_all(GET).unwrap();
        assert_eq!(house.turn(), 1);
        assert!(answer(&mut client).starts_with("HTTP/1.1 200 OK\r\n"));
        house.wait(EXCHANGE_TIME);
        house.turn();
        assert_eq!(house.visitors(), 1, "only the one that has asked is kept");
        drop(silent);
    }
}

#[test]
fn many_that_come_at_once_are_all_answered() {
    let mut house = House::new(false);
    let mut clients: Vec<UnixStream> = (0..3 * PUBLIC_MAX).map(|_| house.client()).collect();
    clients.iter_mut().for_each(|client| client.write_all(GET).unwrap());
    let answered: usize = (0..20).map(|_| house.turn()).sum();
    assert_eq!(answered, 3 * PUBLIC_MAX);
    assert!(clients.iter_mut().all(|client| answer(client).starts_with("HTTP/1.1 200 OK\r\n")));
}

#[test]
fn a_slow_request_and_a_slow_reader_have_their_time() {
    let mut house = House::new(false);
    let mut slow = house.client();
    for byte in GET.iter().take(5) {
        slow.write_all(&[*byte]).unwrap();
        house.turn();
        house.wait(EXCHANGE_TIME / 6);
    }
    assert_eq!(house.visitors(), 1);
    house.wait(EXCHANGE_TIME / 3);
    assert_eq!((house.turn(), house.visitors()), (0, 0), "the time counts from the first byte, not from the last");

    let mut client = house.client();
    client.write_all(GET).unwrap();
    let knocks: Vec<Knock> = house.doors.descriptors().map(|(knock, ..)| knock).collect();
    let asked = house.doors.attend(&knocks, house.now);
    house.doors.answer(asked[0].0, &DoorReply::text(200, &"x".repeat(4 << 20)), house.now);
    assert_eq!(house.visitors(), 1, "the socket has no room for it");
    house.wait(EXCHANGE_TIME);
    house.turn();
    assert_eq!(house.visitors(), 0);
}

#[test]
fn what_cannot_be_carried_out_is_answered_and_closed() {
    let mut house = House::new(true);
    let mut client = house.client();
    client.write_all(b"BREW / HTTP/1.1\r\nContent-Length: x\r\n\r\n").unwrap();
    assert_eq!(house.turn(), 0);
    let text = answer(&mut client);
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("\r\nConnection: close\r\n"), "{text}");
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end is no reset");
    drop(client);
    house.turn();
    assert_eq!(house.visitors(), 0);
}

#[test]
fn a_client_that_leaves_before_its_answer_is_forgotten() {
    let mut house = House::new(true);
    let mut client = house.client();
    client.write_all(b"POST /reload?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let knocks: Vec<Knock> = house.doors.descriptors().map(|(knock, ..)| knock).collect();
    let asked = house.doors.attend(&knocks, house.now);
    assert!(house.doors.hold(asked[0].0, house.now + Duration::from_secs(60)));
    house.wait(EXCHANGE_TIME);
    house.turn();
    assert_eq!(house.visitors(), 1, "it waits");
    drop(client);
    house.turn();
    assert_eq!(house.visitors(), 0);
    house.doors.answer(asked[0].0, &DoorReply::text(200, "late"), house.now);
}

#[test]
fn a_door_where_nobody_can_be_let_in_does_not_keep_the_master_busy() {
    use nix::sys::socket::{Shutdown, shutdown};
    use std::os::fd::AsRawFd;
    let binds = vec![Bind::plain(Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 })];
    let listener = bind_all(&Settings { binds, ..Settings::default() }).unwrap().remove(0);
    let mut house = House { doors: Doors::new(vec![Door::new(listener, false)]), ..House::new(false) };
    shutdown(house.doors.doors[0].listener.as_raw_fd(), Shutdown::Both).unwrap();
    house.turn();
    assert_eq!(house.doors.descriptors().count(), 0);
    assert_eq!(house.doors.next_deadline(), Some(house.now + ACCEPT_PAUSE));
    house.wait(ACCEPT_PAUSE);
    assert!(house.doors.attend(&[], house.now).is_empty());
    assert_eq!(house.doors.descriptors().count(), 1);
}
