//! A request for a static file: answered by the loop itself, between head and body, without a permit.
//!
//! A small answer is rendered whole and goes the way of all whole answers. Of a larger one the head is rendered here, and the file
//! follows in the phase [`Phase::File`].

use crate::files::coding::AcceptedCodings;
use crate::files::conditions::{Selection, Wishes};
use crate::files::head::{self, ALLOWED, FileFacts, ReplyContext, address_of_directory};
use crate::files::media::MediaType;
use crate::files::paths::MappedName;
use crate::http::framing::Length;
use crate::http::head::{HeadView, Span};
use crate::http::response::BodyFraming;
use crate::http::target::Target;
use crate::worker::app::Fate;
use crate::worker::ctx::ThreadCtx;
use crate::worker::ctx::files::SentFile;
use crate::worker::files::{FileServer, FoundFile, OpenedFile, read_whole};
use crate::worker::overload::RETRY_AFTER;

use super::file_body::FileBody;
use super::{Connection, Flow, Phase};

/// Bytes of a file that are copied behind the head, so that both leave in one send: beyond them sendfile(2) costs less.
const COPIED_MAX: u64 = 16 * 1024;

/// How often a file that has shrunk between two system calls is looked for anew.
const ATTEMPTS: usize = 4;

/// What became of a request.
enum FileStep {
    /// The whole answer is rendered; whether the connection stays open.
    Whole(bool),
    /// The head is rendered, and this follows.
    Begun(Box<FileBody>),
}

/// What a request asks of a file (RFC 9110 section 9.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Get,
    Head,
    Options,
    Other,
}

impl Asked {
    fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

impl Connection {
    /// Answers the request in hand if it is for a file; `None`: the application has it.
    #[inline(never)]
    pub(super) fn offer_to_files(&mut self, ctx: &mut ThreadCtx) -> Option<Flow> {
        let mut files = ctx.files.take()?;
        let step = ctx.with_head(|ctx, head| self.answer_by_file(&mut files, head, ctx));
        ctx.files = Some(files);
        let step = step?;
        ctx.job.is_fresh = true;
        self.io.is_last = !ctx.job.framing.persistent;
        self.arrival = Default::default();
        self.timer.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
        if has_body(ctx) {
            // The connection closes after the answer, and the body is thrown away.
            self.io.unread = true;
        }
        match step {
            FileStep::Whole(persistent) => {
                let fate = if persistent { Fate::Keep } else { ctx.last_fate(Fate::Close) };
                self.after_answer(fate, ctx);
            }
            FileStep::Begun(mut body) => {
                // Only logs need it: without memory for it the answer continues.
                if ctx.job.detach(ctx.input.bytes()) {
                    (body.head, body.bytes) = ctx.job.take_head();
                }
                self.phase = Phase::File(body);
            }
        }
        Some(Ok(()))
    }

    fn answer_by_file(&mut self, files: &mut FileServer, head: HeadView<'_>, ctx: &mut ThreadCtx) -> Option<FileStep> {
        let place = files.locate(head)?;
        let asked = Asked::of(head.method());
        if place.falls_through && !matches!(asked, Asked::Get | Asked::Head) {
            return None;
        }
        ctx.job.began = ctx.clock.ns();
        let persistent = ctx.job.framing.persistent && ctx.keeps_alive(&self.link) && !has_body(ctx);
        let terms = self.wire.terms(Some(head), persistent);
        let date = *ctx.date.at(ctx.clock.wall());
        let reply = ReplyContext { terms, date: &date, id: head.assigned_id(), now: ctx.clock.wall() };
        let out = &mut ctx.out;
        let start = out.len();
        let framing = match asked {
            Asked::Options => head::options(out, &reply),
            Asked::Other => head::page(out, 405, "a file can be read only", &[("Allow", ALLOWED)], &reply),
            Asked::Get | Asked::Head => return self.answer_with_file(files, &place, (head, asked), &reply, ctx),
        };
        Some(self.end_page(framing, start, head, ctx))
    }

    /// Answers GET and HEAD.
    fn answer_with_file(
        &mut self,
        files: &mut FileServer,
        place: &MappedName,
        (head, asked): (HeadView<'_>, Asked),
        reply: &ReplyContext<'_>,
        ctx: &mut ThreadCtx,
    ) -> Option<FileStep> {
        let wishes = Wishes::of(head);
        let wanted = || match wishes.has_accept_encoding {
            true => AcceptedCodings::of(wishes.lines("accept-encoding")),
            false => AcceptedCodings::default(),
        };
        let (start, path) = (ctx.out.len(), files.path().len());
        for _ in 0..ATTEMPTS {
            files.rewind(path);
            let found = files.find(place, wanted, ctx.clock.ms(), &ctx.log);
            let framing = match found {
                FoundFile::File(opened) => {
                    let marks = files.marks(place, query(head));
                    let Some(step) = self.begin_file(opened, marks, (&wishes, asked, head), reply, ctx) else {
                        // It has shrunk since it was opened: its state is another one now.
                        ctx.out.truncate(start);
                        continue;
                    };
                    return Some(step);
                }
                FoundFile::Nothing if place.falls_through => return None,
                FoundFile::Nothing => head::page(&mut ctx.out, 404, "there is no such file", &[], reply),
                FoundFile::Directory => {
                    // The client has asked for what a trusted proxy has cut off too.
                    let cut_off = head.head.assigned.prefix.of_any(head.bytes);
                    let address = address_of_directory(&[cut_off, files.path()].concat(), query(head));
                    let fields = [("Location", address.as_slice())];
                    head::page(&mut ctx.out, 301, "this is a directory", &fields, reply)
                }
                FoundFile::Unreadable => head::page(&mut ctx.out, 500, "the file cannot be read", &[], reply),
                FoundFile::Busy => break,
            };
            return Some(self.end_page(framing, start, head, ctx));
        }
        let fields = [("Retry-After", RETRY_AFTER)];
        let framing = head::page(&mut ctx.out, 503, "the file cannot be opened at present", &fields, reply);
        Some(self.end_page(framing, start, head, ctx))
    }

    /// Renders the head, and a small file whole. `None`: the file is shorter than its state says.
    fn begin_file(
        &mut self,
        OpenedFile { file, state, varies }: OpenedFile,
        (media, cache): (MediaType<'_>, &[u8]),
        (wishes, asked, head): (&Wishes<'_>, Asked, HeadView<'_>),
        reply: &ReplyContext<'_>,
        ctx: &mut ThreadCtx,
    ) -> Option<FileStep> {
        let start = ctx.out.len();
        let tag = state.tag();
        let selection = wishes.judge(&state, &tag, asked == Asked::Get, reply.now);
        let facts = FileFacts { state: &state, tag: &tag, media, cache, varies };
        let mut framing = head::render(&mut ctx.out, selection, &facts, reply);
        let (offset, len) = match selection {
            Selection::Whole => (0, state.size),
            Selection::Part { first, len } => (first, len),
            Selection::NotModified | Selection::Failed | Selection::NoSuchRange => {
                return Some(self.end_page(framing, start, head, ctx));
            }
        };
        if !framing.is_sent() || len == 0 {
            return Some(self.end_page(framing, start, head, ctx));
        }
        let span = Span::new(start, ctx.out.len());
        if len > COPIED_MAX {
            let response_head = ctx.copy_rendered_head(span);
            let body = FileBody::new((file, state), framing, (offset, len), response_head, (reply.terms, ctx.job.began));
            return Some(FileStep::Begun(Box::new(body)));
        }
        let mut done = 0;
        while done < len {
            // Some dialects have several pieces.
            let piece = framing.around(&mut ctx.out, len - done);
            if !read_whole(&file, &mut ctx.out, (offset + done, piece.take)) {
                return None;
            }
            ctx.out.extend_from_slice(piece.after);
            done += piece.take;
        }
        drop(file);
        Some(self.end_whole(framing, span, head, ctx))
    }

    /// Ends an answer whose whole body is rendered by what has rendered its head.
    fn end_page(&mut self, framing: BodyFraming, start: usize, head: HeadView<'_>, ctx: &mut ThreadCtx) -> FileStep {
        let end = ctx.out.len() - usize::try_from(framing.sent()).unwrap_or(0);
        self.end_whole(framing, Span::new(start, end), head, ctx)
    }

    fn end_whole(&mut self, mut framing: BodyFraming, span: Span, head: HeadView<'_>, ctx: &mut ThreadCtx) -> FileStep {
        // It is as long as was said.
        let _ = framing.end(&mut ctx.out);
        ctx.clock.tick();
        let sent = SentFile { status: framing.status, sent: framing.sent(), began: ctx.job.began };
        ctx.record_rendered_file(&self.link.peer, head, span, sent);
        FileStep::Whole(framing.persistent())
    }
}

/// Whether the request in hand has a body, which no file needs.
fn has_body(ctx: &ThreadCtx) -> bool {
    !matches!(ctx.job.framing.length, Length::None | Length::Known(0))
}

/// The query of a request, as it was sent.
fn query(head: HeadView<'_>) -> &[u8] {
    if head.head.is_from_gateway() {
        return head.head.gateway.query.of(head.bytes);
    }
    Target::of(head.head, head.bytes).map_or(&[], |target| target.query.of(head.bytes))
}
