//! One TLS connection without I/O of its own: records come from a reader and go to a writer.
//!
//! rustls' unbuffered interface keeps no buffers. What has come and is not used is kept here, for as long as there is any: records
//! that are not whole, records that nobody has asked for yet, bytes of one that the reader had no room for. So an idle connection
//! has no memory but its state.
//!
//! A session may go on in another process (`packing`): rustls gives its keys away, and from then on [`Records`] do what is left to do.

mod packing;

use std::io;
use std::mem::take;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{Error, HandshakeKind};

use super::facts::TlsFacts;
use super::keys::{Processed, Records};
use super::records::{AROUND, AT_ONCE, HEADER, NoSink, PlainSink, RecordSource, Scratch, Unsent, has_record};
use super::server::{ClientRules, RECORD_MAX, TlsServer};

/// Bytes of an unfinished flight of the handshake that are kept at most: a message has 64 KiB of certificates at most.
const FLIGHT_MAX: usize = 80 * 1024;

/// The same after the handshake, when no budget counts them: one record, the longest that rustls takes (RFC 5246 section 6.2.3). New
/// keys are a message of five bytes, and a client has no other one to send.
const MESSAGE_MAX: usize = HEADER + RECORD_MAX + 2048;

/// What knows the keys of a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are of the large kind, and each is in the box of its connection already"
)]
enum Engine {
    /// It has made them, or is about to.
    Negotiated(UnbufferedServerConnection),
    /// It has got them. In a box: most connections stay where they are.
    Moved(Box<Records>),
    /// Nothing any more.
    Gone,
}

/// One connection of a client.
pub struct Session {
    engine: Engine,
    /// By which its client was let in.
    rules: ClientRules,
    /// Records that have come and are not opened.
    incoming: Vec<u8>,
    /// What was in a record that is opened, and has not been taken.
    opened: Vec<u8>,
    /// Records that are sealed and not sent.
    unsent: Unsent,
    /// Whether the client has said that it sends nothing more.
    is_ended: bool,
    /// Whether this side has said so.
    has_ended: bool,
    /// Whether it cannot be used any more.
    is_broken: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("is_ended", &self.is_ended).field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedBytes {
    /// Bytes; 0 is the end, which the client has announced.
    pub count: usize,
    /// Whether more may be here, or with the reader.
    pub more: bool,
}

impl Session {
    /// A connection on which nothing has come but these bytes.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(TlsServer { config, rules }: TlsServer, begun: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            engine: Engine::Negotiated(UnbufferedServerConnection::new(config)?),
            rules,
            incoming: begun.to_vec(),
            opened: Vec::new(),
            unsent: Unsent::default(),
            is_ended: false,
            has_ended: false,
            is_broken: false,
        })
    }

    /// Goes on with the handshake; returns whether more may be here, or with the reader, once it is done.
    ///
    /// # Errors
    /// `WouldBlock`: it waits for the client, or for the writer if [`Self::has_unsent`]. Others end it; an alert that says why may
    /// be unsent.
    pub fn shake_hands(
        &mut self,
        reader: impl FnMut(&mut [u8]) -> io::Result<usize>,
        writer: impl FnMut(&[u8]) -> io::Result<usize>,
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        self.unsent.borrow(scratch);
        let more = self.go_on_shaking(reader, writer, scratch);
        self.unsent.give_back(scratch);
        more
    }

    fn go_on_shaking(
        &mut self,
        reader: impl FnMut(&mut [u8]) -> io::Result<usize>,
        mut writer: impl FnMut(&[u8]) -> io::Result<usize>,
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        let mut source = RecordSource { reader, is_drained: false };
        loop {
            self.flush(&mut writer)?;
            if !self.is_handshaking() {
                // A request that has come with the last message is here.
                return Ok(!source.is_drained || !self.opened.is_empty() || self.is_ended || has_record(&self.incoming));
            }
            let opened = self.open(&mut source, &mut NoSink, scratch);
            // An alert too.
            self.flush(&mut writer)?;
            opened?;
        }
    }

    /// Whether the handshake is not done.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.engine, Engine::Negotiated(connection) if connection.is_handshaking())
    }

    /// Whether the handshake has resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        let Engine::Negotiated(connection) = &self.engine else { return false };
        connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Bytes that are kept here because more are needed to use them.
    pub fn kept(&self) -> usize {
        self.incoming.len()
    }

    /// What applications learn of it, once the handshake is done.
    pub fn facts(&self) -> TlsFacts {
        match &self.engine {
            Engine::Negotiated(connection) => {
                let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
                TlsFacts::new(connection.protocol_version(), suite, certificate(connection))
            }
            Engine::Moved(records) => {
                let keys = records.keys();
                let certificate = Some(&*keys.certificate).filter(|certificate| !certificate.is_empty());
                TlsFacts::new(Some(keys.version()), Some(keys.suite), certificate)
            }
            Engine::Gone => TlsFacts::new(None, None, None),
        }
    }

    /// Whether its client was let in by these rules.
    pub fn is_let_in_by(&self, rules: &ClientRules) -> bool {
        self.rules == *rules
    }

    /// Reads what has come; what the protocol wants sent because of it is unsent then.
    ///
    /// # Errors
    /// `WouldBlock`: nothing has come. `UnexpectedEof`: the client has left without saying so, and what has come may not be all.
    /// `InvalidData`: what has come is no TLS of this connection.
    pub fn receive(
        &mut self,
        reader: impl FnMut(&mut [u8]) -> io::Result<usize>,
        place: &mut impl PlainSink,
        scratch: &mut Scratch,
    ) -> io::Result<OpenedBytes> {
        let opened = self.read(reader, place, scratch);
        self.unsent.give_back(scratch);
        opened
    }

    fn read(
        &mut self,
        reader: impl FnMut(&mut [u8]) -> io::Result<usize>,
        place: &mut impl PlainSink,
        scratch: &mut Scratch,
    ) -> io::Result<OpenedBytes> {
        let mut source = RecordSource { reader, is_drained: false };
        loop {
            let count = self.take_opened(place);
            if count > 0 {
                return Ok(OpenedBytes { count, more: true });
            }
            if self.is_broken {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if self.has_ended {
                return self.throw_away(&mut source, place.room(), scratch);
            }
            if self.is_ended {
                return Ok(OpenedBytes { count: 0, more: false });
            }
            let count = self.open(&mut source, place, scratch)?;
            if count > 0 {
                let more = !source.is_drained || !self.opened.is_empty() || self.is_ended || has_record(&self.incoming);
                return Ok(OpenedBytes { count, more });
            }
        }
    }

    /// Reads what nobody wants after this side has ended, and says how much it was. It is not opened: there would be no way to answer what
    /// is wrong with it.
    fn throw_away<R: FnMut(&mut [u8]) -> io::Result<usize>>(
        &mut self,
        source: &mut RecordSource<R>,
        room: usize,
        scratch: &mut Scratch,
    ) -> io::Result<OpenedBytes> {
        self.incoming = Vec::new();
        let count = source.read(scratch.input(room.min(AT_ONCE)))?;
        Ok(OpenedBytes { count, more: count > 0 && !source.is_drained })
    }

    /// Gives bytes that had no room before.
    fn take_opened(&mut self, place: &mut impl PlainSink) -> usize {
        let count = self.opened.len().min(place.room());
        if count > 0 {
            place.put(&self.opened[..count]);
            self.opened.drain(..count);
            if self.opened.is_empty() {
                self.opened = Vec::new();
            }
        }
        count
    }

    /// Opens records that are here, or one read more; returns how many bytes it gave.
    fn open<R: FnMut(&mut [u8]) -> io::Result<usize>>(
        &mut self,
        source: &mut RecordSource<R>,
        place: &mut impl PlainSink,
        scratch: &mut Scratch,
    ) -> io::Result<usize> {
        let room = place.room();
        // Whole records that had no room before are opened before more are read.
        let mut reads = !has_record(&self.incoming);
        loop {
            let before = self.incoming.len();
            let most = before + if reads { (room + AROUND).clamp(RECORD_MAX + AROUND, AT_ONCE + AROUND) } else { 0 };
            let memory = scratch.input(most);
            memory[..before].copy_from_slice(&self.incoming);
            let mut len = before;
            if reads {
                match source.read(&mut memory[before..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => len += count,
                }
            }
            let used = self.process(&mut memory[..len], place).inspect_err(|_| self.is_broken = true)?;
            self.incoming = memory[used..len].to_vec();
            let is_too_long = match self.is_handshaking() {
                true => self.incoming.len() > FLIGHT_MAX,
                // Data for which there is no room is no part of a message.
                false => place.room() > 0 && self.incoming.len() > MESSAGE_MAX,
            };
            if is_too_long {
                self.is_broken = true;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the handshake is too long"));
            }
            // Whole records may be parts of a message of the handshake, which mean nothing without the others.
            if reads || used > 0 {
                return Ok(room - place.room());
            }
            reads = true;
        }
    }

    /// Uses records, until there is no room for what is in them; returns how many bytes are used.
    fn process(&mut self, records: &mut [u8], place: &mut impl PlainSink) -> io::Result<usize> {
        match &mut self.engine {
            Engine::Negotiated(_) => self.process_negotiated(records, place),
            Engine::Moved(moved) => match moved.process(records, place, &mut self.opened) {
                Ok(Processed { used, is_ended }) => {
                    self.is_ended |= is_ended;
                    Ok(used)
                }
                Err(alert) => {
                    // If it cannot be said, the end of the connection says it.
                    let _ = moved.seal_alert(alert, &mut self.unsent);
                    Err(broken(Error::General(format!("a record is wrong: {alert:?}"))))
                }
            },
            Engine::Gone => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn process_negotiated(&mut self, records: &mut [u8], place: &mut impl PlainSink) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let Engine::Negotiated(connection) = &mut self.engine else { return Ok(used) };
            let UnbufferedStatus { mut discard, state } = connection.process_tls_records(&mut records[used..]);
            let mut goes_on = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        let (now, later) = record.payload.split_at(record.payload.len().min(place.room()));
                        place.put(now);
                        self.opened.extend_from_slice(later);
                    }
                    goes_on = place.room() > 0;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut self.unsent, &mut data),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_ended = true,
                Ok(ConnectionState::Closed) => {
                    self.is_ended = true;
                    goes_on = false;
                }
                Ok(_) => goes_on = false,
                Err(error) => {
                    self.put_alert();
                    return Err(broken(error));
                }
            }
            used += discard;
            if !goes_on {
                return Ok(used);
            }
        }
    }

    /// Puts the alert that tells the client of an error. rustls looks at no record for it: one more look would be one more error.
    #[cold]
    fn put_alert(&mut self) {
        while let Engine::Negotiated(connection) = &mut self.engine
            && connection.wants_write()
            && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
                connection.process_tls_records(&mut [])
        {
            encode(&mut self.unsent, &mut data);
        }
    }

    /// Sends bytes; returns how many were taken, all of which leave before others. Fewer than there are: the writer takes no more
    /// now.
    ///
    /// # Errors
    /// `WouldBlock`: none was taken. Others end the connection.
    pub fn send(
        &mut self,
        parts: &[&[u8]],
        writer: impl FnMut(&[u8]) -> io::Result<usize>,
        scratch: &mut Scratch,
    ) -> io::Result<usize> {
        self.unsent.borrow(scratch);
        let taken = self.seal_and_send(parts, writer);
        self.unsent.give_back(scratch);
        taken
    }

    fn seal_and_send(&mut self, parts: &[&[u8]], mut writer: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.flush(&mut writer)?;
        if self.is_broken || self.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut taken = 0;
        let mut joined = Vec::new();
        let mut parts = parts.iter().copied().filter(|part| !part.is_empty()).peekable();
        let mut rest: &[u8] = &[];
        loop {
            if rest.is_empty() {
                match parts.next() {
                    Some(part) => rest = part,
                    None => return Ok(taken),
                }
            }
            let (now, later) = rest.split_at(rest.len().min(AT_ONCE));
            // Parts that are small leave in one record.
            let is_short = later.is_empty() && now.len() < RECORD_MAX && parts.peek().is_some();
            if is_short {
                joined.clear();
                joined.extend_from_slice(now);
                rest = &[];
                while let Some(part) = parts.peek() {
                    let (head, tail) = part.split_at(part.len().min(RECORD_MAX - joined.len()));
                    joined.extend_from_slice(head);
                    parts.next();
                    rest = tail;
                    if !tail.is_empty() || joined.len() == RECORD_MAX {
                        break;
                    }
                }
            } else {
                rest = later;
            }
            let now = if is_short { joined.as_slice() } else { now };
            self.seal(now)?;
            taken += now.len();
            match self.flush(&mut writer) {
                Ok(()) => {}
                // They are taken: they are unsent.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes records of these bytes.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Engine::Moved(records) = &mut self.engine {
            records.seal(bytes, &mut self.unsent).inspect_err(|_| self.is_broken = true)?;
            // It ends as if the client had asked for that.
            self.is_ended |= records.is_worn();
            return Ok(());
        }
        self.with_traffic(|traffic, space| traffic.encrypt(bytes, space), bytes.len() + AROUND * bytes.len().div_ceil(RECORD_MAX))
    }

    /// Says that this side sends nothing more; it is unsent then.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) && !self.is_broken && !self.is_handshaking() {
            // Nothing is lost but the announcement.
            let _ = match &mut self.engine {
                Engine::Moved(records) => records.seal_end(&mut self.unsent),
                Engine::Negotiated(_) | Engine::Gone => {
                    self.with_traffic(|traffic, space| traffic.queue_close_notify(space), AROUND)
                }
            };
        }
    }

    /// Whether records are sealed and not sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether the client has said that it sends nothing more.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Sends what is unsent.
    ///
    /// # Errors
    /// `WouldBlock`: the writer takes no more now.
    pub fn flush(&mut self, writer: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        self.unsent.send(writer)
    }

    /// Keeps no memory but what it needs.
    pub fn shrink(&mut self, scratch: &mut Scratch) {
        self.unsent.give_back(scratch);
    }

    fn with_traffic(
        &mut self,
        mut act: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
        room: usize,
    ) -> io::Result<()> {
        loop {
            let Engine::Negotiated(connection) = &mut self.engine else { return Err(io::ErrorKind::BrokenPipe.into()) };
            // Not without what is kept: it may be a part of a message, in which rustls remembers how far it is.
            let mut incoming = take(&mut self.incoming);
            let UnbufferedStatus { mut discard, state } = connection.process_tls_records(&mut incoming);
            let mut result = None;
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let mut failure = None;
                    self.unsent.reserve(room);
                    self.unsent.put(|space| match act(&mut traffic, space) {
                        Ok(count) => Ok(count),
                        Err(EncryptError::InsufficientSize(error)) => Err(error),
                        Err(error) => {
                            failure = Some(error);
                            Ok(0)
                        }
                    });
                    result = Some(failure.map_or(Ok(()), |error| Err(io::Error::other(error))));
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                self.opened.extend_from_slice(record.payload);
                            }
                            Err(error) => result = Some(Err(broken(error))),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut self.unsent, &mut data),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_ended = true,
                Ok(_) => result = Some(Err(io::ErrorKind::BrokenPipe.into())),
                Err(error) => result = Some(Err(broken(error))),
            }
            self.incoming = if discard == 0 { incoming } else { incoming[discard..].to_vec() };
            if let Some(result) = result {
                self.is_broken |= result.is_err();
                return result;
            }
        }
    }
}

/// The certificate that the client has shown.
fn certificate(connection: &UnbufferedServerConnection) -> Option<&[u8]> {
    connection.peer_certificates().and_then(<[_]>::first).map(AsRef::as_ref)
}

fn encode(unsent: &mut Unsent, data: &mut EncodeTlsData<'_, ServerConnectionData>) {
    unsent.put(|space| match data.encode(space) {
        Ok(count) => Ok(count),
        Err(EncodeError::InsufficientSize(error)) => Err(error),
        Err(EncodeError::AlreadyEncoded) => Ok(0),
    });
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
