//! The environ (PEP 3333, "environ Variables"), built for speed: the constant part is a dict per listener that is copied; keys
//! are interned with known hashes; a value equal to the copied placeholder is not set again.
//!
//! A header block that was seen before yields the same keys and values, so there is a [`Template`] for each of the last ones that
//! holds them too.

use std::collections::btree_map::{BTreeMap, Entry};
use std::io::Write;
use std::sync::Arc;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::environ_cache::gateway::GatewayTemplate;
use super::environ_cache::{CachedEnviron, ClientObjects, Template};
use super::keys::{CLIENT_DISCONNECTED, EARLY_HINTS, Keys};
use super::mounts::{AppPlace, MountPoint};
use super::names::{self, Meaning};
use super::offers::Offers;
use super::target::Targets;
use super::text;
use crate::http::framing::Length;
use crate::http::head::Version;
use crate::http::header_cache::BlockId;
use crate::http::places::PLACES;
use crate::worker::app::Request;

mod certificate;
mod gateway;
mod methods;
mod remote;
pub mod told;

use certificate::LastCertificate;
use methods::Methods;
use remote::LastRemote;

/// Value of SERVER_SOFTWARE.
pub const SOFTWARE: &str = concat!("tapster/", env!("CARGO_PKG_VERSION"));

/// The values that are the same in every request of one listener.
#[derive(Clone, Debug)]
pub struct ListenerEnviron {
    /// SERVER_NAME.
    pub name: String,
    /// SERVER_PORT in decimal.
    pub port: String,
    /// Whether TLS is spoken there.
    pub is_encrypted: bool,
}

impl ListenerEnviron {
    /// The values of a unix socket, which has neither name nor port: applications build URLs from them, and leave the scheme's own
    /// port out.
    pub fn unix(is_encrypted: bool) -> Self {
        Self { name: "localhost".to_owned(), port: if is_encrypted { "443" } else { "80" }.to_owned(), is_encrypted }
    }
}

/// The objects that every environ shares.
pub struct SharedObjects<'py> {
    /// `wsgi.input` of a request without a body.
    pub empty_input: Bound<'py, PyAny>,
    /// `wsgi.errors`.
    pub errors: Bound<'py, PyAny>,
    /// `wsgi.file_wrapper`.
    pub file_wrapper: Bound<'py, PyAny>,
    /// `wsgi.multithread`.
    pub multithread: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// `wsgi.run_once`.
    pub run_once: bool,
    /// `--root-path` in the bytes of PATH_INFO; begin of SCRIPT_NAME where a gateway says no other.
    pub root_path: Vec<u8>,
    /// Whether X-Forwarded-Proto of a trusted peer sets the scheme.
    pub believes_proto: bool,
}

/// What is kept for the requests of one application, and for no other one: all that holds SCRIPT_NAME or PATH_INFO.
struct AppEnvirons {
    /// Where it is mounted.
    point: MountPoint,
    /// By listener.
    bases: Vec<Py<PyDict>>,
    /// By the block's place.
    templates: [Option<Template>; PLACES],
    /// The same for blocks of variables.
    gateway_templates: Box<[Option<GatewayTemplate>]>,
    targets: Targets,
}

/// Makes environs.
pub struct Builder {
    /// By [`AppPlace`].
    apps: Vec<AppEnvirons>,
    /// `--root-path`.
    root_path: Vec<u8>,
    /// Whether X-Forwarded-Proto of a trusted peer sets the scheme.
    believes_proto: bool,
    variables: names::NameTable,
    keys: Keys,
    methods: Methods,
    names: names::NameTable,
    remote: LastRemote,
    certificate: LastCertificate,
    /// The application whose environ was given out, and the place of the block that it belongs to; of a block
    /// of variables beyond the others.
    lent: Option<(AppPlace, usize)>,
}

impl Builder {
    /// A builder for these listeners, and for applications that are mounted there, by [`AppPlace`].
    pub fn new(
        py: Python<'_>,
        listeners: &[ListenerEnviron],
        shared: &SharedObjects<'_>,
        points: impl IntoIterator<Item = MountPoint>,
    ) -> PyResult<Self> {
        let app = |point: MountPoint| {
            let base = |listener| base(py, listener, shared, &point).map(Bound::unbind);
            Ok(AppEnvirons {
                bases: listeners.iter().map(base).collect::<PyResult<_>>()?,
                templates: [const { None }; PLACES],
                gateway_templates: (0..PLACES).map(|_| None).collect(),
                targets: Targets::new(py, &shared.root_path, &point)?,
                point,
            })
        };
        Ok(Self {
            apps: points.into_iter().map(app).collect::<PyResult<_>>()?,
            keys: Keys::new(py)?,
            methods: Methods::new(py)?,
            root_path: shared.root_path.clone(),
            believes_proto: shared.believes_proto,
            variables: names::NameTable::of_variables(py)?,
            names: names::NameTable::of_fields(py)?,
            remote: LastRemote::new(py),
            certificate: LastCertificate::default(),
            lent: None,
        })
    }

    /// The environ of a request of the application at this place; `input` is its body's stream, `None` for the shared empty one. `body_len` is the length of
    /// the decoded body. `offers` are the callables that belong to the request beyond PEP 3333.
    pub fn build<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        place: AppPlace,
        body_len: u64,
        input: Option<&Bound<'py, PyAny>>,
        offers: &Arc<Offers>,
    ) -> PyResult<Bound<'py, PyDict>> {
        if self.lent.is_some() {
            self.drop_spare();
        }
        let dict = if request.head.is_from_gateway() {
            self.of_gateway(py, request, place, offers)?
        } else if let Some(block) = &request.block
            && request.tls.is_none_or(|tls| tls.client.is_none())
        {
            self.of_known(py, request, place, block, offers)?
        } else {
            self.of_unknown(py, request, place, offers)?
        };
        if request.head.assigned.is_told && !request.head.target.of(request.bytes).starts_with(b"/") {
            self.tell_host(&dict, request)?;
        }
        // The keys that a body sets change the dict's version: it does not come back as it was given out.
        match request.framing.length {
            Length::None => {}
            // It has it already.
            Length::Known(0) if self.lent.is_some_and(|(_, block)| block >= PLACES) => {}
            Length::Known(_) | Length::Chunked => dict.set_item(&self.keys.content_length, decimal(py, body_len)?)?,
        }
        if let Some(input) = input {
            dict.set_item(&self.keys.input, input)?;
        }
        Ok(dict)
    }

    /// The environ of a request of HTTP whose block is known, with everything but the body.
    #[inline(always)] // most requests come through the one caller
    fn of_known<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        place: AppPlace,
        block: &BlockId,
        offers: &Arc<Offers>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let template = &self.apps[place.index()].templates[block.place()];
        if !template.as_ref().is_some_and(|template| template.fits(block, request)) {
            self.make_template(py, request, place, block)?;
        }
        self.lent = Some((place, block.place()));
        let AppEnvirons { templates, targets, .. } = &mut self.apps[place.index()];
        let template = templates[block.place()].as_mut().expect("it was just made");
        let remote = &self.remote.of(py, request)?;
        let cached = template.environ(py, &self.keys, request, &ClientObjects { remote, offers, tls: request.tls })?;
        cached.set_own(py, &self.keys, request, self.methods.of(py, request)?.as_ref())?;
        cached.hand_out(py, &self.keys, targets.uri(py, request.head, request.bytes)?)
    }

    /// The environ of a request of HTTP whose block is not known, or whose client has shown a certificate, with everything but the
    /// body. Nothing of it is kept.
    #[inline(never)]
    fn of_unknown<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        place: AppPlace,
        offers: &Arc<Offers>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mut cached = CachedEnviron::new(self.of_fields(py, request, place)?);
        let remote = &self.remote.of(py, request)?;
        cached.settle(py, &self.keys, &ClientObjects { remote, offers, tls: request.tls })?;
        cached.set_own(py, &self.keys, request, self.methods.of(py, request)?.as_ref())?;
        let uri = self.apps[place.index()].targets.uri(py, request.head, request.bytes)?;
        let dict = cached.hand_out(py, &self.keys, uri)?;
        if let Some(client) = request.tls.and_then(|tls| tls.client.as_ref()) {
            self.certificate.set(&dict, client)?;
        }
        Ok(dict)
    }

    /// Takes back the environ of the latest request, which is over.
    pub fn take_back(&mut self, environ: &Bound<'_, PyDict>) {
        let Some(lent) = self.lent.take() else { return };
        match self.lent_template(lent) {
            Some(template) => template.take_back(environ),
            None => self.take_back_from_gateway(lent, environ),
        }
    }

    fn lent_template(&mut self, (place, block): (AppPlace, usize)) -> Option<&mut Template> {
        self.apps[place.index()].templates.get_mut(block)?.as_mut()
    }

    /// The environ that was given out does not come back.
    #[cold]
    fn drop_spare(&mut self) {
        let Some(lent) = self.lent.take() else { return };
        match self.lent_template(lent) {
            Some(template) => template.drop_spare(),
            None => self.lent_gateway_template(lent).into_iter().for_each(GatewayTemplate::drop_spare),
        }
    }

    /// Sets the listener's part, and what follows from version and fields.
    fn of_fields<'py>(&mut self, py: Python<'py>, request: &Request<'_>, place: AppPlace) -> PyResult<Bound<'py, PyDict>> {
        let bases = &self.apps[place.index()].bases;
        let base = bases.get(request.listener).or(bases.last()).expect("a server has a listener");
        let dict = base.bind(py).copy()?;
        if request.head.version == Version::Http10 {
            dict.set_item(&self.keys.protocol, &self.keys.http10)?;
        }
        self.fields(&dict, request)?;
        if request.head.assigned.is_told && !request.head.is_from_gateway() {
            self.tell(&dict, request)?;
        }
        Ok(dict)
    }

    #[cold]
    fn make_template(&mut self, py: Python<'_>, request: &Request<'_>, place: AppPlace, block: &BlockId) -> PyResult<()> {
        let dict = self.of_fields(py, request, place)?;
        let mut loose = Vec::new();
        for place in block.loose.places() {
            let key = self.names.slot(py, request.head.fields[place].name.of(request.bytes))?.key(py);
            loose.extend(key.map(|key| (place, key)));
        }
        let template = Template::new(*block, request, loose, dict)?;
        self.apps[place.index()].templates[block.place()] = Some(template);
        Ok(())
    }

    fn fields(&mut self, dict: &Bound<'_, PyDict>, request: &Request<'_>) -> PyResult<()> {
        let py = dict.py();
        let mut expected = dict.len();
        let mut scheme = None;
        for (name, value) in request.head.iter(request.bytes) {
            let slot = self.names.slot(py, name)?;
            if slot.meaning() == Meaning::Scheme {
                scheme = Some(value);
            }
            if let Some((key, value)) = slot.pair(py, value)? {
                dict.set_item(key, value)?;
                expected += 1;
            }
        }
        if dict.len() != expected {
            self.join_repeated(dict, request)?;
        }
        if let Some(value) = scheme
            && request.peer.trusted
            && self.believes_proto
            // A gateway says by variables what it knows, and passes fields on as they came.
            && !request.head.is_from_gateway()
            && is_https(value)
        {
            dict.set_item(&self.keys.scheme, &self.keys.https)?;
        }
        Ok(())
    }

    /// Sets all fields once more, with the values of repeated ones joined. Rare, so it may be slow.
    fn join_repeated(&mut self, dict: &Bound<'_, PyDict>, request: &Request<'_>) -> PyResult<()> {
        let py = dict.py();
        let mut joined: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (name, value) in request.head.iter(request.bytes) {
            let meaning = self.names.slot(py, name)?.meaning();
            if meaning == Meaning::Dropped {
                continue;
            }
            let (all, separator) = match joined.entry(names::environ_key(name)) {
                Entry::Occupied(entry) => (entry.into_mut(), meaning.separator()),
                Entry::Vacant(entry) => (entry.insert(Vec::new()), &b""[..]),
            };
            all.try_reserve(separator.len() + value.len()).map_err(|_| PyMemoryError::new_err(()))?;
            all.extend_from_slice(separator);
            all.extend_from_slice(value);
        }
        for (key, value) in joined {
            dict.set_item(text::from_latin1(py, &key)?, text::from_latin1(py, &value)?)?;
        }
        Ok(())
    }
}

/// Whether the last element of an X-Forwarded-Proto value is `https`: it was written by the peer that is trusted.
fn is_https(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or(value);
    last.trim_ascii().eq_ignore_ascii_case(b"https")
}

fn decimal(py: Python<'_>, number: u64) -> PyResult<Bound<'_, PyString>> {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut rest = &mut digits[..];
    write!(rest, "{number}").expect("20 digits hold every u64");
    let unused = rest.len();
    text::from_latin1(py, &digits[..20 - unused])
}

/// The dict that is copied for each request: constants, and placeholders for the rest, so that setting a value replaces one and
/// the copy never grows.
fn base<'py>(
    py: Python<'py>,
    listener: &ListenerEnviron,
    shared: &SharedObjects<'py>,
    point: &MountPoint,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let set = |name: &str, value: Bound<'py, PyAny>| dict.set_item(text::key(py, name)?, value);
    let string = |value: &str| text::key(py, value).map(|value| value.into_bound(py).into_any());
    set("REQUEST_METHOD", string("GET")?)?;
    set("SCRIPT_NAME", text::from_latin1(py, &[&*shared.root_path, &point.path].concat())?.into_any())?;
    set("PATH_INFO", string("/")?)?;
    set("QUERY_STRING", string("")?)?;
    set("RAW_URI", string("/")?)?;
    set("REQUEST_URI", string("/")?)?;
    set("SERVER_PROTOCOL", string("HTTP/1.1")?)?;
    set("SERVER_NAME", string(&listener.name)?)?;
    set("SERVER_PORT", string(&listener.port)?)?;
    set("SERVER_SOFTWARE", string(SOFTWARE)?)?;
    set("REMOTE_ADDR", string("")?)?;
    set("REMOTE_PORT", string("")?)?;
    set("wsgi.version", (1, 0).into_bound_py_any(py)?)?;
    if listener.is_encrypted {
        set("wsgi.url_scheme", string("https")?)?;
        certificate::set_placeholders(&dict)?;
    } else {
        set("wsgi.url_scheme", string("http")?)?;
    }
    set("wsgi.input", shared.empty_input.clone())?;
    set("wsgi.input_terminated", true.into_bound_py_any(py)?)?;
    set("wsgi.errors", shared.errors.clone())?;
    set("wsgi.file_wrapper", shared.file_wrapper.clone())?;
    set("wsgi.multithread", shared.multithread.into_bound_py_any(py)?)?;
    set("wsgi.multiprocess", shared.multiprocess.into_bound_py_any(py)?)?;
    set("wsgi.run_once", shared.run_once.into_bound_py_any(py)?)?;
    set(EARLY_HINTS, py.None().into_bound(py))?;
    set(CLIENT_DISCONNECTED, py.None().into_bound(py))?;
    make_room(&dict)?;
    Ok(dict)
}

/// Fields of a usual request: what a browser sends.
const USUAL_FIELDS: usize = 16;

/// Makes the dict, and so every copy of it, big enough for the fields of a usual request. A dict of n slots takes 2n/3 entries,
/// and one more makes it double; a key that is deleted leaves the room there (dictobject.c). No more than that one: a dict of
/// which a third was deleted is copied key by key.
fn make_room(dict: &Bound<'_, PyDict>) -> PyResult<()> {
    let smallest = dict.len().next_power_of_two();
    let slots = if dict.len() <= smallest * 2 / 3 { smallest } else { smallest * 2 };
    let room = slots * 2 / 3;
    if dict.len() + USUAL_FIELDS <= room {
        return Ok(());
    }
    let spare: Vec<String> = (dict.len()..=room).map(|number| format!("spare {number}")).collect();
    for name in &spare {
        dict.set_item(name, dict.py().None())?;
    }
    spare.iter().try_for_each(|name| dict.del_item(name))
}

#[cfg(test)]
mod tests {
    use super::is_https;

    #[test]
    fn the_scheme_is_the_one_that_the_nearest_proxy_wrote() {
        assert!(is_https(b"https"));
        assert!(is_https(b"http, HTTPS "));
        assert!(!is_https(b"https, http"));
        assert!(!is_https(b""));
    }
}
