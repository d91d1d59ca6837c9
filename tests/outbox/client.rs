//! The client of the tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::native::Worker;

/// A connection on which requests are written at once and answers read one by one.
pub struct Client<S = TcpStream>(pub BufReader<S>);

impl Client {
    pub fn new(worker: &Worker) -> Self {
        Self(BufReader::new(worker.connect()))
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, targets: &[&str]) {
        let requests: String = targets.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        self.0.get_mut().write_all(requests.as_bytes()).unwrap();
    }

    /// Status and body of the next answer.
    pub fn receive(&mut self) -> (u16, String) {
        let (status, length, chunked) = self.head();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let mut more = chunked;
        while more {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            let start = body.len();
            body.resize(start + size, 0);
            self.0.read_exact(&mut body[start..]).unwrap();
            assert_eq!(self.line(), "");
            more = size > 0;
        }
        (status, String::from_utf8(body).unwrap())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the connection has ended");
        line.trim_end_matches("\r\n").to_owned()
    }

    pub fn head(&mut self) -> (u16, usize, bool) {
        let status = self.line().split(' ').nth(1).unwrap().parse().unwrap();
        let (mut length, mut chunked) = (0, false);
        loop {
            match self.line().split_once(": ") {
                None => return (status, length, chunked),
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                Some(("Transfer-Encoding", value)) => chunked = value == "chunked",
                Some(_) => {}
            }
        }
    }

    #[track_caller]
    pub fn expect(&mut self, targets: &[&str]) {
        for &target in targets {
            assert_eq!(self.receive(), (200, target.to_owned()));
        }
    }

    #[track_caller]
    pub fn expect_end(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }
}
