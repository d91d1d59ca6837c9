//! Answers as they come off the wire, and whether they are the expected ones.

use super::common::client::find;
use super::model::{End, Expected};
use super::pattern::difference;
use super::plan::Plan;

/// One answer, or the part of it that came before the end of the connection.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    fields: Vec<(String, String)>,
    /// Body without framing.
    pub body: Vec<u8>,
    /// Whether the end of the body came, by its framing.
    pub whole: bool,
    /// Early hints before it.
    hints: usize,
    /// Bytes on the wire.
    pub len: usize,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Closed,
    /// By a reset.
    Reset,
}

/// What [`read`] finds.
#[derive(Debug)]
pub enum Found {
    /// A whole answer, or what there will ever be of it.
    Answer(Box<Answer>),
    /// Its end cannot be there before there are so many bytes in all. Without them nothing has to be read again.
    Less(usize),
}

/// Reads the answer at the start of `bytes`; `ended`: no more will come.
pub fn read(bytes: &[u8], head_only: bool, ended: Option<Ended>) -> Result<Found, String> {
    let (mut at, mut hints) = (0, 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n\r\n") else { return Ok(Found::Less(bytes.len() + 1)) };
        let (status, fields) = head(&bytes[at..at + end])?;
        at += end + 4;
        match status {
            100 => {}
            103 => hints += 1,
            _ => {
                let answer = Answer { status, fields, body: Vec::new(), whole: true, hints, len: at };
                return answer.with_body(bytes, head_only, ended);
            }
        }
    }
}

fn head(bytes: &[u8]) -> Result<(u16, Vec<(String, String)>), String> {
    let text = String::from_utf8_lossy(bytes);
    let shown = || text.chars().take(200).collect::<String>();
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| format!("no head of an answer: \"{}\"", shown().escape_debug()))?;
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("no field: \"{}\"", line.escape_debug()))?;
        Ok((name.to_ascii_lowercase(), value.to_owned()))
    });
    Ok((status, fields.collect::<Result<_, String>>()?))
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether the server says that it closes the connection.
    pub fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }

    fn with_body(mut self, bytes: &[u8], head_only: bool, ended: Option<Ended>) -> Result<Found, String> {
        if head_only || matches!(self.status, 204 | 304) {
            return Ok(Found::Answer(Box::new(self)));
        }
        let from = self.len;
        let mut least = usize::MAX;
        if self.field("transfer-encoding") == Some("chunked") {
            let more = self.chunks(&bytes[from..])?;
            self.whole = more.is_none();
            if let Some(more) = more {
                least = from + more;
                self.len = bytes.len();
            }
        } else if let Some(length) = self.field("content-length") {
            let length: usize = length.parse().map_err(|_| format!("Content-Length: {length}"))?;
            least = from + length;
            self.whole = bytes.len() >= least;
            if self.whole || ended.is_some() {
                self.body = bytes[from..bytes.len().min(from + length)].to_vec();
            }
            self.len += self.body.len();
        } else {
            self.whole = ended == Some(Ended::Closed);
            if ended.is_some() {
                self.body = bytes[from..].to_vec();
            }
            self.len = bytes.len();
        }
        Ok(if self.whole || ended.is_some() { Found::Answer(Box::new(self)) } else { Found::Less(least) })
    }

    /// Takes the chunks that are there; without the last one, how many bytes there must be at least for the next.
    fn chunks(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let from = self.len;
        let mut at = 0;
        loop {
            let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(Some(bytes.len() + 1)) };
            let line = &bytes[at..at + end];
            let size = std::str::from_utf8(line).ok().and_then(|line| usize::from_str_radix(line, 16).ok());
            let size =
                size.ok_or_else(|| format!("no chunk size behind {} bytes: \"{}\"", self.body.len(), line.escape_ascii()))?;
            at += end + 2;
            let data = &bytes[at..bytes.len().min(at + size)];
            self.body.extend_from_slice(data);
            let Some(behind) = bytes.get(at + size..at + size + 2) else { return Ok(Some(at + size + 2)) };
            if behind != b"\r\n" {
                return Err(format!("no line end behind a chunk of {size} bytes: \"{}\"", behind.escape_ascii()));
            }
            at += size + 2;
            if size == 0 {
                self.len = from + at;
                return Ok(None);
            }
        }
    }

    /// Whether the server has no time for the request.
    pub fn is_refusal(&self) -> bool {
        self.status == 503 && self.closes() && self.field("x-id").is_none()
    }

    /// The mistake in this whole (or cut) answer. `torn`: the client, or a reset, may have destroyed the end of it. `unseen`:
    /// that it is cut does not show.
    pub fn check(&self, plan: &Plan, expected: &Expected, torn: bool, unseen: bool) -> Result<(), String> {
        if self.status != expected.status {
            return Err(format!("the status is {} instead of {}", self.status, expected.status));
        }
        if !torn && self.hints != expected.hints {
            return Err(format!("{} early hints instead of {}", self.hints, expected.hints));
        }
        let cut = matches!(expected.end, End::Cut | End::Reset);
        if self.whole && cut && !unseen {
            return Err("an answer that broke in its middle looks whole".to_owned());
        }
        if !self.whole && !cut && !torn {
            return Err(format!("the answer is cut after {} bytes of its body", self.body.len()));
        }
        let Some(body) = &expected.body else { return Ok(()) };
        let name = format!("{:08x}", plan.id);
        if self.field("x-id") != Some(&name) {
            return Err(format!("the head is that of {:?}", self.field("x-id")));
        }
        let field = self.field("x-big").map(str::as_bytes);
        if let Some(difference) = difference(expected.field.as_deref().unwrap_or_default(), field.unwrap_or_default()) {
            return Err(format!("a field has {difference}"));
        }
        let body = if torn && !self.whole { &body[..body.len().min(self.body.len())] } else { body.as_slice() };
        difference(body, &self.body).map_or(Ok(()), |difference| Err(format!("the body has {difference}")))
    }
}
