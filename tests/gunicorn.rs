//! What users of gunicorn type: its flags, its files, its variables. Files are executed by a process of their own.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use tapster::config::gunicorn::{self, SETTINGS};
use tapster::config::options::{self, ValueKind};

use common::server::{Ended, Server, binary};
use common::{SOON, user, venv, wait_for};

const USAGE: i32 = 2;

/// Every setting of gunicorn with its flags; one that takes a value ends in `=`.
fn settings() -> Vec<(&'static str, Vec<&'static str>)> {
    let lines = include_str!("gunicorn/settings.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').collect::<Vec<_>>()).map(|words| (words[0], words[1..].to_vec())).collect()
}

/// The program in an empty directory, with no environment but the given one.
fn tapster(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(environment.iter().copied()).current_dir(directory.path());
    command.output().expect("the program starts")
}

/// A server for a small application and a gunicorn file beside it.
fn server(file: &str) -> Server {
    let server = Server::source(
        "import os\n\
         def application(environ, start_response):\n    \
         start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
         return [os.environ.get('WHO', 'nobody').encode()]\n",
    );
    fs::write(server.temp().join("gunicorn.conf.py"), file).expect("the directory is writable");
    server.workers_by_default()
}

/// What `--print-config` prints with this file and these options.
#[track_caller]
fn printed(file: &str, options: &[&str], environment: &[(&str, &str)]) -> String {
    let mut server = server(file).options(options.iter().copied()).options(["--print-config"]);
    for (name, value) in environment {
        server = server.env(name, value);
    }
    let Ended { code, stdout, stderr, .. } = server.run_to_end();
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

#[track_caller]
fn has(config: &str, line: &str) {
    assert!(config.lines().any(|other| other == line), "{line:?} is not in\n{config}");
}

#[test]
fn the_table_has_every_setting_of_gunicorn() {
    let settings = settings();
    assert_eq!(settings.len(), 120);
    for (name, flags) in &settings {
        let setting = SETTINGS.iter().find(|setting| setting.name == *name).unwrap_or_else(|| panic!("{name} is missing"));
        for flag in flags {
            let (flag, valued) = flag.strip_suffix('=').map_or((*flag, false), |flag| (flag, true));
            let Some(long) = flag.strip_prefix("--") else {
                let short = flag.chars().nth(1);
                assert!(setting.short == short || setting.option().is_some_and(|option| option.short == short), "{name} {flag}");
                continue;
            };
            let option = options::find(long).or_else(|| gunicorn::find(long)?.option());
            assert!(setting.flags.contains(&long) || option.is_some() && option == setting.option(), "{name} {flag}");
            match option {
                Some(option) => {
                    let stands_alone = matches!(option.kind, ValueKind::Flag | ValueKind::Switch) || option.bare.is_some();
                    assert!(valued != stands_alone || option.bare.is_some(), "{name} {flag}");
                }
                None => assert_eq!(setting.switch, !valued, "{name} {flag}"),
            }
        }
    }
    assert_eq!(SETTINGS.len(), settings.len(), "the table has more");
}

#[test]
fn no_flag_of_gunicorn_is_taken_for_another_option() {
    for (name, flags) in settings() {
        if ["config", "print_config", "check_config"].contains(&name) {
            continue;
        }
        for flag in flags {
            let args = match flag.strip_suffix('=') {
                Some(flag) => vec![flag, "1"],
                None => vec![flag],
            };
            let output = tapster(&[&args[..], &["--print-config"]].concat(), &[]);
            let message = String::from_utf8_lossy(&output.stderr);
            for word in ["did you mean", "no such option", "is short for", "a value is missing"] {
                assert!(!message.contains(word), "{args:?}: {message}");
            }
            assert!(output.status.success() || message.contains(": ") && message.lines().count() == 1, "{args:?}: {message}");
        }
    }
}

#[test]
fn a_file_is_read_by_default_and_its_values_have_their_lines() {
    let config = printed(
        "import multiprocessing, os, sys\n\
         bind = ['127.0.0.1:0', 'unix:/tmp/x.sock']\n\
         workers = multiprocessing.cpu_count() * 2 + 1\n\
         if True:\n    \
         threads = int(os.environ.get('THREADS', '1'))\n\
         worker_class = 'gthread'\n\
         keepalive = 65\n\
         accesslog = '-'\n\
         errorlog = None\n\
         loglevel = 'warn'\n\
         raw_env = ['A=b=c', f'WHERE={__file__}']\n\
         proc_name = sys.argv[-1]\n\
         umask = 0o027\n\
         preload_app = True\n\
         worker_clas = 3\n\
         cores = 8\n\
         app = env = object()\n",
        &["--bind", "127.0.0.1:1"],
        &[("THREADS", "7")],
    );
    for line in [
        "# configuration of gunicorn: gunicorn.conf.py",
        "# worker_clas (file gunicorn.conf.py line 15) is no setting and counts as a variable; did you mean worker_class?",
        "threads = 7  # file gunicorn.conf.py line 5",
        "keep_alive = 65  # file gunicorn.conf.py line 7",
        "access_logfile = \"-\"  # file gunicorn.conf.py line 8",
        "error_logfile = \"-\"  # default",
        "log_level = \"warn\"  # file gunicorn.conf.py line 10",
        "umask = \"27\"  # file gunicorn.conf.py line 13",
        "name = \"--print-config\"  # file gunicorn.conf.py line 12",
        "preload = true  # file gunicorn.conf.py line 14",
        "app = \"app\"  # command line",
    ] {
        // The harness puts the application last.
        has(&config.replace("name = \"app\"", "name = \"--print-config\""), line);
    }
    assert!(config.contains("/gunicorn.conf.py\"]  # file gunicorn.conf.py line 11"), "{config}");
    assert!(config.contains("# worker_class = gthread (file gunicorn.conf.py line 6): "), "{config}");
    assert!(!config.contains("cores") && !config.contains("# env = "), "{config}");
}

#[test]
fn where_a_file_of_gunicorn_says_nothing_of_workers_there_is_one() {
    let file = "threads = 2\n";
    let config = printed(file, &[], &[]);
    has(&config, "workers = 1  # default of gunicorn");
    assert!(config.contains("# --workers is not given: 1, as gunicorn has it"), "{config}");
    let config = printed(file, &[], &[("WEB_CONCURRENCY", "3")]);
    has(&config, "workers = 3  # environment WEB_CONCURRENCY");
    assert!(!config.contains("as gunicorn has it"), "{config}");
    has(&printed(file, &["-w", "auto"], &[]), "workers = \"auto\"  # command line");
    // The program is called by its own name, and there is no file.
    let output = tapster(&["--print-config"], &[]);
    has(&String::from_utf8_lossy(&output.stdout), "workers = \"auto\"  # default");
}

#[test]
fn later_sources_win() {
    let file = "workers = 2\nthreads = 2\nbacklog = 2\ntimeout = 2\n";
    let environment = [
        ("WEB_CONCURRENCY", "9"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.9"),
        ("GUNICORN_CMD_ARGS", "--threads 3 --backlog=3 --timeout 3 -e 'A=b c'"),
        ("TAPSTER_BACKLOG", "4"),
        ("TAPSTER_TIMEOUT", "4"),
    ];
    let config = printed(file, &["--timeout", "5"], &environment);
    for line in [
        "forwarded_allow_ips = \"10.0.0.9\"  # environment FORWARDED_ALLOW_IPS",
        "workers = 2  # file gunicorn.conf.py line 1",
        "threads = 3  # environment GUNICORN_CMD_ARGS",
        "env = [\"A=b c\"]  # environment GUNICORN_CMD_ARGS",
        "backlog = 4  # environment TAPSTER_BACKLOG",
        "timeout = 5  # command line",
    ] {
        has(&config, line);
    }
}

#[test]
fn port_is_an_address_for_everybody_unless_something_else_says_where() {
    let config = |args: &[&str]| {
        let output = tapster(&[args, &["--print-config"]].concat(), &[("PORT", "8123"), ("WEB_CONCURRENCY", "3")]);
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    has(&config(&[]), "bind = [\"0.0.0.0:8123\"]  # environment PORT");
    has(&config(&[]), "workers = 3  # environment WEB_CONCURRENCY");
    has(&config(&["-b", ":1"]), "bind = [\":1\"]  # command line");
}

#[test]
fn gunicorns_variable_is_read_where_gunicorn_is_meant() {
    let variable = [("GUNICORN_CMD_ARGS", "--workers 3 --preload")];
    let output = tapster(&["--print-config"], &variable);
    let config = String::from_utf8_lossy(&output.stdout);
    assert!(config.starts_with("# GUNICORN_CMD_ARGS (environment) is not read: "), "{config}");
    has(&config, "workers = \"auto\"  # default");

    let directory = tempfile::tempdir().expect("a directory");
    let link = directory.path().join("gunicorn");
    std::os::unix::fs::symlink(binary(), &link).expect("a link can be made");
    let called = |arguments: &str| {
        let mut command = Command::new(&link);
        command.arg("--print-config").env_clear().env("GUNICORN_CMD_ARGS", arguments).current_dir(directory.path());
        command.output().expect("the program starts")
    };
    let config = String::from_utf8(called("--workers 3 --preload").stdout).expect("UTF-8");
    has(&config, "workers = 3  # environment GUNICORN_CMD_ARGS");
    has(&config, "preload = true  # environment GUNICORN_CMD_ARGS");
    for (arguments, message) in [
        ("--workers many", "--workers many (environment GUNICORN_CMD_ARGS): must be a whole number"),
        ("--wrokers 3", "--wrokers (environment GUNICORN_CMD_ARGS): no such option"),
        ("-k tornado", "--worker-class tornado (environment GUNICORN_CMD_ARGS): runs Tornado's loop"),
        ("-n 'x", "GUNICORN_CMD_ARGS (environment): a quotation does not end"),
    ] {
        let output = called(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(USAGE) && text.starts_with(&format!("tapster: {message}")), "{text}");
    }
}

#[test]
fn modules_and_files_without_an_ending_are_configuration_too() {
    let server = |config: &str, name: &str| {
        let server = server("raise RuntimeError('not this one')\n").options(["--config", config, "--print-config"]);
        fs::create_dir_all(server.temp().join("shop")).expect("writable");
        fs::write(server.temp().join(name), "workers = 3\n").expect("writable");
        let ended = server.run_to_end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout
    };
    has(&server("python:shop.gunicorn", "shop/gunicorn.py"), "workers = 3  # file python:shop.gunicorn line 1");
    has(&server("file:gunicorn", "gunicorn"), "workers = 3  # file gunicorn line 1");
    has(&server("other.toml", "other.toml"), "workers = 3  # file other.toml line 1");
}

#[test]
fn a_file_that_cannot_be_used_is_refused_before_anything_is_bound() {
    for (file, parts) in [
        (
            "import os\nworkers = 1 / 0\n",
            &[
                "configuration file gunicorn.conf.py: raises an exception\nTraceback (most recent call last):\n",
                "line 2, in <module>",
                "ZeroDivisionError: division by zero",
            ][..],
        ),
        ("def f(:\n", &["SyntaxError"]),
        (
            "import os\nos._exit(3)\n",
            &["configuration file gunicorn.conf.py: its process ended without an answer: exit status: 3"],
        ),
        ("worker_class = 'tornado'\n", &["worker_class = tornado (file gunicorn.conf.py line 1): runs Tornado's loop"]),
        ("workers = 'many'\n", &["workers = many (file gunicorn.conf.py line 1): must be a whole number"]),
        ("bind = 80\n", &["bind = 80 (file gunicorn.conf.py line 1): must be a string or a list of strings"]),
        ("logger_class = type('L', (), {})\n", &["logger_class = ", "no Python code runs for a line of the log"]),
        ("bind = 'x' * 2**21\n", &["its settings are more than 1048576 bytes"]),
    ] {
        let ended = server(file).run_to_end();
        ended.failed(USAGE, parts);
        assert!(!ended.stderr.contains("<tapster") && !ended.stderr.contains("frozen"), "{}", ended.stderr);
    }
}

#[test]
fn the_application_is_served_by_the_files_settings() {
    let file = "import os, threading, time\n\
                print('words of the file')\n\
                raw_env = ['WHO=file']\n\
                workers = 2\n\
                worker_class = 'sync'\n\
                accesslog = 'access.log'\n\
                threading.Thread(target=time.sleep, args=(600,)).start()\n\
                def dirty_post_fork(arbiter, worker):\n    pass\n";
    let server = server(file).start();
    assert_eq!(server.get("/").text(), "file");
    assert_eq!(server.workers().len(), 2);
    assert!(server.temp().join("access.log").exists());
    assert!(server.log().find(&["INFO configuration of gunicorn: gunicorn.conf.py"]).is_some());
    assert!(server.log().find(&["INFO worker_class = sync (file gunicorn.conf.py line 5): "]).is_some());
    assert!(server.log().find(&["WARNING gunicorn.conf.py defines functions that are not called: dirty_post_fork"]).is_some());
    assert!(!server.stdout().contains("words of the file"), "standard output is the access log's");
    server.stop();
}

#[test]
fn a_reload_executes_the_file_again_and_a_broken_one_changes_nothing() {
    let mut server = server("raw_env = ['WHO=first']\nworkers = 1\n").start();
    let write = |text: &str| fs::write(server.temp().join("gunicorn.conf.py"), text).expect("writable");
    let old = server.workers();
    write("raw_env = ['WHO=second']\nworkers = 1\n");
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload done"]);
    server.wait_for_end_of(&old);
    assert_eq!(server.get("/").text(), "second");
    write("import os\nraise RuntimeError('broken on purpose')\n");
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload failed, generation 2 keeps serving", "RuntimeError: broken on purpose"]);
    assert_eq!(server.get("/").text(), "second");
    server.expect_error("reload failed");
    server.stop();
}

#[test]
fn root_executes_no_file_of_others() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let open = |file: &str| {
        let server = server(file);
        fs::set_permissions(server.temp(), fs::Permissions::from_mode(0o755)).expect("our directory");
        fs::set_permissions(server.temp().join("gunicorn.conf.py"), fs::Permissions::from_mode(0o666)).expect("our file");
        server
    };
    let ended = open("import os\nworkers = os.getpid()\n").run_to_end();
    ended.failed(USAGE, &["is not executed by root, because others can write to /", "give --user on the command line"]);
    let Some(other) = user::other() else { return };
    let name = user::NAME;
    let open = |file: &str| match other.python_home() {
        Some(home) => open(file).env("PYTHONHOME", home.to_str().expect("UTF-8")),
        None => open(file),
    };
    let ended =
        open("import os\nworkers = 1\nproc_name = str(os.geteuid())\n").options(["--user", name, "--print-config"]).run_to_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stdout.contains("name = \"0\""), "{}", ended.stdout);
    let ended = open("pidfile = '/run/x.pid'\n").options(["--user", name]).run_to_end();
    ended.failed(USAGE, &["pid = /run/x.pid (file gunicorn.conf.py line 1): root acts on it, and others can write to /"]);
}

#[test]
fn root_executes_no_file_where_others_can_put_a_module() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let open = |file: &str| {
        let server = server(file);
        let path = server.temp().join("open");
        fs::create_dir(&path).expect("our directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("our directory");
        fs::write(path.join("theirs.py"), "import os\nos._exit(7)\n").expect("our directory");
        let path = path.to_str().expect("UTF-8").to_owned();
        (server, path)
    };
    let (server, path) = open("import theirs\n");
    let refused = format!("is not executed by root, because others can write to {path}, and code would come from there");
    server.options(["--pythonpath", &path]).run_to_end().failed(USAGE, &[&refused]);
    let (server, path) = open("import theirs\n");
    let refused = format!("is not executed by root, because others can write to {path}, ");
    server.env("PYTHONPATH", &path).run_to_end().failed(USAGE, &[&refused]);
    // Where the server is started, modules are looked for first.
    let (server, path) = open("");
    let file = server.temp().join("gunicorn.conf.py");
    let output =
        Command::new(binary()).arg("-c").arg(&file).arg("--print-config").current_dir(&path).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(USAGE), "{stderr}");
    assert!(stderr.contains(&format!("because others can write to {path}, ")), "{stderr}");
}

#[test]
fn the_application_sees_the_whole_command() {
    let server = Server::source(
        "import sys\n\
         def application(environ, start_response):\n    \
         start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [repr(sys.argv[1:]).encode()]\n",
    )
    .options(["--name", "ü b"])
    .start();
    let argv = server.get("/").text();
    assert!(argv.starts_with("['--bind', ") && argv.ends_with("'--name', 'ü b', 'app']"), "{argv}");
    server.stop();
}

#[test]
fn coverage_of_an_application_knows_its_files_only() {
    let server = Server::source(
        "import atexit, coverage\n\
         cover = coverage.Coverage(data_file='data')\n\
         cover.start()\n\
         import logging\n\
         logging.getLogger('gunicorn.error').error('an error')\n\
         def application(environ, start_response):\n    \
         start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [b'ok']\n\
         def end():\n    cover.stop()\n    cover.save()\n\
         atexit.register(end)\n",
    )
    .frameworks()
    .expect_error("an error")
    .start();
    let directory = server.temp().to_owned();
    assert_eq!(server.get("/").text(), "ok");
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload done"]);
    let report =
        Command::new(venv::python()).args(["-m", "coverage", "report", "--data-file", "data"]).current_dir(&directory).output();
    let report = report.expect("coverage can be run");
    let text = String::from_utf8_lossy(&report.stdout);
    assert!(report.status.success(), "{text}{}", String::from_utf8_lossy(&report.stderr));
    assert!(text.contains("app.py") && !text.contains("tapster"), "{text}");
    server.stop();
}

#[test]
fn a_missing_module_names_the_environment_that_is_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let environment = directory.path().join("venv");
    venv::bare(&venv::base_python(), &environment);
    let path = format!("{}:/usr/bin:/bin", environment.join("bin").to_str().expect("UTF-8"));
    let hint = format!("which is not used: add --venv {}", environment.display());
    let server = || Server::source("import no_such_module_x\n").env("PATH", &path);
    server().run_to_end().failed(4, &["No module named 'no_such_module_x'", &hint]);
    let ended = server().options(["--venv", environment.to_str().expect("UTF-8")]).run_to_end();
    assert!(!ended.failed(4, &["No module named"]).stderr.contains("not used"), "{}", ended.stderr);
    let ended = server().env("PATH", "/nonexistent").run_to_end();
    assert!(!ended.failed(4, &["No module named"]).stderr.contains("not used"), "{}", ended.stderr);
}

#[test]
fn nothing_that_a_file_starts_keeps_it_or_outlives_it() {
    let file = "import os, subprocess, time\n\
                pids = [subprocess.Popen(['sleep', '600']).pid, os.fork()]\n\
                if pids[1] == 0:\n    \
                time.sleep(600)\n\
                open('pids', 'w').write(' '.join(map(str, pids)))\n\
                workers = 1\n";
    let server = server(file).start();
    let pids = fs::read_to_string(server.temp().join("pids")).expect("the file was executed");
    for pid in pids.split(' ') {
        let pid: i32 = pid.parse().expect("a number");
        wait_for("the end of what the file has started", SOON, || {
            // A zombie of another parent has no command.
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.is_empty().then_some(())
        });
    }
    server.stop();
}

#[test]
fn the_names_of_files_are_answered_with_their_flags() {
    for (wrong, right) in [("--worker_class", "--worker-class"), ("--loglevel=debug", "--log-level"), ("--raw_env=A=1", "--env")]
    {
        let output = tapster(&[wrong, "app"], &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(USAGE), "{stderr}");
        assert!(stderr.contains(&format!("did you mean {right}?")), "{stderr}");
    }
}
