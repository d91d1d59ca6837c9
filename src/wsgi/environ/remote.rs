//! REMOTE_ADDR and REMOTE_PORT: the latest strings together with the bytes that they were made from, since the same bytes come again
//! most of the time.

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::worker::app::Request;
use crate::wsgi::text;

/// The address and the port of the latest client.
pub struct LastRemote {
    addr: Last,
    port: Last,
}

impl LastRemote {
    /// That of no client.
    pub fn new(py: Python<'_>) -> Self {
        Self { addr: Last::new(py), port: Last::new(py) }
    }

    /// REMOTE_ADDR and REMOTE_PORT of a request.
    #[inline(always)] // most requests come through one of the callers
    pub fn of<'a, 'py>(&'a mut self, py: Python<'py>, request: &Request<'_>) -> PyResult<[Borrowed<'a, 'py, PyString>; 2]> {
        let (addr, port) = match request.head.client {
            None => (request.peer.addr.as_bytes(), request.peer.port.as_bytes()),
            Some(client) => (client.addr.of(request.bytes), client.port.of(request.bytes)),
        };
        Ok([self.addr.of(py, addr)?, self.port.of(py, port)?])
    }
}

struct Last {
    bytes: Vec<u8>,
    object: Py<PyString>,
}

impl Last {
    fn new(py: Python<'_>) -> Self {
        Self { bytes: Vec::new(), object: PyString::intern(py, "").unbind() }
    }

    #[inline]
    fn of<'a, 'py>(&'a mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Borrowed<'a, 'py, PyString>> {
        if !is_same(&self.bytes, bytes) {
            self.renew(py, bytes)?;
        }
        Ok(self.object.bind_borrowed(py))
    }

    #[inline(never)]
    fn renew(&mut self, py: Python<'_>, bytes: &[u8]) -> PyResult<()> {
        self.object = text::from_latin1(py, bytes)?.unbind();
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Equality without a call for texts as short as addresses and ports are.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a.len() > 16 {
        return a == b;
    }
    // Two overlapping words cover all bytes.
    if let (Some(a), Some(end), Some(b), Some(other)) =
        (a.first_chunk::<8>(), a.last_chunk::<8>(), b.first_chunk::<8>(), b.last_chunk::<8>())
    {
        return (a, end) == (b, other);
    }
    if let (Some(a), Some(end), Some(b), Some(other)) =
        (a.first_chunk::<4>(), a.last_chunk::<4>(), b.first_chunk::<4>(), b.last_chunk::<4>())
    {
        return (a, end) == (b, other);
    }
    a.iter().zip(b).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn texts_of_each_length_are_compared_in_each_byte() {
        for len in 0..20 {
            let text: Vec<u8> = (0..len).collect();
            assert!(is_same(&text, &text.clone()));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&text, &other), "byte {at} of {len}");
            }
            assert!(!is_same(&text, &[&text[..], b"x"].concat()));
        }
    }
}
