//! Answers that the server gives itself instead of the application, behind which a connection closes; and requests that get none.

use crate::http::error::{self, Error};
use crate::http::head::Head;
use crate::worker::app::Fate;
use crate::worker::job::Parcel;
use crate::worker::overload::{RETRY_AFTER, Refusal};
use crate::worker::seat::{Entry, Seat};
use crate::worker::upload::UploadError;

use super::{CloseReason, Connection, Flow, Phase};

/// The client left before its request was complete; nginx's number for it, only ever seen in the log.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Connection {
    /// Answers a request whose body cannot be taken.
    pub(super) fn refuse_body(&mut self, error: UploadError, head: (&Head, &[u8]), seat: &mut Seat) -> Flow {
        match error {
            UploadError::Bad(error) => self.refuse(error, Some(head), seat),
            UploadError::TooLarge => self.refuse(Error::BodyTooLong(seat.rules.body_max), Some(head), seat),
            UploadError::Spool(error) => {
                let line = head.0.line.of(head.1).escape_ascii();
                seat.log.error(format_args!(
                    "cannot spool the body of {line}: {error}; check the space and the rights of the temporary directory (TMPDIR)"
                ));
                self.answer_ourselves(500, "the request body could not be stored", Some(head), seat);
            }
        }
        Ok(())
    }

    /// Answers a bad request and closes: nothing behind it can be trusted.
    pub(super) fn refuse(&mut self, error: Error, head: Option<(&Head, &[u8])>, seat: &mut Seat) {
        seat.log.debug(format_args!("refused a request of {}: {error}", self.link.peer));
        self.answer_ourselves(error.status(), &error.to_string(), head, seat);
    }

    /// The server has no time for a request: 503.
    pub(super) fn refuse_overload(&mut self, refusal: Refusal, parcel: &Parcel, seat: &mut Seat) {
        let head = Some((&parcel.head, parcel.bytes.as_slice()));
        self.render_ourselves(503, refusal.detail(), &[(b"Retry-After", RETRY_AFTER)], head, seat);
        self.record_refusal(503, head, parcel.queued, seat);
    }

    /// The client took too long: 408. The application did: 503.
    pub(super) fn time_out(&mut self, seat: &mut Seat) {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Body(upload) => self.refuse(Error::BodyTimeout, Some((&upload.head, &upload.bytes)), seat),
            Phase::Waiting(mut parcel) => {
                parcel.stop_waiting(seat.clock.ns());
                self.refuse_overload(Refusal::Waited, &parcel, seat);
            }
            Phase::Head | Phase::Serving | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => {
                self.refuse(Error::HeadTimeout, None, seat);
            }
        }
    }

    /// The client is gone; a request that it had begun is logged.
    pub(in crate::worker) fn lost(&mut self, reason: CloseReason, seat: &mut Seat) -> CloseReason {
        let phase = std::mem::replace(&mut self.phase, Phase::Head);
        let head = match &phase {
            Phase::Body(upload) => Some((&upload.head, upload.bytes.as_slice())),
            Phase::Head | Phase::Waiting(_) | Phase::Serving | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => None,
        };
        if head.is_none() && seat.rest().is_empty() {
            return reason;
        }
        self.record_refusal(CLIENT_CLOSED_REQUEST, head, 0, seat);
        CloseReason::ClientGone
    }

    /// The connection ends: a request of it that is not in the application is logged.
    pub(in crate::worker) fn forget(&mut self, seat: &mut Seat) {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Waiting(mut parcel) => {
                parcel.stop_waiting(seat.clock.ns());
                let head = Some((&parcel.head, parcel.bytes.as_slice()));
                self.record_refusal(CLIENT_CLOSED_REQUEST, head, parcel.queued, seat);
            }
            Phase::Body(upload) => {
                let head = Some((&upload.head, upload.bytes.as_slice()));
                self.record_refusal(CLIENT_CLOSED_REQUEST, head, 0, seat);
            }
            phase @ (Phase::Head | Phase::Serving | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_)) => {
                self.phase = phase
            }
        }
    }

    /// Renders an answer of our own and logs it.
    fn answer_ourselves(&mut self, status: u16, detail: &str, head: Option<(&Head, &[u8])>, seat: &mut Seat) {
        self.render_ourselves(status, detail, &[], head, seat);
        self.record_refusal(status, head, 0, seat);
    }

    /// Renders an answer of our own; the connection closes behind it.
    pub(in crate::worker) fn render_ourselves(
        &mut self,
        status: u16,
        detail: &str,
        fields: &[error::Field<'_>],
        head: Option<(&Head, &[u8])>,
        seat: &mut Seat,
    ) {
        let version = head.map_or_else(Default::default, |(head, _)| head.version);
        let head_only = head.is_some_and(|(head, bytes)| head.method.of(bytes) == b"HEAD");
        let date = *seat.date.at(seat.clock.wall());
        error::render_with(&mut seat.out, status, detail, fields, version, head_only, &date);
        self.unread = true;
        self.phase = Phase::Closing(Fate::Close);
    }

    fn record_refusal(&self, status: u16, head: Option<(&Head, &[u8])>, queued: u64, seat: &mut Seat) {
        let peer = &self.link.peer;
        seat.record(&Entry { peer, head, status, sent: 0, response_head: &[], began: None, queued, environ: &[] });
    }
}

impl Seat {
    /// The client of the request in hand is gone before its call.
    pub(in crate::worker) fn forget_job(&mut self) {
        let Some(link) = self.job.link.take() else { return };
        let bytes = self.job.bytes(&self.input).to_vec();
        let head = std::mem::take(&mut self.job.head);
        (self.job.body, self.job.lease, self.job.output) = Default::default();
        let (peer, head, queued) = (&link.peer, Some((&head, bytes.as_slice())), self.job.queued);
        let status = CLIENT_CLOSED_REQUEST;
        self.record(&Entry { peer, head, status, sent: 0, response_head: &[], began: None, queued, environ: &[] });
    }
}
