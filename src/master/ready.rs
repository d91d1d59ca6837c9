//! The report that the server is ready, to the process that started it: `--ready-fd`.

use std::fs::File;
use std::io;

use crate::log::sink::PIPE_BUF;
use crate::net::listener::Listener;
use crate::sys::fd::{self, inherited};

/// The descriptor of `--ready-fd`. Dropped without [`ReadyFd::announce`] it is closed, which the reader takes for a failure.
#[derive(Debug)]
pub struct ReadyFd(File);

impl ReadyFd {
    /// Takes the descriptor over.
    pub fn adopt(number: i32) -> io::Result<Self> {
        Ok(Self(inherited(number)?.into()))
    }

    /// Writes `READY <addresses>` and a newline, and closes. A reader that has left no room for them is not waited for.
    pub fn announce(self, places: &[String]) -> io::Result<()> {
        let addresses: String = places.iter().map(|place| format!(" {place}")).collect();
        let line = format!("READY{addresses}\n");
        match fd::write_now(&self.0, line.as_bytes(), PIPE_BUF)? {
            count if count == line.len() => Ok(()),
            _ => Err(io::Error::other("there is no room for the line")),
        }
    }
}

/// Where these listen, for people and programs.
pub fn places(listeners: &[Listener]) -> Vec<String> {
    listeners.iter().map(|listener| listener.place().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::config::{Bind, Endpoint, Settings};
    use crate::net::bind::bind_all;

    #[test]
    fn the_reader_gets_one_line_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let binds = [Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }, Endpoint::Unix(path.clone())].map(Bind::plain).into();
        let listeners = bind_all(&Settings { binds, ..Settings::default() }).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        ReadyFd(File::from(OwnedFd::from(writer))).announce(&places(&listeners)).unwrap();
        let mut line = String::new();
        reader.read_to_string(&mut line).unwrap();
        assert_eq!(line, format!("READY {} unix:{}\n", listeners[0].place(), path.display()));
    }
}
