//! `--warmup`: a worker asks its own application before it reports that it is ready. No socket is involved, so no other process
//! can answer in its place.

use std::sync::Arc;

use crate::channel::BootError;
use crate::config::{Settings, Warmup};
use crate::http::head::{Head, HeadView, Parsed};
use crate::http::terms::Terms;
use crate::http::{date, framing};
use crate::sys::time;

use super::app::{App, Client, Gone, Outlet, Peer, Produced, Reply, Request, RequestBody, Summary};
use crate::worker::rules::Rules;

/// First status that is a failure (RFC 9110 section 15.5).
const FAILURE: u16 = 400;

/// Discards the output of the application.
struct Nowhere;

impl Outlet for Nowhere {
    fn push(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        out.clear();
        Ok(())
    }
}

impl Client for Nowhere {
    fn has_left(&self) -> bool {
        false
    }
}

/// Asks the application as often as the settings say; an error describes its answer.
pub fn run_all(settings: &Settings, app: &mut dyn App) -> Result<(), BootError> {
    let Some(warmup) = &settings.warmup else { return Ok(()) };
    (0..settings.warmup_requests).try_for_each(|_| run(warmup, app, settings))
}

fn run(warmup: &Warmup, app: &mut dyn App, settings: &Settings) -> Result<(), BootError> {
    let failed = |why: String| BootError { app: false, text: format!("--warmup {warmup}: {why}") };
    let bytes = format!("{warmup} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tapster-warmup\r\nConnection: close\r\n\r\n");
    let bytes = bytes.as_bytes();
    let mut head = Head::default();
    let parsed = head.parse(bytes, &Rules::of(settings).head);
    let framing = match parsed.and_then(|parsed| Ok((parsed, framing::of(&head, bytes)?))) {
        Ok((Parsed::Complete, framing)) => framing,
        Ok((Parsed::Partial, _)) => return Err(failed("is not a whole request".into())),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut dates = date::Cache::new();
    let peer = Peer { addr: "127.0.0.1".into(), port: "0".into(), trusted: false, proxy: None };
    let request = Request {
        block: None,
        bytes,
        head: &head,
        framing,
        peer: &peer,
        tls: None,
        client: Arc::new(Nowhere),
        listener: 0,
        terms: Terms::of(HeadView { head: &head, bytes }, false),
        date: dates.at(time::wall().seconds),
        body: RequestBody::Empty,
        upgrade: None,
    };
    let mut out = Vec::new();
    let status = match app.call(request, &mut out, &mut Nowhere) {
        Reply::Complete(summary) => summary.status,
        Reply::Blocks(mut stream) => loop {
            out.clear();
            if let Produced::End(Summary { status, .. }) = stream.advance(&mut out, &mut Nowhere) {
                break status;
            }
        },
    };
    if status < FAILURE {
        Ok(())
    } else {
        Err(failed(format!("the application answered {status}; an answer below {FAILURE} is needed")))
    }
}
