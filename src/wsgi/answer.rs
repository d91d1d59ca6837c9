//! An answer that takes more than one step: the application's iterable, advanced one block at a time.
//!
//! ```text
//! Blocks --block--> Blocks    Blocks --StopIteration, failure--> Done
//! Whole file (one Produced::File) --> Tail --> Done
//! ```
//! `close()` of the iterable is called once: on the way to Done, before the end is rendered, since it may call `write()`; or when
//! the answer is dropped before that.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyConnectionResetError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyIterator, PyList, PyMemoryView, PyTuple};

use super::failure::{self, Failure};
use super::file_wrapper::{Extent, FileWrapper};
use super::forks;
use super::start_response::StartResponse;
use crate::http::page;
use crate::http::response::{Context, End, Fit, Piece};
use crate::http::terms::Dialect;
use crate::log::error::Log;
use crate::worker::app::{Blocks, Fate, Outlet, Produced, Summary};

/// Blocks up to this size, in bytes, are copied after the head, so that both leave in one send. Copying more costs more than a
/// second buffer in the send.
pub const COPY_MAX: usize = 16 * 1024;

/// The source of blocks.
enum BlockSource {
    /// An iterator of the application's iterable.
    Blocks(Py<PyIterator>),
    /// The rest of the held block, from this byte, before more of them.
    Rest(Py<PyIterator>, Py<PyBytes>, usize),
    /// A file that the kernel sends.
    File(Extent),
    /// The rest of the file that is announced: its first byte and its length; framing precedes it.
    FileRest(u64, u64, &'static [u8]),
    /// The file was announced; only framing follows it.
    Tail(&'static [u8]),
    /// Nothing is left.
    Done,
}

/// A block that is sent without being copied.
struct LargeBlock {
    block: Py<PyBytes>,
    start: usize,
    len: usize,
    suffix: &'static [u8],
}

/// The answer. Python objects in it are touched only while the thread is attached, also by `drop`.
pub struct Answer {
    start_response: Option<StartResponse>,
    iterable: Option<Py<PyAny>>,
    source: BlockSource,
    held: Option<LargeBlock>,
    file: Option<File>,
    /// Length of the whole body, when the kind of the iterable shows it.
    known: Option<u64>,
    summary: Summary,
    line: String,
    log: Log,
}

impl Answer {
    /// An answer without a body.
    pub fn none(start_response: StartResponse, line: String, log: Log) -> Self {
        Self {
            start_response: Some(start_response),
            iterable: None,
            source: BlockSource::Done,
            held: None,
            file: None,
            known: None,
            summary: Summary::default(),
            line,
            log,
        }
    }

    /// Takes the application's result as the body. The result is closed also when this fails.
    pub fn prepare(
        &mut self,
        py: Python<'_>,
        result: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Failure> {
        self.iterable = Some(result.clone().unbind());
        if let Some(misuse) = failure::of_result(result) {
            return Err(Failure::Misuse(misuse));
        }
        if let Ok(wrapper) = result.cast_exact::<FileWrapper>()
            && let Some(extent) = wrapper.get().extent(py)
        {
            self.source = BlockSource::File(extent);
            return Ok(());
        }
        self.known = known_length(result);
        let start_response = self.start_response.as_ref().ok_or_else(failure::no_start_response)?;
        let iterator = start_response.lend(py, out, outlet, || result.try_iter()).map_err(|error| {
            if result.hasattr("__iter__").unwrap_or(true) {
                Failure::Raised(error)
            } else {
                Failure::Misuse(format!("the application returned {}, which is not an iterable of bytes", failure::kind(result)))
            }
        })?;
        self.source = BlockSource::Blocks(iterator.unbind());
        Ok(())
    }

    /// Advances by one block.
    fn step(&mut self, py: Python<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Produced {
        self.held = None;
        let file = self.file.take();
        let mark = out.len();
        let step = match std::mem::replace(&mut self.source, BlockSource::Done) {
            BlockSource::Blocks(iterator) => self.block(py, iterator, out, outlet),
            BlockSource::Rest(iterator, block, at) => self.large_piece(py, iterator, block, at, out, outlet),
            BlockSource::FileRest(offset, len, suffix) => match file {
                Some(file) => {
                    out.extend_from_slice(suffix);
                    self.file_piece(py, Extent { file, offset, len }, out, outlet)
                }
                None => Ok(Produced::End(self.summary)),
            },
            BlockSource::File(extent) => self.whole_file(py, extent, out, outlet),
            BlockSource::Tail(suffix) => {
                out.extend_from_slice(suffix);
                self.end(py, out, outlet)
            }
            BlockSource::Done => Ok(Produced::End(self.summary)),
        };
        step.unwrap_or_else(|failure| Produced::End(self.fail(py, &failure, out, mark)))
    }

    fn block(
        &mut self,
        py: Python<'_>,
        iterator: Py<PyIterator>,
        out: &mut Vec<u8>,
        outlet: &mut dyn Outlet,
    ) -> Result<Produced, Failure> {
        let start_response = self.start_response.as_ref().ok_or_else(failure::no_start_response)?;
        let item = start_response.lend(py, out, outlet, || iterator.bind(py).clone().next());
        self.count_written(py)?;
        let Some(item) = item else { return self.end(py, out, outlet) };
        let item = as_bytes(item?)?;
        let data = item.as_bytes();
        if data.is_empty() {
            self.source = BlockSource::Blocks(iterator);
            return Ok(Produced::Rendered);
        }
        let known = self.known;
        let exchange = self.start_response.as_ref().ok_or_else(failure::no_start_response)?.exchange(py);
        let mut exchange = exchange.borrow_mut();
        let body = exchange.head(known, out).ok_or_else(failure::no_start_response)?;
        self.summary.status = body.status;
        if !body.is_sent() {
            drop(exchange);
            return self.end(py, out, outlet);
        }
        if data.len() <= COPY_MAX {
            let fit = body.block(out, data);
            self.summary.sent = body.sent();
            return match fit {
                Fit::All => {
                    self.source = BlockSource::Blocks(iterator);
                    Ok(Produced::Rendered)
                }
                Fit::Cut(excess) => {
                    exchange.exceed(excess);
                    drop(exchange);
                    self.end(py, out, outlet)
                }
            };
        }
        drop(exchange);
        self.large_piece(py, iterator, item.unbind(), 0, out, outlet)
    }

    /// A piece of a large block, from its byte `start` on; the head is sent.
    fn large_piece(
        &mut self,
        py: Python<'_>,
        iterator: Py<PyIterator>,
        block: Py<PyBytes>,
        start: usize,
        out: &mut Vec<u8>,
        outlet: &mut dyn Outlet,
    ) -> Result<Produced, Failure> {
        let exchange = self.start_response.as_ref().ok_or_else(failure::no_start_response)?.exchange(py);
        let mut exchange = exchange.borrow_mut();
        let body = exchange.body().ok_or_else(failure::no_start_response)?;
        let left = block.bind(py).as_bytes().len() - start;
        let Piece { take, after: suffix, cut, rest } = body.around(out, left as u64);
        self.summary.sent = body.sent();
        // `around` grants at most what it was asked for, which is the length of a slice.
        let len = take as usize;
        if cut > 0 {
            exchange.exceed(cut);
            drop(exchange);
            self.source = BlockSource::Tail(b"");
            if len == 0 {
                return self.end(py, out, outlet);
            }
        } else if rest > 0 {
            self.source = BlockSource::Rest(iterator, block.clone_ref(py), start + len);
        } else {
            self.source = BlockSource::Blocks(iterator);
        }
        self.held = Some(LargeBlock { block, start, len, suffix });
        Ok(Produced::LargeBlock)
    }

    /// Bytes that `write()` got meanwhile belong to the answer. An error means that some are lost, so nothing may follow.
    fn count_written(&mut self, py: Python<'_>) -> Result<(), Failure> {
        let Some(start_response) = &self.start_response else { return Ok(()) };
        let mut exchange = start_response.exchange(py).borrow_mut();
        if let Some(body) = exchange.body() {
            (self.summary.status, self.summary.sent) = (body.status, body.sent());
        }
        // The application may have caught the exception of `write()`; the client must still see the cut.
        match exchange.lost() {
            Some(why) => Err(Failure::Misuse(format!("the answer is cut: {why}"))),
            None => Ok(()),
        }
    }

    fn whole_file(
        &mut self,
        py: Python<'_>,
        extent: Extent,
        out: &mut Vec<u8>,
        outlet: &mut dyn Outlet,
    ) -> Result<Produced, Failure> {
        self.count_written(py)?;
        let exchange = self.start_response.as_ref().ok_or_else(failure::no_start_response)?.exchange(py);
        let mut exchange = exchange.borrow_mut();
        let body = exchange.head(Some(extent.len), out).ok_or_else(failure::no_start_response)?;
        self.summary.status = body.status;
        if !body.is_sent() || extent.len == 0 {
            drop(exchange);
            return self.end(py, out, outlet);
        }
        drop(exchange);
        self.file_piece(py, extent, out, outlet)
    }

    /// A piece of a file; the head is sent.
    fn file_piece(
        &mut self,
        py: Python<'_>,
        extent: Extent,
        out: &mut Vec<u8>,
        outlet: &mut dyn Outlet,
    ) -> Result<Produced, Failure> {
        let Extent { file, offset, len } = extent;
        let exchange = self.start_response.as_ref().ok_or_else(failure::no_start_response)?.exchange(py);
        let mut exchange = exchange.borrow_mut();
        let body = exchange.body().ok_or_else(failure::no_start_response)?;
        let Piece { take, after: suffix, rest, .. } = body.around(out, len);
        self.summary.sent = body.sent();
        drop(exchange);
        if take == 0 {
            return self.end(py, out, outlet);
        }
        // An excess is not reported: a Content-Length below the size is how an application answers a range request.
        self.source = if rest > 0 { BlockSource::FileRest(offset + take, rest, suffix) } else { BlockSource::Tail(suffix) };
        self.file = Some(file);
        Ok(Produced::File { offset, len: take })
    }

    /// The body is complete, but for what `close()` may write.
    fn end(&mut self, py: Python<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Result<Produced, Failure> {
        self.source = BlockSource::Done;
        if let (Some(iterable), Some(start_response)) = (self.iterable.take(), &self.start_response) {
            start_response.lend(py, out, outlet, || self.close_iterable(py, iterable));
        }
        self.count_written(py)?;
        let exchange = self.start_response.as_ref().ok_or_else(failure::no_start_response)?.exchange(py);
        let mut exchange = exchange.borrow_mut();
        let excess = exchange.excess();
        // A head that is not sent by now belongs to a body without a byte.
        let body = exchange.head(Some(0), out).ok_or_else(failure::no_start_response)?;
        let end = body.end(out);
        let (status, sent, fate) = (body.status, body.sent(), fate(end, body.until_close()));
        self.summary = Summary { status, sent, head: exchange.place(), fate, failed: false };
        drop(exchange);
        if excess > 0 {
            log_excess(&self.log, &self.line, excess);
        }
        if let End::Short(missing) = end {
            log_short(&self.log, &self.line, missing);
        }
        self.start_response = None;
        Ok(Produced::End(self.summary))
    }

    /// Ends the answer after a failure: with 500 if the head is not sent, else with a visible cut. `mark` is where this step
    /// began in `out`.
    pub fn fail(&mut self, py: Python<'_>, failure: &Failure, out: &mut Vec<u8>, mark: usize) -> Summary {
        self.source = BlockSource::Done;
        if let Failure::Raised(error) = failure {
            forks::end_child(py, error);
        }
        if let Some(start_response) = &self.start_response {
            // This comes before the exchange is borrowed: it runs code of the application (`__str__` of its exceptions).
            let text = failure.describe(py);
            let is_timeout = failure.is_timeout(py);
            let mut exchange = start_response.exchange(py).borrow_mut();
            let failed = !exchange.is_gone();
            if failed {
                self.log.error(format_args!("{}: {text}", self.line));
            } else {
                self.log.debug(format_args!("{}: the client left: {text}", self.line));
            }
            if let Some(body) = exchange.body() {
                let fate = if body.until_close() { Fate::Reset } else { Fate::Cut };
                let (status, sent) = (body.status, body.sent());
                self.summary = Summary { status, sent, head: exchange.place(), fate, failed: false };
            } else {
                out.truncate(mark);
                let context = exchange.context();
                self.summary = if is_timeout { time_out(out, &context) } else { refuse(out, &context) };
            }
            // Deadlines are counted where they are met.
            self.summary.failed = failed && !is_timeout;
        }
        self.close(py);
        self.summary
    }

    fn close_iterable(&self, py: Python<'_>, iterable: Py<PyAny>) {
        let Err(error) = close(iterable.bind(py)) else { return };
        let is_gone = |start_response: &StartResponse| start_response.exchange(py).borrow().is_gone();
        if error.is_instance_of::<PyConnectionResetError>(py) && self.start_response.as_ref().is_some_and(is_gone) {
            self.log.debug(format_args!("{}: the client left: close(): {}", self.line, failure::traceback(py, &error)));
        } else {
            log_close(py, &error, &self.line, &self.log);
        }
    }

    /// Closes the iterable and releases the request.
    fn close(&mut self, py: Python<'_>) {
        self.source = BlockSource::Done;
        if let Some(iterable) = self.iterable.take() {
            self.close_iterable(py, iterable);
        }
        self.start_response = None;
    }
}

/// Closes what the application returned for the request of this line.
pub fn close_result(iterable: &Bound<'_, PyAny>, line: &str, log: &Log) {
    if let Err(error) = close(iterable) {
        log_close(iterable.py(), &error, line, log);
    }
}

fn log_close(py: Python<'_>, error: &PyErr, line: &str, log: &Log) {
    forks::end_child(py, error);
    let failure = failure::traceback(py, error);
    log.error(format_args!("{line}: close() of the application's iterable raised an exception\n{failure}"));
}

/// Calls `close()` if there is one.
fn close(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    if iterable.is_exact_instance_of::<PyList>() || iterable.is_exact_instance_of::<PyTuple>() {
        return Ok(());
    }
    match iterable.getattr_opt("close")? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}

/// Answers 500 in the application's place.
pub fn refuse(out: &mut Vec<u8>, context: &Context<'_>) -> Summary {
    render(out, 500, "The application failed; the error log of the server says why.", context)
}

/// Answers 404 where no application has the path, and keeps the connection.
pub fn not_found(out: &mut Vec<u8>, context: &Context<'_>) -> Summary {
    let (page, end) = page::render_open(out, 404, "no application is mounted at this path", context);
    Summary { status: 404, sent: page.sent, head: page.head, fate: fate(end, false), failed: false }
}

/// Answers 504 in the application's place.
fn time_out(out: &mut Vec<u8>, context: &Context<'_>) -> Summary {
    render(out, 504, "the application did not answer in time", context)
}

fn render(out: &mut Vec<u8>, status: u16, detail: &str, context: &Context<'_>) -> Summary {
    let (page, fate) = match context.terms.dialect {
        // Whoever keeps a connection of FastCGI closes it itself (section 3.5 of its specification), and may have sent the next
        // request by now.
        Dialect::FastCgi(_) => {
            let (page, end) = page::render_open(out, status, detail, context);
            (page, fate(end, false))
        }
        Dialect::Http | Dialect::Cgi | Dialect::Uwsgi | Dialect::Ajp => (page::render(out, status, detail, context), Fate::Close),
    };
    Summary { status, sent: page.sent, head: page.head, fate, failed: false }
}

/// The connection's fate after the end of a body.
pub fn fate(end: End, until_close: bool) -> Fate {
    match end {
        End::Complete { persistent: true } => Fate::Keep,
        End::Complete { persistent: false } => Fate::Close,
        End::Short(_) if until_close => Fate::Reset,
        End::Short(_) => Fate::Cut,
    }
}

/// Logs that a body was longer than its Content-Length, by at least `excess` bytes.
pub fn log_excess(log: &Log, line: &str, excess: u64) {
    log.warning(format_args!(
        "{line}: the application sent at least {excess} bytes more than its Content-Length; they were cut off"
    ));
}

/// Logs that a body was shorter than its Content-Length, by so many bytes.
pub fn log_short(log: &Log, line: &str, missing: u64) {
    log.error(format_args!(
        "{line}: the application sent {missing} bytes less than its Content-Length; the connection is closed"
    ));
}

/// Length of the whole body of a list or tuple of bytes: nothing but the objects themselves decides it.
fn known_length(result: &Bound<'_, PyAny>) -> Option<u64> {
    let mut total = 0;
    let mut add = |item: Bound<'_, PyAny>| {
        total += item.cast_exact::<PyBytes>().ok()?.as_bytes().len() as u64;
        Some(())
    };
    if let Ok(list) = result.cast_exact::<PyList>() {
        list.iter().try_for_each(&mut add)?;
    } else if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        tuple.iter().try_for_each(&mut add)?;
    } else {
        return None;
    }
    Some(total)
}

/// A block as bytes. A bytearray or memoryview is copied, since it may change while it is sent.
fn as_bytes(item: Bound<'_, PyAny>) -> Result<Bound<'_, PyBytes>, Failure> {
    match item.cast_into::<PyBytes>() {
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            let item = error.into_inner();
            if item.is_instance_of::<PyByteArray>() || item.is_instance_of::<PyMemoryView>() {
                return Ok(item.py().get_type::<PyBytes>().call1((item,))?.cast_into::<PyBytes>().map_err(PyErr::from)?);
            }
            Err(Failure::Misuse(failure::of_item(&item)))
        }
    }
}

impl Blocks for Answer {
    fn advance(&mut self, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Produced {
        let result = catch_unwind(AssertUnwindSafe(|| Python::attach(|py| self.step(py, out, outlet))));
        result.unwrap_or_else(|_| {
            self.source = BlockSource::Done;
            self.log.critical(format_args!("{}: the server failed while it answered; the connection is closed", self.line));
            self.summary.fate = Fate::Reset;
            Produced::End(self.summary)
        })
    }

    fn large_block(&self) -> (&[u8], &'static [u8]) {
        match &self.held {
            Some(held) => (&held.bytes()[held.start..held.start + held.len], held.suffix),
            None => (b"", b""),
        }
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    fn summary(&self) -> Summary {
        let Some(start_response) = &self.start_response else { return self.summary };
        // Output of `write()` counts as well, whether a block follows or not.
        Python::attach(|py| {
            let exchange = start_response.exchange(py).borrow();
            let (status, sent) = exchange.begun();
            Summary { status, sent, head: exchange.place(), ..self.summary }
        })
    }
}

impl LargeBlock {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `block` is a live bytes object, kept by the reference in `self`; its bytes never change nor move, so that
        // reading them needs no attached thread.
        unsafe {
            let object = self.block.as_ptr();
            let data = pyo3::ffi::PyBytes_AS_STRING(object).cast::<u8>();
            std::slice::from_raw_parts(data, pyo3::ffi::Py_SIZE(object) as usize)
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Attached, so that the objects are released at once and `close()` can run.
        let closed = catch_unwind(AssertUnwindSafe(|| {
            Python::attach(|py| {
                self.held = None;
                // An answer that is dropped before its end has lost its client.
                if let Some(start_response) = &self.start_response {
                    start_response.exchange(py).borrow_mut().lose_client();
                }
                self.close(py);
            });
        }));
        if closed.is_err() {
            self.log.critical(format_args!("{}: the server failed while it closed an answer", self.line));
        }
    }
}
