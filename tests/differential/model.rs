//! What PEP 3333, RFC 9112 and README promise as the answer to a request, from the request alone.

use super::pattern::{FIELD, piece};
use super::plan::{Form, Plan, Step};

/// The answer that a request must get.
#[derive(Debug)]
pub struct Expected {
    /// Status.
    pub status: u16,
    /// Body without framing; of a cut answer, what comes before the cut. `None`: the server's own words.
    pub body: Option<Vec<u8>>,
    /// The field that makes the head large.
    pub field: Option<Vec<u8>>,
    /// How it ends.
    pub end: End,
    /// Early hints that come before it.
    pub hints: usize,
    /// How often `close()` is noted, when the request reaches the application and is answered to its end.
    pub closes: usize,
    /// Records of it in the error log.
    pub errors: usize,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Whole, and the connection stays.
    Keep,
    /// Whole, and the connection closes.
    Close,
    /// Short of what was promised; the connection closes in order.
    Cut,
    /// Cut, and only a reset can show it.
    Reset,
}

/// The answer under construction.
struct Model<'a> {
    plan: &'a Plan,
    expected: Expected,
    number: usize,
    body: Vec<u8>,
    length: Option<usize>,
    /// What `close()` writes.
    last: Option<usize>,
    close: bool,
    /// Whether the head is sent, and so cannot be taken back.
    sent: bool,
}

impl Plan {
    /// The answer that it must get from an application that takes its steps.
    pub fn expected(&self) -> Expected {
        let at = self.steps.iter().position(|step| matches!(step, Step::Return(_))).unwrap_or(self.steps.len());
        let form = match self.steps.get(at) {
            Some(Step::Return(form)) => Some(*form),
            _ => None,
        };
        let mut model = Model {
            plan: self,
            expected: Expected { status: 500, body: None, field: None, end: End::Close, hints: 0, closes: 0, errors: 0 },
            number: 0,
            body: Vec::new(),
            length: None,
            last: None,
            close: !self.keep,
            sent: false,
        };
        if model.call(&self.steps[..at]) {
            return model.fail();
        }
        let form = form.expect("a call that raises nothing returns");
        model.expected.closes = usize::from(matches!(form, Form::Generator | Form::Iterable | Form::Memory(_)));
        let written = model.sent;
        if model.blocks(&self.steps[at + 1..]) {
            return model.fail();
        }
        if let Some(size) = model.last {
            model.take(Step::CloseWrites(size));
        }
        let known = match form {
            Form::List | Form::Tuple => !written,
            Form::File(_) => !written && !model.body.is_empty(),
            Form::Generator | Form::Iterable | Form::Memory(_) => false,
        };
        let known = known || !model.sent;
        model.finish(known)
    }
}

impl Model<'_> {
    /// Whether no body goes on the wire (RFC 9110 sections 9.3.2, 15.3.5, 15.4.5).
    fn is_bodiless(&self) -> bool {
        self.plan.method == "HEAD" || matches!(self.expected.status, 204 | 304)
    }

    fn take(&mut self, step: Step) {
        let bytes = match step {
            Step::Block(size) | Step::Write(size) | Step::CloseWrites(size) => {
                self.number += 1;
                piece(self.plan.id, self.number - 1, size)
            }
            other => self.plan.bytes_of(other),
        };
        self.sent |= !bytes.is_empty();
        self.body.extend(bytes);
    }

    /// The steps of the call; true when it raises.
    fn call(&mut self, steps: &[Step]) -> bool {
        for &step in steps {
            match step {
                Step::Sleep(_) | Step::Read(_) => {}
                Step::Hint => self.expected.hints += usize::from(!self.plan.old),
                Step::Field(size) => self.expected.field = Some(piece(self.plan.id, FIELD, size)),
                Step::Length(length) => self.length = Some(length),
                Step::Close => self.close = true,
                Step::Start(status) | Step::Restart(status) => self.expected.status = status,
                Step::CloseFails => self.expected.errors += 1,
                Step::CloseWrites(size) => self.last = Some(size),
                Step::Write(_) => self.take(step),
                Step::Raise => return true,
                Step::Return(_) | Step::Block(_) | Step::Echo | Step::Sum => unreachable!("{step} is no step of the call"),
            }
        }
        false
    }

    /// The steps after the return; true when the iterable raises before it is done with.
    fn blocks(&mut self, steps: &[Step]) -> bool {
        for &step in steps {
            match step {
                Step::Raise => return true,
                Step::Sleep(_) => {}
                Step::Write(_) => self.take(step),
                Step::Block(_) | Step::Echo | Step::Sum => {
                    let before = self.body.len();
                    self.take(step);
                    // Of a body that is not sent, nothing is asked for after the first byte.
                    if self.is_bodiless() && self.body.len() > before {
                        return false;
                    }
                }
                _ => unreachable!("{step} is no block"),
            }
        }
        false
    }

    fn fail(mut self) -> Expected {
        self.expected.errors += 1;
        if !self.sent {
            self.expected.status = 500;
            self.expected.field = None;
            self.expected.end = End::Close;
            return self.expected;
        }
        let until_close = self.plan.old && self.length.is_none();
        self.expected.end = if until_close { End::Reset } else { End::Cut };
        self.expected.body = Some(self.body);
        self.expected
    }

    /// `known`: the server knows the length when it sends the head, if the application does not say it.
    fn finish(mut self, known: bool) -> Expected {
        let bodiless = self.is_bodiless();
        if bodiless {
            self.body.clear();
        }
        let until_close = self.plan.old && self.length.is_none() && !known && !bodiless;
        self.expected.end = match self.length {
            Some(length) if !bodiless && self.body.len() < length => End::Cut,
            _ if self.close || until_close => End::Close,
            _ => End::Keep,
        };
        self.expected.errors += usize::from(self.expected.end == End::Cut);
        if let Some(length) = self.length {
            self.body.truncate(length);
        }
        self.expected.body = Some(self.body);
        self.expected
    }
}
