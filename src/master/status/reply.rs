//! What an operator is answered.

use serde::Serialize;

use crate::http::page::reason;
use crate::http::response::{Context, Encoder};
use crate::http::terms::Terms;
use crate::status::Document;
use crate::status::metrics::{self, MetricsFormat};
use crate::status::page;

use super::request::DoorRefusal;

/// Fields of every answer: figures are of the moment, nothing here is for other sites, and no browser guesses what it is.
const FIELDS: [(&str, &str); 3] =
    [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin")];

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorReply {
    /// Status.
    pub status: u16,
    /// Value of Content-Type.
    kind: &'static str,
    /// More fields.
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// What a command came to, as JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CommandOutcome {
    /// Whether it is done, or has begun where nobody waits for it.
    pub ok: bool,
    /// What was done; or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The generation that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

impl DoorReply {
    fn new(status: u16, kind: &'static str, body: Vec<u8>) -> Self {
        Self { status, kind, fields: Vec::new(), body }
    }

    /// A value as JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        // It fails only for maps whose keys are no strings.
        let mut body = serde_json::to_vec(value).unwrap_or_default();
        body.push(b'\n');
        Self::new(status, JSON, body)
    }

    /// A short text.
    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status, TEXT, format!("{text}\n").into())
    }

    /// Done, or begun.
    pub fn done(status: u16, message: impl Into<String>, generation: Option<u64>) -> Self {
        Self::json(status, &CommandOutcome { ok: true, message: Some(message.into()), generation, error: None })
    }

    /// Not done.
    pub fn failed(status: u16, error: impl Into<String>, generation: Option<u64>) -> Self {
        Self::json(status, &CommandOutcome { ok: false, error: Some(error.into()), generation, message: None })
    }

    /// The metrics.
    pub fn metrics(document: &Document, format: MetricsFormat) -> Self {
        Self::new(200, format.content_type(), metrics::render(document, format).into())
    }

    /// The page, with this document in it.
    pub fn page(document: &Document) -> Self {
        // It fails only for maps whose keys are no strings; the page then asks for the figures as it always does.
        let json = serde_json::to_string(document).unwrap_or_else(|_| "null".to_owned());
        let mut reply = Self::new(200, HTML, page::render(&json).into());
        reply.fields.push(("Content-Security-Policy", page::POLICY.to_owned()));
        reply.fields.push(("Referrer-Policy", "no-referrer".to_owned()));
        reply
    }

    /// The answer to a request that cannot be carried out.
    pub fn refusal(refusal: &DoorRefusal) -> Self {
        let mut reply = Self::failed(refusal.status, &*refusal.why, None);
        reply.fields.extend(refusal.allow.map(|methods| ("Allow", methods.to_owned())));
        reply
    }

    /// Writes it to `out`; returns whether the connection may stay open behind it.
    pub fn render(&self, terms: Terms, date: &[u8], out: &mut Vec<u8>) -> bool {
        let status = format!("{} {}", self.status, reason(self.status));
        let context = Context { terms, date, id: b"" };
        let from = out.len();
        let fields = FIELDS.into_iter().chain([("Content-Type", self.kind)]);
        let fields = fields.chain(self.fields.iter().map(|(name, value)| (*name, value.as_str())));
        let rendered = Encoder::begin(out, &context, status.as_bytes()).and_then(|mut encoder| {
            for (name, value) in fields {
                encoder.field(name.as_bytes(), value.as_bytes())?;
            }
            Ok(encoder.finish(Some(self.body.len() as u64)))
        });
        match rendered {
            Ok(mut body) => {
                body.block(out, &self.body);
                body.persistent()
            }
            // No text of ours has a control character in a field.
            Err(_) => {
                out.truncate(from);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Version;

    const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn rendered(reply: &DoorReply, terms: Terms) -> (String, bool) {
        let mut out = Vec::new();
        let persistent = reply.render(terms, DATE, &mut out);
        (String::from_utf8(out).unwrap(), persistent)
    }

    #[test]
    fn an_answer_is_for_nobody_else_and_not_to_be_kept() {
        let terms = Terms { version: Version::Http11, head_only: false, persistent: true, ..Terms::default() };
        let (text, persistent) = rendered(&DoorReply::failed(404, "nothing here", None), terms);
        assert_eq!(
            text,
            "HTTP/1.1 404 Not Found\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: tapster\r\n\r\n{\"ok\":false,\"error\":\"nothing here\"}\n"
        );
        assert!(persistent);
    }

    #[test]
    fn head_gets_the_head_and_a_wrong_method_the_right_ones() {
        let refusal = DoorRefusal { status: 405, why: "no".into(), allow: Some("GET, HEAD") };
        let terms = Terms { version: Version::Http10, head_only: true, persistent: false, ..Terms::default() };
        let (text, persistent) = rendered(&DoorReply::refusal(&refusal), terms);
        assert!(text.contains("\r\nAllow: GET, HEAD\r\n") && text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
        assert!(!persistent);
    }
}
