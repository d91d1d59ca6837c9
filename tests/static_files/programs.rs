//! Static files and other people's programs: curl asks for them, Django collects them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::server::Server;
use crate::common::tools::{self, CLIENT_LIMIT, files_below};
use crate::common::{apps, venv};
use crate::{APP, server, tree};

#[test]
fn curl_resumes_compares_and_follows() {
    if tools::tool("curl").is_none() {
        return;
    }
    let server = server().options(["--static-index", "index.html"]).start();
    let (dir, large) = (server.temp().to_owned(), tree::large());
    let curl = |options: &[&str], path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]).args(options).arg(server.url(path));
        tools::run(curl.current_dir(&dir), CLIENT_LIMIT).succeeded().stdout
    };
    let code = ["--output", "got", "--write-out", "%{http_code} %{size_download} %{num_redirects}"];
    let with = |more: &[&'static str]| -> Vec<&str> { code.iter().chain(more).copied().collect() };
    let got = || fs::read(dir.join("got")).unwrap();
    assert_eq!(curl(&code, "/static/large.bin"), "200 700000 0");
    assert!(got() == large);
    // A download that was broken off goes on.
    fs::write(dir.join("got"), &large[..123_457]).unwrap();
    assert_eq!(curl(&with(&["--continue-at", "-"]), "/static/large.bin"), format!("206 {} 0", tree::LARGE - 123_457));
    assert!(got() == large);
    assert_eq!(curl(&with(&["--range", "0-0"]), "/static/large.bin"), "206 1 0");
    assert_eq!(curl(&with(&["--range", "0-9,20-29"]), "/static/large.bin"), "200 700000 0");
    assert_eq!(curl(&with(&["--etag-save", "tag"]), "/static/a.txt"), "200 13 0");
    assert_eq!(curl(&with(&["--etag-compare", "tag"]), "/static/a.txt"), "304 0 0");
    assert_eq!(curl(&with(&["--time-cond", tree::DATE]), "/static/a.txt"), "304 0 0");
    assert_eq!(curl(&with(&["--location"]), "/static/docs?a=1"), "200 7 1");
    assert_eq!(curl(&with(&["--head"]), "/static/large.bin"), "200 0 0");
    assert_eq!(curl(&with(&["--path-as-is"]), "/static/../outside.txt"), "404 36 0");
    assert_eq!(curl(&with(&["--upload-file", "tag"]), "/static/a.txt"), "405 47 0");
    server.stop();
}

/// Collects the files of the Django project with hashed names into a directory, as links into the packages if `link`.
fn collect(dir: &Path, link: bool) {
    let code = format!(
        "import django\nfrom django.conf import settings\nimport djangoproj.settings as base\n\
         settings.configure(**{{name: getattr(base, name) for name in dir(base) if name.isupper()}} | dict(\n    \
         STATIC_ROOT={:?}, INSTALLED_APPS=base.INSTALLED_APPS + ['django.contrib.staticfiles'],\n    \
         STORAGES={{'staticfiles': {{'BACKEND': 'django.contrib.staticfiles.storage.{}'}}}}))\n\
         django.setup()\nfrom django.core.management import call_command\n\
         call_command('collectstatic', interactive=False, verbosity=0, link={})\n",
        dir.display().to_string(),
        if link { "StaticFilesStorage" } else { "ManifestStaticFilesStorage" },
        if link { "True" } else { "False" },
    );
    let mut command = Command::new(venv::python());
    command.args(["-c", &code]).current_dir(apps()).env("DJANGO_DIR", dir).env("PYTHONDONTWRITEBYTECODE", "1");
    tools::run(&mut command, CLIENT_LIMIT).succeeded();
}

#[test]
fn the_collected_files_of_django_are_all_there() {
    for link in [false, true] {
        let server = Server::source(APP);
        let root = server.temp().join("collected");
        fs::create_dir(&root).unwrap();
        collect(&root, link);
        let map = format!("/static={}", root.display());
        let server = server.options(["--static-map", &map]).start();
        let (names, mut immutable, mut links) = (files_below(&root), 0, 0);
        let mut client = server.connect();
        for name in &names {
            let response = client.get(&format!("/static/{name}"));
            assert!(response.status == 200 && response.body == fs::read(root.join(name)).unwrap(), "{name}: {response:?}");
            immutable += usize::from(response.field("cache-control").is_some_and(|cache| cache.contains("immutable")));
            links += usize::from(fs::symlink_metadata(root.join(name)).unwrap().is_symlink());
        }
        let kinds: HashSet<_> = names.iter().filter_map(|name| name.rsplit_once('.')).map(|(_, kind)| kind).collect();
        assert!(names.len() > 100 && kinds.contains("css") && kinds.contains("svg"), "{} files, {kinds:?}", names.len());
        if link {
            assert!(links > 100 && immutable == 0, "{links} links, {immutable} immutable");
        } else {
            assert!(immutable > 100, "{immutable} of {} are hashed", names.len());
        }
        server.stop();
    }
}
