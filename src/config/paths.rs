//! Paths in a serialized form: as the kernel has them, which need not be text. (serde writes a path that is no UTF-8 as an error.)

use std::ffi::OsString;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One or several paths.
pub trait Paths: Sized {
    /// The same as bytes.
    type Bytes: Serialize + DeserializeOwned;

    /// As bytes.
    fn to_bytes(&self) -> Self::Bytes;

    /// From bytes.
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

impl Paths for PathBuf {
    type Bytes = OsString;

    fn to_bytes(&self) -> OsString {
        self.clone().into()
    }

    fn from_bytes(bytes: OsString) -> Self {
        bytes.into()
    }
}

impl Paths for Option<PathBuf> {
    type Bytes = Option<OsString>;

    fn to_bytes(&self) -> Self::Bytes {
        self.as_ref().map(Paths::to_bytes)
    }

    fn from_bytes(bytes: Self::Bytes) -> Self {
        bytes.map(Paths::from_bytes)
    }
}

impl Paths for Vec<PathBuf> {
    type Bytes = Vec<OsString>;

    fn to_bytes(&self) -> Self::Bytes {
        self.iter().map(Paths::to_bytes).collect()
    }

    fn from_bytes(bytes: Self::Bytes) -> Self {
        bytes.into_iter().map(Paths::from_bytes).collect()
    }
}

/// For `#[serde(with)]`.
pub fn serialize<P: Paths, S: Serializer>(paths: &P, serializer: S) -> Result<S::Ok, S::Error> {
    paths.to_bytes().serialize(serializer)
}

/// For `#[serde(with)]`.
pub fn deserialize<'de, P: Paths, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
    P::Bytes::deserialize(deserializer).map(P::from_bytes)
}
