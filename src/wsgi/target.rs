//! The strings that a request target gives the environ, kept for the last targets: clients ask for the same ones again and again.
//!
//! A target is compared by all its bytes; the hash determines only its slot.

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::keys::Keys;
use super::mounts::MountPoint;
use super::text;
use crate::http::hash::mix_bytes;
use crate::http::head::Head;
use crate::http::target::{Form, Target, below, percent_decode};

/// Targets that are kept, by slot; a power of two, so that the top bits of a hash are the index.
const SLOTS: usize = 64;

/// Longest target that is kept, in bytes.
const LONGEST: usize = 1024;

/// The strings of one request target.
pub struct Uri {
    /// Different for each target, but not for the same one.
    pub serial: u64,
    target: Vec<u8>,
    uri: Py<PyString>,
    path: Py<PyString>,
    query: Py<PyString>,
    host: Option<Py<PyString>>,
    /// Whether the path depends on the method too.
    by_method: bool,
}

/// A copy of the client's bytes.
fn copied(bytes: &[u8]) -> PyResult<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| PyMemoryError::new_err(()))?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

impl Uri {
    /// Serial number of `/`, which the base holds.
    pub const ROOT: u64 = 0;

    fn root(py: Python<'_>) -> PyResult<Self> {
        let path = text::key(py, "/")?;
        Ok(Self {
            serial: Self::ROOT,
            target: b"/".to_vec(),
            uri: path.clone_ref(py),
            path,
            query: text::key(py, "")?,
            host: None,
            by_method: false,
        })
    }

    fn new(py: Python<'_>, head: &Head, bytes: &[u8], root: &[u8], point: &MountPoint, serial: u64) -> PyResult<Self> {
        let target = head.target.of(bytes);
        let uri = text::from_latin1(py, target)?;
        let string = |bytes| text::from_latin1(py, bytes).map(Bound::unbind);
        // The parser refuses a target of none of these forms.
        let Ok(parts) = Target::of(head, bytes) else {
            let (path, query) = (string(b"")?, string(b"")?);
            let uri = uri.unbind();
            return Ok(Self { serial, target: copied(target)?, uri, path, query, host: None, by_method: false });
        };
        let mut path = Vec::new();
        path.try_reserve_exact(target.len()).map_err(|_| PyMemoryError::new_err(()))?;
        percent_decode(parts.path(bytes), &mut path);
        let path = point.below(below(&path, root));
        let path = if path == target { uri.clone().unbind() } else { string(path)? };
        let query = string(parts.query.of(bytes))?;
        let host = match parts.form {
            Form::Absolute => Some(string(parts.authority.of(bytes))?),
            Form::Origin | Form::Asterisk => None,
        };
        // `*` is the server as a whole for OPTIONS, and its root for any other method.
        let by_method = parts.form == Form::Absolute && parts.path.is_empty();
        Ok(Self { serial, target: copied(target)?, uri: uri.unbind(), path, query, host, by_method })
    }

    /// Whether it sets the host in the place of the field.
    pub fn names_host(&self) -> bool {
        self.host.is_some()
    }

    /// Sets its strings.
    pub fn set(&self, dict: &Bound<'_, PyDict>, keys: &Keys) -> PyResult<()> {
        dict.set_item(&keys.raw_uri, &self.uri)?;
        dict.set_item(&keys.request_uri, &self.uri)?;
        dict.set_item(&keys.path, &self.path)?;
        dict.set_item(&keys.query, &self.query)?;
        if let Some(host) = &self.host {
            dict.set_item(&keys.host, host)?;
        }
        Ok(())
    }
}

/// The targets of one application on one thread.
pub struct Targets {
    /// Where it is mounted.
    point: MountPoint,
    /// `--root-path`.
    root_path: Vec<u8>,
    root: Uri,
    slots: Box<[Option<Uri>]>,
    /// The latest one that was too long to be kept.
    long: Option<Uri>,
    /// The latest serial number.
    serial: u64,
}

impl Targets {
    /// No targets but `/`.
    pub fn new(py: Python<'_>, root_path: &[u8], point: &MountPoint) -> PyResult<Self> {
        let (root_path, point) = (root_path.to_vec(), point.clone());
        Ok(Self {
            point,
            root_path,
            root: Uri::root(py)?,
            slots: (0..SLOTS).map(|_| None).collect(),
            long: None,
            serial: Uri::ROOT,
        })
    }

    /// The strings of a request's target.
    pub fn uri(&mut self, py: Python<'_>, head: &Head, bytes: &[u8]) -> PyResult<&Uri> {
        let target = head.target.of(bytes);
        if target == b"/" {
            return Ok(&self.root);
        }
        let slot = if target.len() > LONGEST { &mut self.long } else { &mut self.slots[index(target)] };
        if slot.as_ref().is_none_or(|uri| uri.target != target || uri.by_method) {
            self.serial += 1;
            *slot = Some(Uri::new(py, head, bytes, &self.root_path, &self.point, self.serial)?);
        }
        Ok(slot.as_ref().expect("it was just filled"))
    }
}

/// The slot of a target; which one it gets matters only for speed.
fn index(target: &[u8]) -> usize {
    (mix_bytes(target.len() as u64, target) >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}
