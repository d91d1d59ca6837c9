//! What the environ of an encrypted connection says of it, in the words of mod_ssl.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::tls::facts::ClientCertificate;
use crate::wsgi::keys::{SSL_CIPHER, SSL_PROTOCOL};
use crate::wsgi::text;

/// Whether the client has shown a certificate, and whether that is valid.
const VERIFY: &str = "SSL_CLIENT_VERIFY";

/// Sets what every connection of an encrypted listener has; the connection's own values replace some.
pub fn set_placeholders(dict: &Bound<'_, PyDict>) -> PyResult<()> {
    for (key, value) in [("HTTPS", "on"), (SSL_PROTOCOL, ""), (SSL_CIPHER, ""), (VERIFY, "NONE")] {
        dict.set_item(text::key(dict.py(), key)?, text::key(dict.py(), value)?)?;
    }
    Ok(())
}

/// The strings of the certificate that was shown last: the requests of a connection have the same one.
#[derive(Default)]
pub struct LastCertificate(Option<(Arc<ClientCertificate>, [Py<PyString>; 3])>);

impl LastCertificate {
    /// Sets what is known of the client in an environ that no other request gets.
    pub fn set(&mut self, dict: &Bound<'_, PyDict>, client: &Arc<ClientCertificate>) -> PyResult<()> {
        let py = dict.py();
        if !self.0.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, client)) {
            let ClientCertificate { subject, serial, pem } = &**client;
            let string = |value: &str| text::from_latin1(py, value.as_bytes()).map(Bound::unbind);
            self.0 = Some((client.clone(), [string(subject)?, string(serial)?, string(pem)?]));
        }
        let Some((_, [subject, serial, pem])) = &self.0 else { return Ok(()) };
        dict.set_item(text::key(py, VERIFY)?, text::key(py, "SUCCESS")?)?;
        dict.set_item(text::key(py, "SSL_CLIENT_S_DN")?, subject)?;
        dict.set_item(text::key(py, "SSL_CLIENT_M_SERIAL")?, serial)?;
        dict.set_item(text::key(py, "SSL_CLIENT_CERT")?, pem)
    }
}
