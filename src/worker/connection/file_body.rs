//! The body of an answer that is a part of a file, sent by the kernel (sendfile(2)): static files, and those of
//! `wsgi.file_wrapper`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::stat::fstat;

use crate::files::validator::Validator;
use crate::http::head::{Head, HeadView};
use crate::http::response::{BodyFraming, Piece};
use crate::http::terms::Terms;
use crate::worker::app::Fate;
use crate::worker::ctx::ThreadCtx;
use crate::worker::ctx::files::SentFile;
use crate::worker::files::{read_whole, state};
use crate::worker::send::file_pace::TURN;
use crate::worker::send::output::{deliver_by, send_last};

use super::{CloseReason, Connection, Flow, Next, Phase};

/// A head leaves with the bytes of a piece that is not larger; before a larger one the kernel sends it for less alone.
const JOINED_MAX: u64 = 64 * 1024;

/// Bytes at the end of a file that are remembered while it is sent.
const TAIL: u64 = 64;

/// The rest of an answer with a static file.
#[derive(Debug)]
pub struct FileBody {
    file: File,
    /// The state that the head has named.
    state: Validator,
    framing: BodyFraming,
    /// The next byte.
    offset: u64,
    /// Bytes that are left of the piece whose framing is sent.
    piece: u64,
    /// The framing behind that piece.
    after: &'static [u8],
    /// Bytes behind that piece.
    rest: u64,
    /// Bytes in all.
    len: u64,
    /// Whether a turn has passed since the file was looked at.
    is_late: bool,
    /// Whether the end of the answer was rendered, which the socket may not have taken.
    is_ended: bool,
    /// The bytes that the file ended with, once they may be needed; empty: they cannot be read.
    tail: Option<Vec<u8>>,
    terms: Terms,
    began: u64,
    response_head: Vec<u8>,
    /// The request's head and its bytes, for the log; empty when there was no memory for them.
    pub(super) head: Head,
    pub(super) bytes: Vec<u8>,
}

/// How the sending of a part of a file has ended.
#[derive(Debug)]
pub(super) enum SentPart {
    /// All of it was sent.
    Done,
    /// As much as may be sent at once was.
    Spent,
    /// The socket takes no more.
    Full,
    /// The client is gone.
    Gone,
    /// The file ends before.
    Short,
    /// The file cannot be read.
    Broken(io::Error),
}

impl FileBody {
    /// The bytes of the file from `offset`, behind the head that is rendered.
    pub(super) fn new(
        (file, state): (File, Validator),
        framing: BodyFraming,
        (offset, len): (u64, u64),
        response_head: Vec<u8>,
        (terms, began): (Terms, u64),
    ) -> Self {
        let mut body = Self {
            file,
            state,
            framing,
            offset,
            piece: 0,
            after: b"",
            rest: len,
            len,
            is_late: false,
            is_ended: false,
            tail: None,
            terms,
            began,
            response_head,
            head: Head::default(),
            bytes: Vec::new(),
        };
        // One turn may be enough for a shorter one, and then nobody asks.
        if len > TURN {
            body.tail = Some(body.read_tail().unwrap_or_default());
        }
        body
    }

    /// Whether a cut may look like the end.
    pub(super) fn ends_with_close(&self) -> bool {
        self.terms.ends_with_close()
    }

    fn view(&self) -> HeadView<'_> {
        HeadView { head: &self.head, bytes: &self.bytes }
    }

    /// Whether the file still has the content that the head has named, as far as that can be seen without reading all of it.
    fn is_unchanged(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| {
            let now = state(&stat, self.state.coding);
            now == self.state || (now.size > self.state.size && self.has_only_grown())
        })
    }

    /// Whether a file that is longer now was appended to (a log, an upload), and not written anew: what was its end is in its place.
    fn has_only_grown(&self) -> bool {
        let tail = self.tail.as_ref().filter(|tail| !tail.is_empty());
        tail.is_some_and(|tail| self.read_tail().as_ref() == Some(tail))
    }

    /// A turn was not enough: reads the tail, if that was not done yet and the file is still what the head has named.
    fn keep_tail(&mut self) {
        if self.tail.is_none() {
            let tail = self.read_tail();
            let is_same = fstat(&self.file).is_ok_and(|stat| state(&stat, self.state.coding) == self.state);
            self.tail = Some(tail.filter(|_| is_same).unwrap_or_default());
        }
    }

    /// The bytes that the file ends with in the state that the head has named.
    fn read_tail(&self) -> Option<Vec<u8>> {
        let len = self.state.size.min(TAIL);
        let mut tail = Vec::new();
        read_whole(&self.file, &mut tail, (self.state.size - len, len)).then_some(tail)
    }
}

impl Connection {
    /// Sends a part of a file, at most `batch` bytes of it, and moves `offset` and `left` on.
    pub(super) fn send_part_of_file(
        &mut self,
        file: BorrowedFd<'_>,
        (offset, left): (&mut u64, &mut u64),
        batch: &mut u64,
        ctx: &mut ThreadCtx,
    ) -> SentPart {
        if ctx.sigpipe.is_none() {
            // For the next calls too, each of which would have its own otherwise.
            ctx.sigpipe = self.link.stream.without_sigpipe();
        }
        while *left > 0 {
            if *batch == 0 {
                return SentPart::Spent;
            }
            match self.link.stream.send_file(file, *offset, (*left).min(*batch)) {
                Ok(0) => return SentPart::Short,
                Ok(sent) => {
                    *offset += sent;
                    *left -= sent;
                    *batch -= sent;
                    self.timer.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return SentPart::Full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_gone(&error) => return SentPart::Gone,
                Err(error) => return SentPart::Broken(error),
            }
        }
        SentPart::Done
    }

    /// Sends more of a static file.
    #[inline(never)]
    pub(super) fn go_on_with_file(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let Phase::File(mut body) = std::mem::replace(&mut self.phase, Phase::Head) else {
            unreachable!("called in the file phase only");
        };
        let flow = self.send_file_body(&mut body, ctx);
        if flow.is_err() {
            if matches!(flow, Err(Next::Wait | Next::Yield)) {
                body.keep_tail();
            }
            self.phase = Phase::File(body);
            return flow;
        }
        self.record_file(&body, body.len, ctx);
        self.after_answer(if body.framing.persistent() { Fate::Keep } else { Fate::Close }, ctx);
        Ok(())
    }

    fn send_file_body(&mut self, body: &mut FileBody, ctx: &mut ThreadCtx) -> Flow {
        if body.is_late && !body.is_unchanged() {
            return self.cut_file_body(body, "has changed while it was sent", ctx);
        }
        body.is_late = true;
        // The time of the iteration may be that of other connections' work.
        ctx.clock.tick();
        let (mut size, mut since) = (ctx.file_pace.call(), ctx.clock.ns());
        let (mut batch, mut turn) = (size, TURN - size);
        loop {
            if body.piece == 0 {
                ctx.out.extend_from_slice(std::mem::take(&mut body.after));
                if body.rest == 0 {
                    if !std::mem::replace(&mut body.is_ended, true) {
                        // It is as long as was said.
                        let _ = body.framing.end(&mut ctx.out);
                    }
                    return self.flush(ctx);
                }
                let Piece { take, after, .. } = body.framing.around(&mut ctx.out, body.rest);
                (body.piece, body.after) = (take, after);
                body.rest -= take;
            }
            if body.piece > JOINED_MAX {
                self.flush(ctx)?;
            } else {
                self.flush_before_file(ctx)?;
            }
            let part = self.send_part_of_file(body.file.as_fd(), (&mut body.offset, &mut body.piece), &mut batch, ctx);
            if matches!(part, SentPart::Done) && body.rest > 0 {
                continue;
            }
            ctx.clock.tick();
            let is_quick = ctx.file_pace.note(size - batch, ctx.clock.ns() - since);
            match part {
                SentPart::Done => {}
                SentPart::Spent if turn == 0 || !is_quick => return Err(Next::Yield),
                SentPart::Spent => (size, batch, turn, since) = (turn, turn, 0, ctx.clock.ns()),
                SentPart::Full => return Err(Next::Wait),
                SentPart::Gone => return Err(Next::Close(CloseReason::ClientGone)),
                SentPart::Short => return self.cut_file_body(body, "is shorter than it was", ctx),
                SentPart::Broken(error) => return self.cut_file_body(body, &format!("cannot be read: {error}"), ctx),
            }
        }
    }

    /// Sends what is rendered, to leave with the bytes of the file that follow at once.
    fn flush_before_file(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if ctx.out.is_empty() {
            return Ok(());
        }
        let result = deliver_by(&self.link.disk, &mut self.output, &mut ctx.out, |bytes| send_last(&self.link.stream, bytes));
        self.after_send(result, ctx)
    }

    /// The client must not take what it has for the whole.
    fn cut_file_body(&self, body: &FileBody, what: &str, ctx: &ThreadCtx) -> Flow {
        let line = body.view().line().escape_ascii();
        ctx.log.warning(format_args!("the file that answers {line} {what}; the answer is cut"));
        Err(Next::Close(CloseReason::Cut))
    }

    /// Writes the log line of an answer with a static file, of whose body so many bytes were sent.
    fn record_file(&self, body: &FileBody, sent: u64, ctx: &mut ThreadCtx) {
        let head = (!body.bytes.is_empty()).then(|| body.view());
        let sent = SentFile { status: body.framing.status, sent, began: body.began };
        ctx.record_file(&self.link.peer, head, &body.response_head, sent);
    }

    /// Writes the log line of an answer that ends before its end.
    pub(super) fn forget_file(&self, body: &FileBody, ctx: &mut ThreadCtx) {
        self.record_file(body, body.len - body.rest - body.piece, ctx);
    }
}

/// Whether a send failed because the client is gone.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::TimedOut
    )
}
