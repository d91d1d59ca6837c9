//! The consequences of a head: the body's framing and the connection's fate (RFC 9112 sections 6.3 and 9.3, in their order).

use super::bytes::{decimal, is_token, same, trim};
use super::error::Error;
use super::head::{Head, Version};
use super::once::Once;
use super::target::{Target, is_authority};

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// No body.
    #[default]
    None,
    /// Content-Length, in bytes (may be 0: the header was there).
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The facts of a head about the message and the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// Body delimitation.
    pub length: Length,
    /// Whether the client wants the connection kept (version and Connection options).
    pub persistent: bool,
    /// Whether the client waits for `100 Continue` (1.1, `Expect: 100-continue`, a body to come).
    pub expect_continue: bool,
    /// Whether `Upgrade` is present and named in Connection.
    pub upgrade: bool,
}

/// The options of the Connection field lines that matter here.
#[derive(Default)]
struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

/// Reads the framing of a complete head and refuses ambiguous ones: two framings, an invalid Host, a second field that may come
/// once, a target whose form the method does not allow.
#[inline]
pub fn of(head: &Head, bytes: &[u8]) -> Result<Framing, Error> {
    let old = head.version == Version::Http10;
    let mut once = Once::default();
    let mut host = false;
    let mut known = None;
    let mut coding = Coding::default();
    let mut connection = ConnectionOptions::default();
    let mut expect = false;
    let mut upgrade = false;

    Target::check(head, bytes)?;
    for field in &head.fields {
        once.note(field.name.of(bytes))?;
        // Length and first letter select the few names that matter, so that most names are not compared at all.
        let (len, first) = (field.name.len(), bytes[field.name.start as usize] | 0x20);
        if !matches!((len, first), (4, b'h') | (6, b'e') | (7, b'u') | (10 | 14, b'c') | (17, b't')) {
            continue;
        }
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        match len {
            4 if same(name, b"host") => {
                host = true;
                // A client whose target has no authority sends an empty Host (RFC 9112 section 3.2).
                if !value.is_empty() && !is_authority(value) {
                    return Err(Error::Host);
                }
            }
            6 if same(name, b"expect") && !old => expect |= expects_continue(value)?,
            7 if same(name, b"upgrade") => upgrade |= !value.is_empty(),
            10 if same(name, b"connection") => connection.read(value),
            14 if same(name, b"content-length") => known = Some(decimal(value).ok_or(Error::Length)?),
            17 if same(name, b"transfer-encoding") => coding.read(value)?,
            _ => {}
        }
    }
    if !host && !old {
        return Err(Error::HostMissing);
    }
    let length = match (coding.seen, known) {
        (false, None) => Length::None,
        (false, Some(known)) => Length::Known(known),
        (true, _) if old => return Err(Error::CodingInHttp10),
        (true, Some(_)) => return Err(Error::LengthAndCoding),
        (true, None) => coding.length()?,
    };
    Ok(Framing {
        length,
        persistent: !connection.close && (!old || connection.keep_alive),
        expect_continue: expect && !matches!(length, Length::None | Length::Known(0)),
        upgrade: upgrade && connection.upgrade && !old,
    })
}

impl ConnectionOptions {
    #[inline]
    fn read(&mut self, value: &[u8]) {
        // The value that browsers send, and `ab -k`.
        if same(value, b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        for option in value.split(|&b| b == b',') {
            let option = trim(option);
            match option.len() {
                5 => self.close |= same(option, b"close"),
                7 => self.upgrade |= same(option, b"upgrade"),
                10 => self.keep_alive |= same(option, b"keep-alive"),
                _ => {}
            }
        }
    }
}

/// `100-continue` is the only expectation there is (RFC 9110 section 10.1.1); an empty list expects nothing.
fn expects_continue(value: &[u8]) -> Result<bool, Error> {
    let mut expects = false;
    for expectation in value.split(|&b| b == b',').map(trim).filter(|expectation| !expectation.is_empty()) {
        if !same(expectation, b"100-continue") {
            return Err(Error::Expectation);
        }
        expects = true;
    }
    Ok(expects)
}

/// The transfer codings over all field lines, in order.
#[derive(Default)]
struct Coding {
    seen: bool,
    unknown: bool,
    /// `chunked` came; nothing may follow it.
    chunked: bool,
}

impl Coding {
    fn read(&mut self, value: &[u8]) -> Result<(), Error> {
        self.seen = true;
        for coding in value.split(|&b| b == b',').map(trim) {
            let name = trim(coding.split(|&b| b == b';').next().unwrap_or_default());
            // An empty element is legal in lists, but other servers read it differently, which allows smuggling.
            if self.chunked || !is_token(name) {
                return Err(Error::Coding);
            }
            if same(name, b"chunked") {
                // Parameters are not defined for chunked.
                if name.len() != coding.len() {
                    return Err(Error::Coding);
                }
                self.chunked = true;
            } else if same(name, b"identity") {
                // Removed from the standard since it meant "no coding": without chunked after it the body has no end.
                return Err(Error::Coding);
            } else {
                self.unknown = true;
            }
        }
        Ok(())
    }

    fn length(&self) -> Result<Length, Error> {
        match (self.unknown, self.chunked) {
            (true, _) => Err(Error::CodingUnknown),
            (false, true) => Ok(Length::Chunked),
            (false, false) => Err(Error::Coding),
        }
    }
}

#[cfg(test)]
mod tests;
