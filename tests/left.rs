//! Clients that leave while their requests wait: nothing is done for them, and each has its line in the access log.

mod common;

use common::client::{Address, Client};
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// The target of each request that waits; the application notes it.
const COUNTED: &str = "GET /counted HTTP/1.1\r\nHost: test\r\n\r\n";

/// Requests that wait: a quarter of their clients stay, a quarter say that they send nothing more, the others leave.
const WAITING: usize = 20;

/// Those whose clients take the answer.
const STAY: usize = WAITING / 2;

fn server(workers: usize, threads: usize) -> Server {
    let options = ["--threads", &threads.to_string(), "--access-logfile", "-", "--log-level", "debug", "--keep-alive", "60"];
    let server = Server::new("unserved").workers(workers).options(options).binds(["127.0.0.1:0", "unix:{temp}/s"]);
    let temp = server.temp().display().to_string();
    server.env("UNSERVED_DIR", temp)
}

fn lines(server: &Running, name: &str) -> usize {
    std::fs::read_to_string(server.temp().join(name)).map_or(0, |text| text.lines().count())
}

/// Takes every permit of the server; `count` is how many there are.
fn occupy(server: &Running, count: usize) -> Vec<Client> {
    let mut slow = Vec::new();
    for taken in 1..=count {
        let mut client = server.connect();
        client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_for("the call", SOON, || (lines(server, "inside") == taken).then_some(()));
        slow.push(client);
    }
    slow
}

/// Waits until the loop of the only worker has read the earlier bytes on this address.
fn wait_for_reading(address: &Address) {
    let mut probe = Client::connect(address);
    probe.send("GET /probe HTTP/9\r\n\r\n");
    assert_eq!(probe.response().status, 400);
}

/// Half of the clients leave: for good on a unix socket, by a reset on TCP.
fn half_leave(address: &Address, mut clients: Vec<Client>) -> Vec<Client> {
    for client in clients.split_off(STAY) {
        match address {
            Address::Tcp(_) | Address::Tls(_) => client.reset(),
            Address::Unix(_) => drop(client),
        }
    }
    clients[..STAY / 2].iter_mut().for_each(Client::finish_sending);
    clients
}

/// The clients that stayed are answered, the requests of the others were not begun.
#[track_caller]
fn check(server: &Running, mut stayed: Vec<Client>, rounds: usize) {
    for client in &mut stayed {
        assert_eq!(client.response().status, 200);
    }
    let logged = |status: &str| server.stdout().matches(&format!("\"GET /counted HTTP/1.1\" {status}")).count();
    wait_for("a line for each", SOON, || (logged("200") + logged("499") >= WAITING * rounds).then_some(()));
    assert_eq!((lines(server, "counted"), logged("499")), (STAY * rounds, (WAITING - STAY) * rounds));
}

/// The slow calls are over: the next ones wait again.
#[track_caller]
fn end_of(server: &Running, slow: Vec<Client>) {
    for mut client in slow {
        assert_eq!(client.response().status, 200);
    }
    for name in ["gate", "inside"] {
        std::fs::remove_file(server.temp().join(name)).expect("it was there");
    }
}

/// So many connections of each worker.
fn kept_of_each_worker(server: &Running, each: usize) -> Vec<Vec<Client>> {
    let workers = server.workers();
    let mut found: Vec<Vec<Client>> = workers.iter().map(|_| Vec::new()).collect();
    wait_for("connections of each worker", SOON, || {
        let mut client = server.connect();
        let worker = client.get("/kept").field("x-worker").and_then(|pid| pid.parse::<i32>().ok());
        let index = workers.iter().position(|pid| Some(*pid) == worker).expect("the application names its worker");
        found[index].push(client);
        found.iter().all(|clients| clients.len() >= each).then_some(())
    });
    found
}

fn send_counted(client: &mut Client) {
    client.send(COUNTED);
}

#[test]
fn a_request_whose_client_left_while_it_waited_for_a_permit_is_not_run() {
    for threads in [1, 2, 8] {
        let server = server(1, threads).start();
        for (round, address) in server.addresses().iter().enumerate() {
            let slow = occupy(&server, threads);
            let mut clients: Vec<Client> = (0..WAITING).map(|_| Client::connect(address)).collect();
            clients.iter_mut().for_each(send_counted);
            wait_for_reading(address);
            let stayed = half_leave(address, clients);
            server.open_gate("gate");
            check(&server, stayed, round + 1);
            end_of(&server, slow);
        }
        server.stop();
    }
}

#[test]
fn a_request_whose_client_left_while_it_waited_in_the_queue_of_all_workers_is_not_run() {
    let server = server(2, 1).start();
    for (round, address) in server.addresses().iter().enumerate() {
        let mut clients: Vec<Client> = (0..WAITING).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            client.send("GET /kept HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(client.response().status, 200);
        }
        let slow = occupy(&server, 2);
        clients.iter_mut().for_each(send_counted);
        let handed = WAITING * (round + 1);
        wait_for("all in the queue", SOON, || (server.log().text().matches("handed a request").count() >= handed).then_some(()));
        let stayed = half_leave(address, clients);
        server.open_gate("gate");
        check(&server, stayed, round + 1);
        end_of(&server, slow);
    }
    server.stop();
}

#[test]
fn a_request_whose_client_left_while_it_waited_to_be_accepted_is_not_run() {
    let server = server(2, 1).start();
    for (round, address) in server.addresses().iter().enumerate() {
        let mut probes = kept_of_each_worker(&server, 2);
        let slow = occupy(&server, 2);
        // A worker without a free permit accepts nothing from the end of the iteration on in which it notices that: a later
        // iteration answers the second probe.
        for _ in 0..2 {
            for clients in &mut probes {
                let mut client = clients.pop().expect("there are two");
                client.send("GET /probe HTTP/9\r\n\r\n");
                assert_eq!(client.response().status, 400);
            }
        }
        let mut clients: Vec<Client> = (0..WAITING).map(|_| Client::connect(address)).collect();
        clients.iter_mut().for_each(send_counted);
        let stayed = half_leave(address, clients);
        server.open_gate("gate");
        check(&server, stayed, round + 1);
        end_of(&server, slow);
    }
    server.stop();
}

#[test]
fn pipelined_requests_whose_client_left_during_a_slow_one_are_not_run() {
    for threads in [1, 2, 8] {
        let server = server(1, threads).start();
        for (round, address) in server.addresses().iter().enumerate() {
            let mut client = Client::connect(address);
            client.send(format!("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n{}", COUNTED.repeat(3)));
            wait_for("the call", SOON, || (lines(&server, "inside") == 1).then_some(()));
            wait_for_reading(address);
            match address {
                Address::Tcp(_) | Address::Tls(_) => client.reset(),
                Address::Unix(_) => drop(client),
            }
            server.open_gate("gate");
            let logged = |status: &str| server.stdout().matches(&format!("\"GET /counted HTTP/1.1\" {status}")).count();
            let lines_of_all = 3 * (round + 1);
            wait_for("a line for each", SOON, || (logged("200") + logged("499") >= lines_of_all).then_some(()));
            assert_eq!((lines(&server, "counted"), logged("499")), (0, lines_of_all), "{}", server.stdout());
            end_of(&server, Vec::new());
        }
        server.stop();
    }
}
