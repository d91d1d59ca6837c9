//! The keys of the environ that are set for each request.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::text;

/// Key of the callable that sends `103 Early Hints`, as in gunicorn.
pub const EARLY_HINTS: &str = "wsgi.early_hints";

/// Key of the callable that says whether the client has left.
pub const CLIENT_DISCONNECTED: &str = "tapster.client_disconnected";

/// Key of the version of TLS, as in mod_ssl.
pub const SSL_PROTOCOL: &str = "SSL_PROTOCOL";

/// Key of the cipher, as in mod_ssl.
pub const SSL_CIPHER: &str = "SSL_CIPHER";

/// The keys that are set for each request, and the constants among their values.
pub struct Keys {
    pub method: Py<PyString>,
    pub script: Py<PyString>,
    pub path: Py<PyString>,
    pub query: Py<PyString>,
    pub raw_uri: Py<PyString>,
    pub request_uri: Py<PyString>,
    pub protocol: Py<PyString>,
    pub remote_addr: Py<PyString>,
    pub remote_port: Py<PyString>,
    pub content_length: Py<PyString>,
    pub host: Py<PyString>,
    pub scheme: Py<PyString>,
    pub input: Py<PyString>,
    pub early_hints: Py<PyString>,
    pub client_disconnected: Py<PyString>,
    pub get: Py<PyString>,
    pub zero: Py<PyString>,
    pub http10: Py<PyString>,
    pub https: Py<PyString>,
    pub ssl_protocol: Py<PyString>,
    pub ssl_cipher: Py<PyString>,
    pub http: Py<PyString>,
    pub https_key: Py<PyString>,
    pub on: Py<PyString>,
    pub server_name: Py<PyString>,
    pub server_port: Py<PyString>,
    pub request_id: Py<PyString>,
}

impl Keys {
    /// Interns them.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let key = |name| text::key(py, name);
        Ok(Self {
            method: key("REQUEST_METHOD")?,
            script: key("SCRIPT_NAME")?,
            path: key("PATH_INFO")?,
            query: key("QUERY_STRING")?,
            raw_uri: key("RAW_URI")?,
            request_uri: key("REQUEST_URI")?,
            protocol: key("SERVER_PROTOCOL")?,
            remote_addr: key("REMOTE_ADDR")?,
            remote_port: key("REMOTE_PORT")?,
            content_length: key("CONTENT_LENGTH")?,
            host: key("HTTP_HOST")?,
            scheme: key("wsgi.url_scheme")?,
            input: key("wsgi.input")?,
            early_hints: key(EARLY_HINTS)?,
            client_disconnected: key(CLIENT_DISCONNECTED)?,
            get: key("GET")?,
            zero: key("0")?,
            http10: key("HTTP/1.0")?,
            https: key("https")?,
            ssl_protocol: key(SSL_PROTOCOL)?,
            ssl_cipher: key(SSL_CIPHER)?,
            http: key("http")?,
            https_key: key("HTTPS")?,
            on: key("on")?,
            server_name: key("SERVER_NAME")?,
            server_port: key("SERVER_PORT")?,
            request_id: key("HTTP_X_REQUEST_ID")?,
        })
    }
}
