//! Files that change, vanish or are read slowly while they are sent, and a whole tree that changes under load.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::server::Running;
use crate::common::{SOON, procfs, wait_for};
use crate::{root, server, tree};

/// A client that has asked for this file and reads nothing yet, when the server can send no more.
pub fn stalled(server: &Running, name: &str, version: &str) -> Client {
    let mut client = server.connect();
    client.shrink_receive_buffer(64 * 1024);
    client.send(format!("GET /static/{name} {version}\r\nHost: t\r\nConnection: close\r\n\r\n"));
    // The head has come, so the server has begun, and when it sleeps the socket is full.
    assert!(client.fill().expect("bytes come") > 0);
    let sleeps = |pid: &i32| procfs::process(*pid).is_some_and(|process| process.state == 'S');
    wait_for("a full socket", SOON, || server.workers().iter().all(sleeps).then_some(()));
    client
}

/// A file that no socket takes whole.
pub fn vast(server: &Running) -> (PathBuf, Vec<u8>) {
    let content: Vec<u8> = tree::large().into_iter().cycle().take(16 * 1024 * 1024).collect();
    let path = root(server).join("vast.bin");
    fs::write(&path, &content).unwrap();
    (path, content)
}

#[test]
fn a_file_that_shrinks_or_changes_while_it_is_sent_is_cut() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for what in ["shrinks", "is emptied", "is written anew", "gives way to a longer one"] {
            let server = server().start();
            let (path, content) = vast(&server);
            let mut client = stalled(&server, "vast.bin", version);
            match what {
                // Whole pages: the bytes that are on their way stay.
                "shrinks" => File::options().write(true).open(&path).unwrap().set_len(12 * 1024 * 1024).unwrap(),
                "is emptied" => drop(File::create(&path).unwrap()),
                // As cp(1) does it: more bytes than before, and others.
                "gives way to a longer one" => fs::write(&path, vec![b'x'; content.len() + 1000]).unwrap(),
                _ => File::options().write(true).open(&path).unwrap().write_all_at(b"x", 15 * 1024 * 1024).unwrap(),
            }
            let mut bytes = client.rest();
            let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("the head was sent") + 4;
            bytes.drain(..head);
            assert!(bytes.len() < content.len(), "{what}: the answer is cut");
            assert!(bytes == content[..bytes.len()], "{what}: no byte is another one");
            server.log().wait(&["the file that answers GET /static/vast.bin", "the answer is cut"]);
            server.stop();
        }
    }
}

#[test]
fn a_file_that_grows_or_vanishes_while_it_is_sent_is_whole() {
    let server = server().start();
    for what in ["grows", "vanishes", "is replaced"] {
        let (path, content) = vast(&server);
        let mut client = stalled(&server, "vast.bin", "HTTP/1.1");
        match what {
            "grows" => OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap(),
            "vanishes" => fs::remove_file(&path).unwrap(),
            _ => {
                fs::write(path.with_extension("new"), b"another").unwrap();
                fs::rename(path.with_extension("new"), &path).unwrap();
            }
        }
        let response = client.response();
        assert!(response.complete && response.body == content, "{what}: {response:?}");
    }
    assert_eq!(server.get("/static/vast.bin").text(), "another");
    server.stop();
}

#[test]
fn a_slow_reader_keeps_nobody_from_his_files() {
    let server = server().options(["--write-timeout", "1s", "--access-logfile", "-"]).start();
    let (_, content) = vast(&server);
    let stalled: Vec<Client> = (0..10).map(|_| stalled(&server, "vast.bin", "HTTP/1.1")).collect();
    for _ in 0..20 {
        assert_eq!(server.get("/static/a.txt").status, 200);
        assert_eq!(server.get("/x").text(), "/x");
    }
    // Who takes no byte for so long is cut, and the log says how much was sent.
    let lines = || server.stdout().lines().filter(|line| line.contains("vast.bin")).map(str::to_owned).collect::<Vec<_>>();
    let lines = wait_for("ten lines of the log", SOON, || Some(lines()).filter(|lines| lines.len() == 10));
    for line in lines {
        let sent: usize = line.split(' ').nth(9).and_then(|sent| sent.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        assert!(line.contains("\" 200 ") && sent > 0 && sent < content.len(), "{line}");
    }
    for mut client in stalled {
        assert!(client.rest().len() < content.len());
    }
    server.stop();
}

/// Content of the version `n` of a file: its number, over and over.
fn version(n: u64, size: usize) -> Vec<u8> {
    let line = format!("{n:015}\n");
    line.as_bytes().iter().copied().cycle().take(size).collect()
}

#[test]
fn a_tree_that_changes_under_load_gives_no_wrong_byte() {
    const SIZES: [usize; 4] = [48, 4096, 16 * 1024, 1024 * 1024];
    let server = server().workers(2).start();
    let dir = root(&server);
    let name = |size: usize| format!("v{size}.bin");
    for size in SIZES {
        fs::write(dir.join(name(size)), version(0, size)).unwrap();
    }
    let (stop, answers, cut, missing) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let address = server.address().clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            for n in 1.. {
                // On a busy machine until every kind of answer was there.
                let is_seen = missing.load(Relaxed) > 0 && answers.load(Relaxed) > 200;
                if began.elapsed() > if is_seen { Duration::from_secs(4) } else { 2 * SOON } {
                    break;
                }
                for size in SIZES {
                    let path = dir.join(name(size));
                    let fresh = dir.join(format!("fresh-{size}"));
                    match n % 5 {
                        0 => drop(fs::remove_file(&path)),
                        // An emptied file: what was announced is cut, never filled.
                        1 => drop(File::create(&path)),
                        _ => {
                            fs::write(&fresh, version(n, size)).unwrap();
                            fs::rename(&fresh, &path).unwrap();
                        }
                    }
                }
            }
            stop.store(true, Relaxed);
        });
        for seed in 0..4 {
            let (stop, answers, cut, missing, address) = (&stop, &answers, &cut, &missing, &address);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for turn in seed.. {
                    if stop.load(Relaxed) {
                        break;
                    }
                    let size = SIZES[turn % SIZES.len()];
                    client.send(format!("GET /static/v{size}.bin HTTP/1.1\r\nHost: t\r\n\r\n"));
                    let Ok(response) = client.try_response_to("GET") else {
                        cut.fetch_add(1, Relaxed);
                        client = Client::connect(address);
                        continue;
                    };
                    match response.status {
                        200 if response.body.is_empty() => {}
                        200 => {
                            let number = response.text().get(..15).and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
                            let whole = version(number, size);
                            assert!(whole.starts_with(&response.body), "a wrong byte in version {number} of {size}");
                            if response.complete {
                                assert_eq!(response.body.len(), size);
                                let tag = response.field("etag").expect("a file has a tag");
                                assert!(tag.ends_with(&format!("-{size:x}\"")), "{tag} of {size} bytes");
                            }
                        }
                        404 => drop(missing.fetch_add(1, Relaxed)),
                        status => panic!("{status}"),
                    }
                    answers.fetch_add(1, Relaxed);
                    if !response.complete {
                        cut.fetch_add(1, Relaxed);
                        client = Client::connect(address);
                    }
                }
            });
        }
    });
    let (answers, missing) = (answers.load(Relaxed), missing.load(Relaxed));
    assert!(answers > 200 && missing > 0, "{answers} answers, {missing} not found, {} cut", cut.load(Relaxed));
    server.stop();
}
