//! Servers whose connections change their worker, and clients that see which one answers.

use super::client::{Address, Client, Response};
use super::server::{Running, Server};
use super::{SOON, wait_for};

/// Options that make a worker busy with one slow request.
pub const ONE_THREAD: &[&str] = &["--threads", "1"];

/// A server of tests/apps/handoff.py, whose log names each request that is handed over.
pub fn server(workers: usize, options: &[&str]) -> Server {
    let server = Server::new("handoff").workers(workers).options(["--log-level", "debug"]).options(options);
    let temp = server.temp().display().to_string();
    // The variable gives way to the option of a test. By default a client that waits for the others of its test may lose its
    // connection.
    server.env("HANDOFF_DIR", temp).env("TAPSTER_KEEP_ALIVE", "60")
}

/// Waits until so many calls of a worker are at their gate.
#[track_caller]
pub fn wait_for_calls(server: &Running, pid: i32, count: usize) {
    wait_for("calls at their gate", SOON, || {
        let inside = std::fs::read_to_string(server.temp().join(format!("inside-{pid}"))).unwrap_or_default();
        (inside.lines().count() == count).then_some(())
    });
}

/// The worker that has answered.
pub fn worker_of(response: &Response) -> i32 {
    assert_eq!(response.status, 200, "{response:?}");
    response.field("x-worker").and_then(|pid| pid.parse().ok()).expect("the application names its worker")
}

/// Connections, at least `each` of them in every worker, with their workers.
pub fn spread(server: &Running, address: &Address, each: usize) -> Vec<(Client, i32)> {
    spread_by(server, each, || Client::connect(address))
}

/// The same, of clients that connect in their own way.
pub fn spread_by(server: &Running, each: usize, mut connect: impl FnMut() -> Client) -> Vec<(Client, i32)> {
    let mut clients = Vec::new();
    let workers = server.workers();
    wait_for("connections to every worker", SOON, || {
        let mut client = connect();
        let worker = worker_of(&client.get("/"));
        clients.push((client, worker));
        let count = |pid: &i32| clients.iter().filter(|(_, worker)| worker == pid).count();
        workers.iter().all(|pid| count(pid) >= each).then_some(())
    });
    clients
}
