//! A directory with files of every kind, all changed last at one known second.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// The second of the last change: Sun, 06 Nov 1994 08:49:37 GMT.
pub const MODIFIED: u64 = 784_111_777;

/// The same as a field has it.
pub const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Bytes of the large file: several turns of the loop.
pub const LARGE: usize = 700_000;

/// Bytes of the large file.
pub fn large() -> Vec<u8> {
    (0..LARGE as u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(LARGE).collect()
}

/// The tag of a file of so many bytes that was changed at that second.
pub fn tag(size: usize, coding: &str) -> String {
    format!("\"{MODIFIED:x}.0-{size:x}{coding}\"")
}

/// Sets the second of the last change.
pub fn date(path: &Path, second: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
}

/// Makes `static` in this directory, and beside it what must not be reached.
pub fn make(dir: &Path) {
    let root = dir.join("static");
    fs::create_dir_all(root.join("docs/deep")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    fs::create_dir_all(dir.join("static-secret")).unwrap();
    let put = |name: &[u8], content: &[u8]| {
        let path = root.join(OsStr::from_bytes(name));
        fs::write(&path, content).unwrap();
        date(&path, MODIFIED);
    };
    put(b"a.txt", b"hello, world!");
    put(b"empty.css", b"");
    put(b"large.bin", &large());
    put(b"mid.bin", &large()[..16 * 1024]);
    put(b"over.bin", &large()[..16 * 1024 + 1]);
    put(b"app.js", b"plain javascript");
    put(b"app.js.br", b"br bytes");
    put(b"app.js.zst", b"zst bytes");
    put(b"app.js.gz", b"gz bytes");
    put(b"old.js", b"plain javascript");
    put(b"old.js.gz", b"gz bytes");
    date(&root.join("old.js.gz"), MODIFIED - 1);
    put(b"fat.js", b"plain");
    put(b"fat.js.gz", b"gz bytes that are more");
    put(b"dir.js", b"plain javascript");
    fs::create_dir(root.join("dir.js.gz")).unwrap();
    put(b"a.png", b"png");
    put(b"a.png.gz", b"gz");
    put(b"app.mjs", b"export{}");
    put(b"site.webmanifest", b"{}");
    put(b"m.wasm", b"\0asm");
    put(b"thing.ply", b"ply");
    put(b"README", b"read me");
    put(b"base.0123456789ab.css", b"a{}");
    put(b"docs/index.html", b"<p>docs");
    put(b"docs/deep/page.html", b"<p>page");
    put(b".env", b"SECRET");
    put(b".git/config", b"SECRET");
    put(b"docs/.htpasswd", b"SECRET");
    put(b"a b.txt", b"blank");
    put("\u{e9}.txt".as_bytes(), b"accent");
    put(b"\xff.txt", b"byte");
    put(b"back\\slash.txt", b"backslash");
    put(b"100%.txt", b"percent");
    put(b"q?.txt", b"question");
    put(b"plus+.txt", b"plus");
    put(b"semi;colon=.txt", b"semicolon");
    put(b"...dots", b"SECRET");
    put(b"a..b", b"dots within");
    symlink("a.txt", root.join("link.txt")).unwrap();
    symlink("docs", root.join("linked")).unwrap();
    symlink("../outside.txt", root.join("out.txt")).unwrap();
    symlink(root.join("a.txt"), root.join("absolute.txt")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // The file of the socket stays when the socket is closed.
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    for secret in ["outside.txt", "static-secret/file"] {
        fs::write(dir.join(secret), "outside").unwrap();
        date(&dir.join(secret), MODIFIED);
    }
    fs::create_dir_all(dir.join("root/admin")).unwrap();
    for (name, content) in [("robots.txt", "User-agent: *"), ("index.html", "<p>home"), ("app.js", "of the root")] {
        fs::write(dir.join("root").join(name), content).unwrap();
        date(&dir.join("root").join(name), MODIFIED);
    }
}
