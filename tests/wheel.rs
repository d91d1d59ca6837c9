//! What concerns the package (`pip install tapster`) alone. scripts/test-wheel runs these, and all others, against a wheel.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use common::server::{Running, Server};
use common::{SOON, procfs, tools, venv};

/// Why they are ignored by `cargo test`: what that tests is no package.
const PROGRAM: &str = "TAPSTER_BIN has to be the command of a package, see scripts/test-wheel";

/// Environment with the package and the launchers of measuring agents.
const AGENTS: &str = "TAPSTER_TEST_AGENTS";

/// The worker could not boot.
const EXIT_BOOT: i32 = 3;

/// Tells what its interpreter was started with.
const MIRROR: &str = r#"
import json, os, sys

def application(environ, start_response):
    seen = {
        "argv": sys.argv, "executable": sys.executable, "hash": hash("text"), "random": sys.flags.hash_randomization,
        "environ": dict(os.environ), "home": os.path.expanduser("~"), "pid": os.getpid(), "loaded": sorted(sys.modules),
        "encoding": sys.stdout.encoding, "uid": os.getuid(),
    }
    body = json.dumps(seen).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"#;

fn environment() -> PathBuf {
    venv::given().expect(PROGRAM)
}

fn maps(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process lives")
}

/// Serves, reloads, becomes itself anew, and replaces a worker that is killed.
#[track_caller]
fn lives(mut server: Running) {
    assert_eq!(server.get("/").status, 200);
    for (signal, record) in [(Signal::SIGHUP, "reload done"), (Signal::SIGUSR2, "reload done")] {
        let old = server.workers();
        let count = || server.log().records().iter().filter(|found| found.text.contains(record)).count();
        let before = count();
        server.signal(signal);
        common::wait_for(record, 3 * SOON, || (count() > before).then_some(()));
        server.wait_for_end_of(&old);
        assert_eq!(server.get("/").status, 200, "{signal}");
    }
    let old = server.workers();
    common::server::signal_to(old[0], Signal::SIGKILL);
    server.wait_for_end_of(&old[..1]);
    common::wait_for("another worker", SOON, || (server.workers().len() == old.len()).then_some(()));
    assert_eq!(server.get("/").status, 200);
    server.expect_error("SIGKILL");
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_worker_is_a_python_as_its_user_has_started_it() {
    let server = Server::source(MIRROR).workers(1);
    let libraries = server.temp().join("libraries");
    fs::create_dir(&libraries).unwrap();
    // `_decimal` is a library of its own, which shows in the maps of a process.
    // As OpenTelemetry's did for long, it takes itself out for the programs that its own starts.
    fs::write(libraries.join("sitecustomize.py"), "import _decimal, os\ndel os.environ['PYTHONPATH']\n").unwrap();
    let server = server.env("PYTHONPATH", libraries.display().to_string()).env("PYTHONIOENCODING", "latin-1");
    let server = server.env("OWN", "x").options(["--env", "LATER=y", "--name", "site"]).start();
    let seen = server.get("/").json();
    let argv: Vec<&str> = seen["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert!(argv[0].ends_with("/bin/tapster") && argv.contains(&"site") && argv.last() == Some(&"app"), "{argv:?}");
    assert_eq!(PathBuf::from(seen["executable"].as_str().unwrap()).parent(), Some(environment().join("bin").as_path()));
    assert_eq!((&seen["environ"]["OWN"], &seen["environ"]["LATER"]), (&"x".into(), &"y".into()));
    assert_eq!(seen["environ"].as_object().unwrap().keys().find(|name| name.starts_with("TAPSTER_")), None, "{seen}");
    assert_eq!(seen["encoding"], "iso8859-1");
    assert!(seen["loaded"].as_array().unwrap().contains(&"sitecustomize".into()));
    assert!(!maps(server.pid()).contains("_decimal"), "nothing of it is in the master");
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn workers_have_hash_seeds_of_their_own_unless_env_gives_one() {
    let hashes = |server: &Running| -> Vec<String> {
        let mut found = std::collections::BTreeMap::new();
        common::wait_for("an answer of each worker", SOON, || {
            let seen = server.get("/").json();
            found.insert(seen["pid"].to_string(), seen["hash"].to_string());
            (found.len() == 2).then_some(())
        });
        found.into_values().collect()
    };
    let server = Server::source(MIRROR).workers(2).start();
    let own = hashes(&server);
    assert_ne!(own[0], own[1]);
    server.stop();
    let server = Server::source(MIRROR).workers(2).options(["--env", "PYTHONHASHSEED=7"]).start();
    let given = hashes(&server);
    assert_eq!(given[0], given[1]);
    assert_eq!(server.get("/").json()["random"], 1);
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn the_module_is_the_command_too_and_a_relative_script_is_found_from_another_directory() {
    let python = environment().join("bin/python").display().to_string();
    let server = Server::source(MIRROR).launcher([python.as_str(), "-X", "utf8", "-m"]).program("tapster".as_ref());
    lives(server.start());

    let server = Server::source(MIRROR);
    let (temp, bin) = (server.temp().to_owned(), server.temp().join("bin"));
    std::os::unix::fs::symlink(environment().join("bin"), &bin).unwrap();
    fs::create_dir(temp.join("elsewhere")).unwrap();
    fs::rename(temp.join("app.py"), temp.join("elsewhere/app.py")).unwrap();
    lives(server.program("bin/tapster".as_ref()).options(["--chdir", "elsewhere"]).start());
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_state_of_a_stranger_is_refused() {
    let refused = |server: Server, why: &str| {
        let ended = server.run_to_end();
        assert_eq!(ended.code, Some(EXIT_BOOT), "{ended:#?}");
        assert!(ended.stderr.contains(why), "{why}: {}", ended.stderr);
    };
    let named = |number: &str| Server::new("probe").env("TAPSTER_WORKER_FD", number);
    refused(named("77"), "no such descriptor is open");
    refused(named("1"), "standard streams");
    // What the shell passes on is a pipe: the ready descriptor.
    refused(named("3"), "it is no sealed file in memory");
    let python = environment().join("bin/python").display().to_string();
    let script = |seals: &str, header: &str| {
        format!(
            "import fcntl, os, sys\n\
             fd = os.memfd_create('x', os.MFD_ALLOW_SEALING)\n\
             os.write(fd, ({header}).encode())\n\
             fcntl.fcntl(fd, 1033, {seals})\n\
             os.set_inheritable(fd, True)\n\
             os.environ['TAPSTER_WORKER_FD'] = str(fd)\n\
             os.execv(sys.argv[1], sys.argv[1:])\n"
        )
    };
    let header = |pid: &str| {
        format!(
            "'{{\"tapster_worker\": %d, \"master\": %d, \"program\": \"0\", \"birth\": 0, \"channel\": 0, \"scoreboard\": 0, \
             \"handoff\": 0}}\\n' % ({pid}, os.getppid())"
        )
    };
    for (seals, header, why) in [
        ("7", header("os.getpid()"), "it is no sealed file in memory"),
        ("15", "'{}'".into(), "this is not the state of a worker"),
        ("15", header("1"), "the state is that of process 1"),
        ("15", header("os.getpid()"), "upgrade the running server (SIGUSR2)"),
    ] {
        refused(Server::new("probe").launcher([python.as_str(), "-c", &script(seals, &header)]), why);
    }
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn another_environment_is_refused_and_one_that_is_only_active_is_told_of() {
    let server = Server::new("probe");
    let other = server.temp().join("other");
    venv::bare(&venv::base_python(), &other);
    let other = other.display().to_string();
    let ended = server.options(["--venv", &other]).run_to_end();
    ended.failed(EXIT_BOOT, &["is not where this tapster is installed", &format!("{other}/bin/tapster")]);
    let server = Server::new("probe").env("VIRTUAL_ENV", "/elsewhere").start();
    server.log().wait(&["the active virtual environment /elsewhere is not used"]);
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn coverage_finds_no_file_of_the_server_to_ask_for() {
    let server = Server::source(
        "import sys, threading\n\
         seen = set()\n\
         def trace(frame, event, arg):\n    seen.add(frame.f_code.co_filename)\n\
         def application(environ, start_response):\n    \
         start_response('200 OK', [])\n    \
         import os\n    \
         os.fork() or os._exit(0)\n    \
         os.wait()\n    \
         return ['\\n'.join(sorted(seen)).encode()]\n\
         sys.setprofile(trace)\n",
    );
    let server = server.start();
    server.get("/");
    let files = server.get("/").text();
    let missing: Vec<&str> =
        files.lines().filter(|file| !file.starts_with('<') && !PathBuf::from(file).is_file() && *file != "app.py").collect();
    assert_eq!(missing, Vec::<&str>::new(), "{files}");
    assert!(files.contains("<tapster children>"), "{files}");
    server.stop();
}

/// What is printed by the Python of the environment for this code.
fn asked(code: &str) -> PathBuf {
    let mut python = Command::new(environment().join("bin/python"));
    PathBuf::from(tools::run(python.args(["-c", code]), SOON).succeeded().stdout.trim())
}

/// A server whose workers are to become another user, started by this interpreter, which root can start.
fn of_another_user(python: &Path, server: Server) -> Server {
    let packages = asked("import tapster, os; print(os.path.dirname(os.path.dirname(tapster.__file__)))");
    let libraries = asked("import sysconfig; print(sysconfig.get_config_var('LIBDIR'))");
    let server = server.launcher([python.to_str().unwrap(), "-m"]).program("tapster".as_ref());
    let server = server.env("PYTHONPATH", packages.display().to_string());
    server.env("LD_LIBRARY_PATH", libraries.display().to_string()).options(["--user", "4242", "--group", "4242"])
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn an_interpreter_that_the_user_cannot_reach_is_named_with_the_directory_that_is_closed() {
    if !geteuid().is_root() {
        return tools::skip("only root can become another user");
    }
    let server = Server::new("probe");
    common::user::open_to_all(server.temp());
    let closed = server.temp().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    venv::bare(&venv::base_python(), &closed.join("venv"));
    let ended = of_another_user(&closed.join("venv/bin/python"), server).run_to_end();
    let closed = closed.display();
    ended.failed(EXIT_BOOT, &[&format!("user 4242 cannot enter {closed} (mode 0700, owner 0)"), &format!("chmod o+x {closed}")]);
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_relocated_python_whose_library_the_user_cannot_read_is_named_with_it() {
    if !geteuid().is_root() {
        return tools::skip("only root can become another user");
    }
    let relocated = |place: &Path| {
        let (closed, python) = (place.join("closed"), place.join("python"));
        fs::create_dir_all(python.join("bin")).unwrap();
        fs::create_dir(python.join("lib")).unwrap();
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        let library = asked("import sysconfig; print(sysconfig.get_path('stdlib'))");
        let name = library.file_name().unwrap();
        std::os::unix::fs::symlink(&library, closed.join(name)).unwrap();
        std::os::unix::fs::symlink(closed.join(name), python.join("lib").join(name)).unwrap();
        let executable = asked("import os, sys; print(os.path.realpath(sys.executable))");
        fs::copy(executable, python.join("bin/python3")).unwrap();
        common::user::open_to_all(place);
        python.join("bin/python3")
    };
    // The library of an interpreter that only root can reach is closed too, and is looked at first.
    let libraries = fs::metadata("/root").is_ok_and(|root| root.mode() & 0o1 == 0)
        && asked("import sysconfig; print(sysconfig.get_config_var('LIBDIR'))").starts_with("/root");
    for option in [None, Some("--check-config")] {
        let server = Server::new("probe").options(option);
        let closed = if libraries && option.is_none() { PathBuf::from("/root") } else { server.temp().join("closed") };
        let python = relocated(server.temp());
        let ended = of_another_user(&python, server).run_to_end();
        let (closed, parts) =
            (closed.display(), ["on the way to ", "install Python and its packages where that user may read them"]);
        ended.failed(EXIT_BOOT, &[&format!("user 4242 cannot enter {closed} ("), parts[0], parts[1]]);
    }
}

/// The program of a measuring agent in its own environment, which has the package too; `None` when the test is skipped.
fn agent(name: &str) -> Option<PathBuf> {
    let program = std::env::var_os(AGENTS).map(|venv| PathBuf::from(venv).join("bin").join(name));
    let program = program.filter(|program| program.is_file());
    if program.is_none() {
        tools::skip(&format!("{AGENTS} has no {name}"));
    }
    program
}

#[track_caller]
fn lives_under(program: &str, words: &[&str], module: &str) {
    let Some(program) = agent(program) else { return };
    let tapster = program.with_file_name("tapster");
    let mut launcher = vec![program.display().to_string()];
    launcher.extend(words.iter().map(|word| (*word).to_owned()));
    let server = Server::source(MIRROR).workers(2).launcher(launcher).program(&tapster);
    // None of them can reach its collector here.
    let server = server.env("OTEL_TRACES_EXPORTER", "none").env("OTEL_METRICS_EXPORTER", "none");
    let server =
        server.env("OTEL_LOGS_EXPORTER", "none").env("DD_TRACE_ENABLED", "false").env("DD_REMOTE_CONFIGURATION_ENABLED", "0");
    let server = server.env("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "0").env("NEW_RELIC_MONITOR_MODE", "false");
    let server = server.env("NEW_RELIC_LOG", "stderr").env("NEW_RELIC_LICENSE_KEY", "0".repeat(40));
    let server = server.start();
    let seen = server.get("/").json();
    let loaded = seen["loaded"].as_array().unwrap();
    assert!(loaded.iter().any(|name| name.as_str().is_some_and(|name| name.split('.').next() == Some(module))), "{loaded:?}");
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().count();
    assert_eq!(tasks, 1, "the agent's threads are not in the master");
    assert!(!maps(server.pid()).contains("lib-dynload"));
    lives(server);
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn opentelemetry_measures_workers_and_leaves_the_master_alone() {
    lives_under("opentelemetry-instrument", &[], "opentelemetry");
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn ddtrace_measures_workers_and_leaves_the_master_alone() {
    lives_under("ddtrace-run", &[], "ddtrace");
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn newrelic_measures_workers_and_leaves_the_master_alone() {
    lives_under("newrelic-admin", &["run-program"], "newrelic");
}

/// A launcher for root: a server in surroundings of its own.
fn surroundings<const N: usize>(program: &str, words: [&str; N]) -> Option<Vec<String>> {
    if !geteuid().is_root() {
        tools::skip("only root can make such surroundings");
        return None;
    }
    let program = tools::tool(program)?;
    Some(std::iter::once(program.display().to_string()).chain(words.map(str::to_owned)).collect())
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn any_uid_without_a_home_serves() {
    let words = ["--reuid", "1000610000", "--regid", "0", "--clear-groups", "env", "-u", "HOME"];
    let Some(launcher) = surroundings("setpriv", words) else { return };
    let python = environment().join("bin/python");
    let started = Command::new(&launcher[0]).args(&launcher[1..]).arg(&python).args(["-c", ""]).output();
    if !started.is_ok_and(|output| output.status.success()) {
        // The second Python of scripts/test-wheel is one that everybody may start.
        eprintln!("SKIPPED: other users cannot execute {}", python.display());
        return;
    }
    let server = Server::source(MIRROR);
    common::user::open_to_all(server.temp());
    let server = server.launcher(launcher).start();
    assert_eq!(server.get("/").json()["uid"], 1_000_610_000);
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_read_only_root_and_no_place_for_files_serves() {
    let script = "mount --make-rprivate / && mount -o remount,bind,ro / && exec \"$@\"";
    let Some(launcher) = surroundings("unshare", ["--mount", "--", "sh", "-c", script, "sh"]) else { return };
    let server = Server::source(MIRROR).workers(2).launcher(launcher).start();
    assert!(fs::write(server.temp().join("x"), "").is_ok(), "the test's own root is as it was");
    assert_eq!(server.get("/").status, 200);
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for_end_of(&old);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn process_1_of_a_container_serves_and_waits_for_orphans() {
    // The server replaces the shell, which is process 1 of its namespace.
    let script = "mount -t proc proc /proc && exec \"$@\"";
    let words = ["--pid", "--fork", "--mount", "--kill-child=KILL", "--", "sh", "-c", script, "sh"];
    let Some(launcher) = surroundings("unshare", words) else { return };
    let mut server = Server::source(MIRROR).workers(2).launcher(launcher).start();
    assert_eq!(server.get("/").status, 200);
    let master = procfs::children(server.pid())[0];
    assert_eq!(procfs::children(master).len(), 2);
    common::server::signal_to(master, Signal::SIGTERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_worker_that_is_replaced_is_of_the_release_of_its_generation() {
    let server = Server::source(MIRROR);
    let site = server.temp().to_owned();
    let switch = |number: usize| {
        std::os::unix::fs::symlink(format!("release-{number}"), site.join("new")).unwrap();
        fs::rename(site.join("new"), site.join("current")).unwrap();
    };
    for number in [1, 2] {
        let release = site.join(format!("release-{number}"));
        fs::create_dir(&release).unwrap();
        fs::copy(site.join("app.py"), release.join("app.py")).unwrap();
        std::os::unix::fs::symlink(environment(), release.join("venv")).unwrap();
    }
    switch(1);
    let python = site.join("current/venv/bin/python").display().to_string();
    let server = server.dir(&site.join("current")).env("PWD", site.join("current").display().to_string());
    let server = server.launcher([python.as_str(), "-m"]).program("tapster".as_ref()).start();
    let release_of = |server: &Running| {
        let executable = server.get("/").json()["executable"].as_str().unwrap().to_owned();
        executable.strip_prefix(site.to_str().unwrap()).unwrap().split('/').nth(1).unwrap().to_owned()
    };
    switch(2);
    let old = server.workers();
    common::server::signal_to(old[0], Signal::SIGKILL);
    server.wait_for_end_of(&old);
    assert_eq!(release_of(&server), "release-1");
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for_end_of(&old);
    assert_eq!(release_of(&server), "release-2");
    let mut server = server;
    server.expect_error("SIGKILL");
    server.stop();
}
