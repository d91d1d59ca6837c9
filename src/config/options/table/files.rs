//! Rows: files that the server sends itself.

use super::row::ROW;
use crate::config::options::option::{Opt, Section, ValueKind};
use crate::config::static_files::{self, Expires, HASHED_NAMES, ImmutableNames, LinkPolicy, MimeType, StaticMap};
use crate::config::value;

pub(super) const ROWS: &[Opt] = &[
    Opt {
        name: "static-map",
        value: "/PATH=DIR",
        kind: ValueKind::List,
        help: "Send the files of this directory for paths that begin with PATH, without the application: also while all its threads \
               are busy. What is not there is answered 404. /=DIR tries the file and leaves the rest to the application (robots.txt, \
               favicon.ico). A relative DIR starts at --chdir. Names that begin with a dot are never sent. Repeatable; the longest \
               path counts.",
        section: Section::Files,
        separator: Some(','),
        clear: |s| s.static_files.maps.clear(),
        set: Some(|s, v| StaticMap::parse(v).and_then(|map| s.static_files.add(map))),
        ..ROW
    },
    Opt {
        name: "static-index",
        value: "NAME",
        help: "The file that stands for its directory, such as index.html. A directory without a slash behind it is redirected to the \
               path with one. Without this option directories are not found.",
        section: Section::Files,
        set: Some(|s, v| static_files::index(v).map(|name| s.static_files.index = Some(name))),
        ..ROW
    },
    Opt {
        name: "static-expires",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("0"),
        help: "How long browsers and caches may keep a file without asking (Cache-Control: max-age). 0 has them ask each time, which \
               an answer without a body confirms; none says nothing, and they guess.",
        section: Section::Files,
        set: Some(|s, v| Expires::parse(v).map(|expires| s.static_files.expires = expires)),
        ..ROW
    },
    Opt {
        name: "static-immutable",
        value: "REGEX",
        default: Some(HASHED_NAMES),
        help: "Names in which this regular expression is found never get another content: they are kept for a year. The default is \
               those of Django's ManifestStaticFilesStorage. For Vite it is -[A-Za-z0-9_-]{8}\\.[a-z0-9]+$ below a path that has \
               nothing else. none is no name.",
        section: Section::Files,
        set: Some(|s, v| ImmutableNames::parse(v).map(|names| s.static_files.immutable = names)),
        ..ROW
    },
    Opt {
        name: "static-versioned",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Treat every file that is asked for with ?v=ANYTHING as one that never changes, as Tornado does. Only for sites whose \
               every such URL is made by static_url: any other ?v= keeps a stale file with its reader for a year.",
        section: Section::Files,
        set: Some(|s, v| value::flag(v).map(|flag| s.static_files.versioned = flag)),
        ..ROW
    },
    Opt {
        name: "static-precompressed",
        kind: ValueKind::Flag,
        default: Some("false"),
        help: "Send app.js.br, app.js.zst or app.js.gz in the place of app.js to clients that take it, unless it is older than app.js. \
               Answers have Vary: Accept-Encoding then.",
        section: Section::Files,
        set: Some(|s, v| value::flag(v).map(|flag| s.static_files.precompressed = flag)),
        ..ROW
    },
    Opt {
        name: "static-symlinks",
        value: "POLICY",
        default: Some("follow"),
        help: "What becomes of symbolic links below a directory: follow, beneath (only while they stay below it; absolute ones do not \
               count as such) or deny.",
        section: Section::Files,
        set: Some(|s, v| LinkPolicy::parse(v).map(|links| s.static_files.links = links)),
        ..ROW
    },
    Opt {
        name: "mime-type",
        value: "EXT=TYPE",
        kind: ValueKind::List,
        help: "Media type of files with this extension, such as ply=model/ply, in front of the built-in ones. Repeatable.",
        section: Section::Files,
        separator: Some(','),
        clear: |s| s.static_files.mime_types.clear(),
        set: Some(|s, v| MimeType::parse(v).map(|kind| s.static_files.mime_types.push(kind))),
        ..ROW
    },
];
