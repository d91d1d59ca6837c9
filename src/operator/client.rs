//! One request to a control socket, and its answer.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest answer read, in bytes: the document of thousands of workers.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;

/// Time for an answer that the server gives at once. It answers within milliseconds unless it reads a gunicorn file, which may
/// take it ten seconds.
pub const ANSWER_TIME: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug)]
pub struct ControlAnswer {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum AskError {
    /// Nobody listens, or the connection broke.
    Nobody(String),
    /// None came in time.
    Late(String),
}

/// Asks, and waits so long for the answer.
pub fn ask(socket: &Path, method: &str, target: &str, time: Duration) -> Result<ControlAnswer, AskError> {
    let until = Instant::now() + time;
    exchange(socket, method, target, until).map_err(|error| {
        let place = socket.display();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                AskError::Late(format!("{place}: no answer within {:.0} s", time.as_secs_f64()))
            }
            io::ErrorKind::PermissionDenied => {
                AskError::Nobody(format!("{place}: permission denied; root and the user of the master may ask"))
            }
            io::ErrorKind::NotFound => AskError::Nobody(format!(
                "{place}: there is no such socket; the server does not run, or was started with another --control-socket"
            )),
            io::ErrorKind::ConnectionRefused => {
                AskError::Nobody(format!("{place}: nobody listens there any more; the server has ended, and could not remove it"))
            }
            _ => AskError::Nobody(format!("{place}: {error}")),
        }
    })
}

fn exchange(socket: &Path, method: &str, target: &str, until: Instant) -> io::Result<ControlAnswer> {
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(left()))?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: tapster\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while bytes.len() as u64 <= ANSWER_MAX {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut buffer) {
            Ok(0) => return parse(&bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"))
}

/// Status and body of a whole answer.
fn parse(bytes: &[u8]) -> io::Result<ControlAnswer> {
    let invalid =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("this is no control socket of a tapster: {what}"));
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| invalid("the answer ends in its head"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("it does not answer with HTTP"))?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    if length.is_some_and(|length| length > body.len()) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off"));
    }
    Ok(ControlAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_listens_the_error_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x.ctl");
        let why = || match ask(&place, "GET", "/", Duration::from_secs(1)) {
            Err(AskError::Nobody(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            why(),
            format!(
                "{}: there is no such socket; the server does not run, or was started with another --control-socket",
                place.display()
            )
        );
        drop(std::os::unix::net::UnixListener::bind(&place).unwrap());
        assert!(why().ends_with("nobody listens there any more; the server has ended, and could not remove it"), "{}", why());
    }

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let answer = parse(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (409, "hi"));
        for broken in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"] {
            assert!(parse(broken).is_err(), "{}", broken.escape_ascii());
        }
    }
}
