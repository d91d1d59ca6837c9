//! Who has sent a request, and its name: what is found out about it between its head and its body.
//!
//! Texts are appended to a copy of the head's bytes, so that they go wherever the request goes. What was found out about an
//! earlier request is forgotten first: heads are used again.

use std::io::Write;
use std::net::IpAddr;

use crate::config::{ProxyHeader, Settings, Trusted};
use crate::http::forwarded::{self, Family, Told};
use crate::http::head::{Findings, Head, HeadView, NamedClient, Scheme, Span};
use crate::http::request_id::{self, RequestIds};
use crate::sys::random;

use super::app::Peer;
use super::job::{Job, QueuedRequest};
use super::kept::reserve;
use super::trust;

/// What is found out about requests, by one thread.
pub struct Registrar {
    /// Which fields are believed.
    family: Option<Family>,
    /// Whether those that are not believed are taken away.
    clears: bool,
    trusted: Trusted,
    /// The names of requests that have none.
    ids: Option<RequestIds>,
    /// The texts of a request, before they are appended.
    texts: Vec<u8>,
}

/// The fields of this list.
fn family(headers: &[ProxyHeader]) -> Option<Family> {
    let has = |header| headers.contains(&header);
    match headers.first()? {
        ProxyHeader::Forwarded => Some(Family::Standard),
        ProxyHeader::XRealIp | ProxyHeader::XScheme => {
            Some(Family::XReal { address: has(ProxyHeader::XRealIp), scheme: has(ProxyHeader::XScheme) })
        }
        ProxyHeader::XForwardedFor
        | ProxyHeader::XForwardedProto
        | ProxyHeader::XForwardedHost
        | ProxyHeader::XForwardedPort
        | ProxyHeader::XForwardedPrefix => Some(Family::XForwarded {
            address: has(ProxyHeader::XForwardedFor),
            scheme: has(ProxyHeader::XForwardedProto),
            host: has(ProxyHeader::XForwardedHost),
            port: has(ProxyHeader::XForwardedPort),
            prefix: has(ProxyHeader::XForwardedPrefix),
        }),
    }
}

impl Registrar {
    /// For a thread of a server with these settings; `None`: they ask for nothing of this.
    pub fn of(settings: &Settings) -> Option<Box<Self>> {
        let family = family(&settings.trusted_proxy_headers);
        if family.is_none() && !settings.clear_untrusted_proxy_headers && !settings.request_id {
            return None;
        }
        Some(Box::new(Self {
            family,
            clears: settings.clear_untrusted_proxy_headers,
            trusted: settings.forwarded_allow_ips.clone(),
            ids: settings.request_id.then(|| RequestIds::new(random::seed())),
            texts: Vec::new(),
        }))
    }

    /// A name for a request whose head cannot be read; `None`: requests get none.
    pub fn name(&mut self) -> Option<[u8; request_id::LEN]> {
        self.ids.as_mut().map(RequestIds::make)
    }

    /// Whether requests get names.
    pub fn names(&self) -> bool {
        self.ids.is_some()
    }

    /// Finds out about the request in the job, whose head is complete, and is in `input` or its own. `false`: there is no memory for
    /// the texts.
    #[must_use]
    pub fn assign(&mut self, job: &mut Job, input: &[u8], peer: &Peer) -> bool {
        self.texts.clear();
        job.head.assigned = Findings::default();
        let is_from_gateway = job.head.is_from_gateway();
        let view = job.view(input);
        // A front server and a proxy of connections pass on the fields of the client that they name. So the fields are those of a
        // proxy only if it is one that they name.
        let is_sender_trusted = match (view.client(), &peer.proxy) {
            (Some(client), _) => self.trusts(client),
            (None, Some(_)) => peer.trusted && self.trusts(peer.addr.as_bytes()),
            (None, None) => peer.trusted,
        };
        // Without a family the scheme alone is asked of who connects, as gunicorn does, who may write fields too.
        let names_client = is_from_gateway || (peer.proxy.is_some() && self.family.is_some());
        let believes = if names_client { is_sender_trusted } else { peer.trusted };
        let mut assigned = Findings::default();
        let mut client = None;
        if let Some(family) = self.family.filter(|_| believes) {
            let is_trusted = |addr: IpAddr| trust::is_trusted_hop(&self.trusted, addr);
            let told = forwarded::read(family, view.head.iter(view.bytes), &is_trusted);
            (client, assigned) = note(&told, &mut self.texts);
        }
        if let Some(ids) = &mut self.ids {
            let start = self.texts.len();
            match given_id(view).filter(|_| peer.trusted || is_from_gateway) {
                Some(id) => self.texts.extend_from_slice(id),
                None => self.texts.extend_from_slice(&ids.make()),
            }
            assigned.id = Span::new(start, self.texts.len());
        }
        if self.clears {
            self.clear(job, input, believes);
        }
        if self.texts.is_empty() {
            job.head.assigned = assigned;
            return true;
        }
        if !job.detach(input) || !reserve(&mut job.own, self.texts.len()) {
            return false;
        }
        let by = job.own.len() as u32;
        job.own.extend_from_slice(&self.texts);
        let Findings { is_told, scheme, host, name, port, prefix, id } = assigned;
        let [host, name, port, prefix, id] = [host, name, port, prefix, id].map(|span| span.moved(by));
        job.head.assigned = Findings { is_told, scheme, host, name, port, prefix, id };
        if let Some(NamedClient { addr, port }) = client {
            job.head.client = Some(NamedClient { addr: addr.moved(by), port: port.moved(by) });
        }
        true
    }

    /// Whether this is the address of a trusted proxy.
    fn trusts(&self, addr: &[u8]) -> bool {
        let addr = std::str::from_utf8(addr).ok().and_then(|text| text.parse::<IpAddr>().ok());
        addr.is_some_and(|addr| trust::is_trusted_hop(&self.trusted, addr.to_canonical()))
    }

    /// Takes away the fields that are not believed: of a sender that is not trusted, all that proxies write; else those that were not
    /// asked for.
    fn clear(&self, job: &mut Job, input: &[u8], believes: bool) {
        let at = job.at.clone();
        let QueuedRequest { head, own, block, .. } = &mut **job;
        let bytes = if own.is_empty() { &input[at] } else { own.as_slice() };
        let goes = |name: &[u8]| match (believes, self.family) {
            (false, _) => is_of_proxies(name),
            (true, Some(family)) => is_of_proxies(name) && !is_kept(family, name),
            (true, None) => false,
        };
        let before = head.fields.len();
        let Head { fields, request_id, .. } = head;
        fields.retain(|field| !goes(field.name.of(bytes)));
        if fields.len() < before {
            // The name of the block stands for all its fields, and places have changed.
            *block = None;
            *request_id = fields.iter().position(|field| field.name.of(bytes).eq_ignore_ascii_case(request_id::FIELD));
        }
    }
}

/// Whether proxies write a field of this name.
fn is_of_proxies(name: &[u8]) -> bool {
    let begins = |prefix: &[u8]| name.len() > prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix);
    match name.first() {
        Some(b'f' | b'F') => name.eq_ignore_ascii_case(b"forwarded"),
        Some(b'x' | b'X') => {
            begins(b"x-forwarded-") || name.eq_ignore_ascii_case(b"x-real-ip") || name.eq_ignore_ascii_case(b"x-scheme")
        }
        _ => false,
    }
}

/// Whether a trusted proxy's field of this name, which proxies write, stays: it was asked for, or it says nothing of what the
/// families say.
fn is_kept(believed: Family, name: &[u8]) -> bool {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let (x_forwarded, standard, x_real) = match believed {
        Family::XForwarded { address, scheme, host, port, prefix } => ([address, scheme, host, port, prefix], false, [false; 2]),
        Family::Standard => ([false; 5], true, [false; 2]),
        Family::XReal { address, scheme } => ([false; 5], false, [address, scheme]),
    };
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix"];
    let all = names
        .into_iter()
        .zip(x_forwarded)
        .chain([("forwarded", standard)])
        .chain(["x-real-ip", "x-scheme"].into_iter().zip(x_real));
    all.into_iter().find(|(known, _)| is(known)).is_none_or(|(_, asked)| asked)
}

/// The one X-Request-ID of a request, if it is one for logs.
fn given_id(view: HeadView<'_>) -> Option<&[u8]> {
    let place = view.head.request_id?;
    let is_id = |name: &[u8]| name.eq_ignore_ascii_case(request_id::FIELD);
    let value = view.head.fields[place].value.of(view.bytes);
    let comes_once = !view.head.fields[place + 1..].iter().any(|field| is_id(field.name.of(view.bytes)));
    (comes_once && request_id::is_sound(value)).then_some(value)
}

/// Writes what was told to `texts`; the spans count from there.
fn note(told: &Told<'_>, texts: &mut Vec<u8>) -> (Option<NamedClient>, Findings) {
    let mut put = |write: &mut dyn FnMut(&mut Vec<u8>)| {
        let start = texts.len();
        write(texts);
        Span::new(start, texts.len())
    };
    // Writing to memory cannot fail.
    let mut number = |port: u16| put(&mut |texts| drop(write!(texts, "{port}")));
    let client_port = told.client.and_then(|client| client.port).map_or(Span::default(), &mut number);
    let host = told.host.as_deref();
    let default = told.scheme.map(|scheme| match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    });
    let port = host.and_then(forwarded::port_of).or(told.port).or(default.filter(|_| host.is_some()));
    let server_port = port.map_or(Span::default(), &mut number);
    let client = told
        .client
        .map(|client| NamedClient { addr: put(&mut |texts| drop(write!(texts, "{}", client.addr))), port: client_port });
    let mut assigned = Findings { scheme: told.scheme, port: server_port, ..Findings::default() };
    if let Some(host) = host {
        let name = forwarded::host_of(host);
        let extra = told.port.filter(|port| name.len() == host.len() && Some(*port) != Some(default.unwrap_or(80)));
        assigned.host = put(&mut |texts| {
            texts.extend_from_slice(host);
            if let Some(port) = extra {
                drop(write!(texts, ":{port}"));
            }
        });
        let start = assigned.host.start as usize;
        assigned.name = Span::new(start, start + name.len());
    }
    if let Some(prefix) = &told.prefix {
        assigned.prefix = put(&mut |texts| texts.extend_from_slice(prefix));
    }
    let has_text = [assigned.host, assigned.port, assigned.prefix].iter().any(|span| !span.is_empty());
    assigned.is_told = has_text || assigned.scheme.is_some();
    (client, assigned)
}
