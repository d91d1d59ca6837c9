//! Media types by the extensions of names, with `--mime-type` in front.
//!
//! The table is that of what web sites consist of (IANA's registry of media types; RFC 9239 for JavaScript). Debian's and nginx's
//! lists lack `mjs` and `webmanifest`, and a browser refuses a module of another type.

use crate::config::MimeType;

/// What is sent for unknown names (RFC 9110 section 8.3).
const UNKNOWN: &str = "application/octet-stream";

/// How well the bytes of a type can be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compactness {
    /// Text whose coding is said with it.
    Utf8,
    /// Other bytes.
    Plain,
    /// Compressed by its format: nobody keeps a compressed form beside it.
    Packed,
}

use Compactness::{Packed, Plain, Utf8};

/// By extension, in order.
const TABLE: &[(&str, &str, Compactness)] = &[
    ("3gp", "video/3gpp", Packed),
    ("7z", "application/x-7z-compressed", Packed),
    ("aac", "audio/aac", Packed),
    ("apng", "image/apng", Packed),
    ("atom", "application/atom+xml", Plain),
    ("avi", "video/x-msvideo", Packed),
    ("avif", "image/avif", Packed),
    ("bmp", "image/bmp", Plain),
    ("br", UNKNOWN, Packed),
    ("bz2", "application/x-bzip2", Packed),
    ("cjs", "text/javascript", Utf8),
    ("css", "text/css", Utf8),
    ("csv", "text/csv", Utf8),
    ("doc", "application/msword", Plain),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", Packed),
    ("eot", "application/vnd.ms-fontobject", Plain),
    ("epub", "application/epub+zip", Packed),
    ("flac", "audio/flac", Packed),
    ("geojson", "application/geo+json", Plain),
    ("gif", "image/gif", Packed),
    ("glb", "model/gltf-binary", Plain),
    ("gltf", "model/gltf+json", Plain),
    ("gz", "application/gzip", Packed),
    ("htm", "text/html", Utf8),
    ("html", "text/html", Utf8),
    ("ico", "image/vnd.microsoft.icon", Plain),
    ("ics", "text/calendar", Utf8),
    ("jpeg", "image/jpeg", Packed),
    ("jpg", "image/jpeg", Packed),
    ("js", "text/javascript", Utf8),
    ("json", "application/json", Plain),
    ("jsonld", "application/ld+json", Plain),
    ("jxl", "image/jxl", Packed),
    ("m3u8", "application/vnd.apple.mpegurl", Plain),
    ("m4a", "audio/mp4", Packed),
    ("m4v", "video/mp4", Packed),
    ("map", "application/json", Plain),
    ("md", "text/markdown", Utf8),
    ("mjs", "text/javascript", Utf8),
    ("mov", "video/quicktime", Packed),
    ("mp3", "audio/mpeg", Packed),
    ("mp4", "video/mp4", Packed),
    ("mpd", "application/dash+xml", Plain),
    ("mpeg", "video/mpeg", Packed),
    ("mpg", "video/mpeg", Packed),
    ("odp", "application/vnd.oasis.opendocument.presentation", Packed),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet", Packed),
    ("odt", "application/vnd.oasis.opendocument.text", Packed),
    ("oga", "audio/ogg", Packed),
    ("ogg", "audio/ogg", Packed),
    ("ogv", "video/ogg", Packed),
    ("opus", "audio/ogg", Packed),
    ("otf", "font/otf", Plain),
    ("pdf", "application/pdf", Plain),
    ("png", "image/png", Packed),
    ("ppt", "application/vnd.ms-powerpoint", Plain),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation", Packed),
    ("rar", "application/vnd.rar", Packed),
    ("rss", "application/rss+xml", Plain),
    ("rtf", "application/rtf", Plain),
    ("svg", "image/svg+xml", Plain),
    ("tar", "application/x-tar", Plain),
    ("tgz", "application/gzip", Packed),
    ("tif", "image/tiff", Plain),
    ("tiff", "image/tiff", Plain),
    ("toml", "application/toml", Plain),
    ("tsv", "text/tab-separated-values", Utf8),
    ("ttf", "font/ttf", Plain),
    ("txt", "text/plain", Utf8),
    ("vtt", "text/vtt", Utf8),
    ("wasm", "application/wasm", Plain),
    ("wav", "audio/wav", Plain),
    ("weba", "audio/webm", Packed),
    ("webm", "video/webm", Packed),
    ("webmanifest", "application/manifest+json", Plain),
    ("webp", "image/webp", Packed),
    ("woff", "font/woff", Packed),
    ("woff2", "font/woff2", Packed),
    ("xhtml", "application/xhtml+xml", Plain),
    ("xls", "application/vnd.ms-excel", Plain),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", Packed),
    ("xml", "application/xml", Plain),
    ("xsl", "application/xslt+xml", Plain),
    ("xz", "application/x-xz", Packed),
    ("yaml", "application/yaml", Plain),
    ("yml", "application/yaml", Plain),
    ("zip", "application/zip", Packed),
    ("zst", "application/zstd", Packed),
];

/// Bytes of the longest extension that is looked for.
const LONGEST: usize = 16;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// Value of Content-Type, without the charset.
    pub name: &'a str,
    /// Whether `charset=utf-8` is said with it.
    pub is_utf8: bool,
    /// Whether somebody may keep compressed forms beside the file.
    pub is_compressible: bool,
}

/// The types of names.
#[derive(Debug)]
pub struct MediaTypes {
    own: Vec<MimeType>,
}

impl MediaTypes {
    /// The table with these in front of it, the last ones first.
    pub fn new(own: &[MimeType]) -> Self {
        Self { own: own.iter().rev().cloned().collect() }
    }

    /// The type of a file of this name.
    pub fn of(&self, name: &[u8]) -> MediaType<'_> {
        let base = name.rsplit(|&b| b == b'/').next().unwrap_or(name);
        let extension = base.iter().rposition(|&b| b == b'.').map_or(&[][..], |dot| &base[dot + 1..]);
        let unknown = MediaType { name: UNKNOWN, is_utf8: false, is_compressible: true };
        if let Some(own) = self.own.iter().find(|own| own.extension.as_bytes().eq_ignore_ascii_case(extension)) {
            return MediaType { name: &own.name, ..unknown };
        }
        let mut lower = [0; LONGEST];
        let Some(lower) = lower.get_mut(..extension.len()) else { return unknown };
        lower.copy_from_slice(extension);
        lower.make_ascii_lowercase();
        match TABLE.binary_search_by(|(known, ..)| known.as_bytes().cmp(lower)) {
            Ok(at) => {
                let (_, name, content) = TABLE[at];
                MediaType { name, is_utf8: content == Utf8, is_compressible: content != Packed }
            }
            Err(_) => unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_types_are_types() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for (extension, name, _) in TABLE {
            assert!(extension.len() <= LONGEST && *extension == extension.to_ascii_lowercase());
            assert!(MimeType::parse(&format!("{extension}={name}")).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_have_the_type_of_their_last_extension() {
        let types = MediaTypes::new(&[]);
        for (name, expected) in [
            ("a/app.mjs", "text/javascript"),
            ("app.JS", "text/javascript"),
            ("app.js.map", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("m.wasm", "application/wasm"),
            ("a.tar.gz", "application/gzip"),
            ("a.js.br", "application/octet-stream"),
            ("a.b/README", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("a.unknown", "application/octet-stream"),
            ("a.very-long-extension-of-a-name", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(types.of(name.as_bytes()).name, expected, "{name}");
        }
        assert!(types.of(b"a.css").is_utf8 && !types.of(b"a.svg").is_utf8);
        assert!(types.of(b"a.svg").is_compressible && types.of(b"LICENSE").is_compressible);
        assert!(!types.of(b"a.png").is_compressible && !types.of(b"a.js.gz").is_compressible);
    }

    #[test]
    fn the_types_of_the_options_come_first_and_the_last_one_wins() {
        let own = ["js=application/javascript", "ply=model/ply", "js=text/plain; charset=ascii"];
        let types = MediaTypes::new(&own.map(|text| MimeType::parse(text).unwrap()));
        assert_eq!(types.of(b"a.js").name, "text/plain; charset=ascii");
        assert!(!types.of(b"a.js").is_utf8, "its charset is as it was given");
        assert_eq!(types.of(b"a.PLY").name, "model/ply");
        assert_eq!(types.of(b"a.css").name, "text/css");
    }
}
