//! FastCGI 1.0 as a server reads it, without I/O: records in, variables and bodies out.
//!
//! A connection has one request in hand. Records of others that have begun meanwhile (fronts that multiplex, such as haproxy with
//! `mpxs-conns`) are kept as they came, within bounds, and read when that request is over: so requests of one connection are served
//! one after the other. A request that finds no room is refused with CANT_MPX_CONN, which leaves the connection as it is.
//!
//! Between two requests there is no state but that, and no record is begun: a request is complete only with the record that ends
//! its body.

use std::ops::Range;

use crate::http::error::Error;
use crate::http::records::{HEAD, RequestEnd, VERSION, kind, put_end, put_head};
use crate::protocol::pairs::Packing;

#[cfg(test)]
mod tests;

/// Most bytes of records of other requests that are kept.
pub const STASH_MAX: usize = 64 * 1024;

/// So many bytes of them are kept without asking for room: some requests without a body.
pub const STASH_FREE: usize = 4 * 1024;

/// Most requests whose records are kept.
const WAITING_MAX: usize = 64;

/// Longest content of a record that is read as a whole, in bytes: the three names that there are to ask for, with room to spare.
const CONTROL_MAX: usize = 1024;

/// The role of a server that answers requests; authorizers and filters are others (section 6).
const RESPONDER: u16 = 1;

/// Flag of a request whose connection stays open after it (section 5.1).
const KEEP_CONN: u8 = 1;

/// The names that a front may ask for, and what is answered (section 4.1). That connections are not multiplexed makes a front open
/// more of them, which is what the workers share.
const VALUES: [(&[u8], &[u8]); 3] = [(b"FCGI_MAX_CONNS", b"65535"), (b"FCGI_MAX_REQS", b"65535"), (b"FCGI_MPXS_CONNS", b"0")];

/// The request in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its id.
    pub id: u16,
    /// Whether the connection stays open after it.
    pub keep: bool,
}

/// What becomes of the content of the record in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Destination {
    /// It is thrown away.
    #[default]
    Nowhere,
    /// It is collected, and read when it is complete.
    Control,
    /// It is part of the variables.
    Params,
    /// It is part of the body.
    Stdin,
    /// It is kept for later.
    Stash,
}

/// Reads the records of a connection, up to the end of one request.
#[derive(Clone, Debug, Default)]
pub struct RecordReader {
    /// The head of the record in hand, as far as it has come.
    head: [u8; HEAD],
    /// Bytes of the head that have come; all of them: its content is in hand.
    have: usize,
    /// Bytes of content and of padding that are still to come.
    content: usize,
    padding: usize,
    target: Destination,
    control: Vec<u8>,
    active: Option<Active>,
    /// Whether the variables are complete.
    params_ended: bool,
    /// Records of other requests, whole but for the one in hand.
    stash: Vec<u8>,
    /// Whether there is room for [`STASH_MAX`] of them.
    has_room: bool,
    /// Their requests.
    waiting: Vec<u16>,
}

/// What a step has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordEvent {
    /// Nothing of concern, or more bytes are needed.
    None,
    /// These bytes of the input belong to the variables.
    Params(Range<usize>),
    /// The variables are complete.
    ParamsEnd,
    /// These bytes of the input belong to the body.
    Stdin(Range<usize>),
    /// The body is complete, and with it the request.
    StdinEnd,
    /// The request in hand is not wanted any more; its end is among the replies. Those that wait are in the stash.
    Aborted {
        /// Whether the connection stays open after it.
        keep: bool,
    },
    /// A request was refused that wanted the connection closed after it; its refusal is among the replies.
    Refused,
}

/// A step of a [`RecordReader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordStep {
    /// Bytes of the input that it has used; 0: there is nothing more to do with it.
    pub used: usize,
    /// What they were.
    pub event: RecordEvent,
}

impl RecordReader {
    /// The request in hand.
    pub fn active(&self) -> Option<Active> {
        self.active
    }

    /// Whether nothing has begun: no record and no request.
    pub fn is_idle(&self) -> bool {
        self.have == 0 && self.active.is_none()
    }

    /// The records of other requests, which come before the rest of the input. To be called when a request is over.
    pub fn take_stash(&mut self) -> Vec<u8> {
        self.waiting.clear();
        self.has_room = false;
        std::mem::take(&mut self.stash)
    }

    /// Uses some of the input; answers that are due are appended to `replies`. After an error the connection is of no use. `room` is
    /// asked before more than [`STASH_FREE`] bytes of other requests are kept, whether there is memory for [`STASH_MAX`], until
    /// [`Self::take_stash`]; what it says no to is refused.
    pub fn step(&mut self, input: &[u8], replies: &mut Vec<u8>, room: &mut dyn FnMut() -> bool) -> Result<RecordStep, Error> {
        if self.have < HEAD {
            return self.take_head(input, replies, room);
        }
        if self.content > 0 {
            let len = self.content.min(input.len());
            self.content -= len;
            let part = &input[..len];
            let mut event = match self.target {
                Destination::Params if len > 0 => RecordEvent::Params(0..len),
                Destination::Stdin if len > 0 => RecordEvent::Stdin(0..len),
                Destination::Nowhere | Destination::Params | Destination::Stdin => RecordEvent::None,
                Destination::Control => {
                    self.control.extend_from_slice(part);
                    RecordEvent::None
                }
                Destination::Stash => {
                    self.stash.extend_from_slice(part);
                    RecordEvent::None
                }
            };
            if self.content == 0 && self.padding == 0 && event == RecordEvent::None {
                event = self.finish_record(replies)?;
            } else if self.content == 0 && self.padding == 0 {
                self.have = 0;
            }
            return Ok(RecordStep { used: len, event });
        }
        let len = self.padding.min(input.len());
        self.padding -= len;
        if self.target == Destination::Stash {
            self.stash.extend_from_slice(&input[..len]);
        }
        let event = if self.padding == 0 { self.finish_record(replies)? } else { RecordEvent::None };
        Ok(RecordStep { used: len, event })
    }

    fn take_head(&mut self, input: &[u8], replies: &mut Vec<u8>, room: &mut dyn FnMut() -> bool) -> Result<RecordStep, Error> {
        let len = input.len().min(HEAD - self.have);
        self.head[self.have..self.have + len].copy_from_slice(&input[..len]);
        if self.have == 0 && len > 0 && self.head[0] != VERSION {
            return Err(Error::Malformed("it does not begin with a record of FastCGI 1"));
        }
        self.have += len;
        if self.have < HEAD {
            return Ok(RecordStep { used: len, event: RecordEvent::None });
        }
        let [_, _, _, _, high, low, padding, _] = self.head;
        (self.content, self.padding) = (usize::from(u16::from_be_bytes([high, low])), usize::from(padding));
        self.choose(replies, room)?;
        let event = if self.content + self.padding == 0 { self.finish_record(replies)? } else { RecordEvent::None };
        Ok(RecordStep { used: len, event })
    }

    fn record(&self) -> (u8, u16) {
        let [_, kind, high, low, ..] = self.head;
        (kind, u16::from_be_bytes([high, low]))
    }

    /// Decides what becomes of the record whose head has come.
    fn choose(&mut self, replies: &mut Vec<u8>, room: &mut dyn FnMut() -> bool) -> Result<(), Error> {
        let (kind, id) = self.record();
        let ours = self.active.is_some_and(|active| active.id == id);
        self.control.clear();
        self.target = match kind {
            kind::BEGIN_REQUEST if id == 0 => return Err(Error::Malformed("a request has the id 0")),
            kind::BEGIN_REQUEST if ours || self.waiting.contains(&id) => {
                return Err(Error::Malformed("a request begins twice"));
            }
            kind::BEGIN_REQUEST if self.active.is_some() => self.keep(replies, room),
            kind::PARAMS if ours && self.params_ended && self.content > 0 => {
                return Err(Error::Malformed("variables come after their end"));
            }
            kind::PARAMS if ours => Destination::Params,
            kind::STDIN if ours && !self.params_ended => {
                return Err(Error::Malformed("the body begins before the variables end"));
            }
            kind::STDIN if ours => Destination::Stdin,
            // Of a request that has ended: an early answer leaves some.
            kind::PARAMS | kind::STDIN | kind::DATA if id > 0 && self.waiting.contains(&id) => self.keep(replies, room),
            kind::PARAMS | kind::STDIN | kind::DATA if id > 0 => Destination::Nowhere,
            _ if self.content > CONTROL_MAX => return Err(Error::Malformed("a record that is no part of a stream is too long")),
            _ => Destination::Control,
        };
        if kind == kind::BEGIN_REQUEST && self.target == Destination::Control && self.content != 8 {
            return Err(Error::Malformed("the record that begins a request is not as long as it has to be"));
        }
        Ok(())
    }

    /// Keeps the record in hand for later, or refuses its request when there is no room.
    fn keep(&mut self, replies: &mut Vec<u8>, room: &mut dyn FnMut() -> bool) -> Destination {
        let (kind, id) = self.record();
        let begins = kind == kind::BEGIN_REQUEST;
        let needed = self.stash.len() + HEAD + self.content + self.padding;
        self.has_room |= (STASH_FREE + 1..=STASH_MAX).contains(&needed) && !self.has_room && room();
        let fits = needed <= if self.has_room { STASH_MAX } else { STASH_FREE };
        if !fits || begins && self.waiting.len() >= WAITING_MAX {
            // Of one that only begins there is nothing, and a look for it at all that is kept would cost more than its record.
            if !begins {
                self.forget(id);
            }
            put_end(replies, id, RequestEnd::CannotMultiplex);
            return Destination::Nowhere;
        }
        if begins {
            self.waiting.push(id);
        }
        self.stash.extend_from_slice(&self.head);
        Destination::Stash
    }

    /// Drops what is kept of a request.
    fn forget(&mut self, id: u16) {
        self.waiting.retain(|waiting| *waiting != id);
        let mut kept = Vec::new();
        let mut rest = &self.stash[..];
        while let Some(&[_, _, id_high, id_low, high, low, padding, _]) = rest.first_chunk::<HEAD>() {
            let len = HEAD + usize::from(u16::from_be_bytes([high, low])) + usize::from(padding);
            let (record, others) = rest.split_at(len.min(rest.len()));
            if u16::from_be_bytes([id_high, id_low]) != id {
                kept.extend_from_slice(record);
            }
            rest = others;
        }
        self.stash = kept;
    }

    /// The record in hand is complete.
    fn finish_record(&mut self, replies: &mut Vec<u8>) -> Result<RecordEvent, Error> {
        self.have = 0;
        let (kind, id) = self.record();
        let [_, _, _, _, high, low, ..] = self.head;
        let is_empty = (high, low) == (0, 0);
        Ok(match self.target {
            Destination::Params if is_empty && !self.params_ended => {
                self.params_ended = true;
                RecordEvent::ParamsEnd
            }
            Destination::Stdin if is_empty => RecordEvent::StdinEnd,
            Destination::Nowhere | Destination::Params | Destination::Stdin | Destination::Stash => RecordEvent::None,
            Destination::Control => self.control(kind, id, replies),
        })
    }

    fn control(&mut self, kind: u8, id: u16, replies: &mut Vec<u8>) -> RecordEvent {
        match (kind, id) {
            (kind::BEGIN_REQUEST, _) => {
                let &[role_high, role_low, flags, ..] = &self.control[..] else { unreachable!("its length was checked") };
                let keep = flags & KEEP_CONN != 0;
                if u16::from_be_bytes([role_high, role_low]) == RESPONDER {
                    (self.active, self.params_ended) = (Some(Active { id, keep }), false);
                    return RecordEvent::None;
                }
                put_end(replies, id, RequestEnd::UnknownRole);
                if keep { RecordEvent::None } else { RecordEvent::Refused }
            }
            (kind::ABORT_REQUEST, _) if self.active.is_some_and(|active| active.id == id) => {
                put_end(replies, id, RequestEnd::Complete);
                let keep = self.active.take().is_some_and(|active| active.keep);
                RecordEvent::Aborted { keep }
            }
            (kind::ABORT_REQUEST, _) if self.waiting.contains(&id) => {
                self.forget(id);
                put_end(replies, id, RequestEnd::Complete);
                RecordEvent::None
            }
            (kind::GET_VALUES, 0) => {
                let values = values(&self.control);
                put_head(replies, kind::GET_VALUES_RESULT, 0, values.len() as u16);
                replies.extend_from_slice(&values);
                RecordEvent::None
            }
            (kind, 0) => {
                put_head(replies, kind::UNKNOWN_TYPE, 0, 8);
                replies.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
                RecordEvent::None
            }
            // Of a request that is over.
            (_, _) => RecordEvent::None,
        }
    }
}

/// Whether these bytes, which follow a complete request of this id, abort it. What follows the begin of another request of the same id
/// is about that one.
pub fn has_abort(bytes: &[u8], id: u16) -> bool {
    let mut rest = bytes;
    while let Some(&[VERSION, kind, id_high, id_low, high, low, padding, _]) = rest.first_chunk::<HEAD>() {
        match kind {
            kind::ABORT_REQUEST if u16::from_be_bytes([id_high, id_low]) == id => return true,
            kind::BEGIN_REQUEST if u16::from_be_bytes([id_high, id_low]) == id => return false,
            _ => {}
        }
        let len = HEAD + usize::from(u16::from_be_bytes([high, low])) + usize::from(padding);
        rest = rest.get(len..).unwrap_or_default();
    }
    false
}

/// The answer to a question for values: those of the names that are known, each once.
fn values(asked: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let names: Vec<&[u8]> =
        Packing::Long.pairs(asked, 0..asked.len()).map_while(|pair| Some(pair.ok()?.name.of(asked))).collect();
    for (name, value) in VALUES.iter().filter(|(name, _)| names.contains(name)) {
        out.extend_from_slice(&[name.len() as u8, value.len() as u8]);
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    out
}
