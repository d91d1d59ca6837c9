//! The command line of the real binary: usage errors, --help, --version, --print-config. What the options do is tested elsewhere.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Output};

use tapster::config::options::Section;

const USAGE: i32 = 2;

/// The binary with no environment but the given one.
fn tapster(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapster"));
    command.args(args).env_clear().envs(environment.iter().copied()).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is UTF-8")
}

/// Asserts a usage error and returns its one line.
#[track_caller]
fn refused(output: Output) -> String {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(USAGE), "{message}");
    assert_eq!(text(&output.stdout), "");
    assert!(message.starts_with("tapster: ") && message.ends_with('\n') && message.lines().count() == 1, "{message}");
    message.trim_end().trim_start_matches("tapster: ").into()
}

#[track_caller]
fn printed(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

#[test]
fn usage_errors_say_what_where_and_why_on_one_line() {
    for (args, message) in [
        (
            &["-b", "127.0.0.1:99999"][..],
            "--bind 127.0.0.1:99999 (command line): the port must be 0 to 65535, 0 letting the kernel choose",
        ),
        (&["--wrokers", "3"], "--wrokers (command line): no such option; did you mean --workers?"),
        (&["--time", "3"], "--time (command line): is short for more than one option; write --timeout or --timeout-grace"),
        (&["--host", "0.0.0.0"], "--host (command line): no such option; write --bind HOST:PORT"),
        (&["--port=8000"], "--port (command line): no such option; write --bind HOST:PORT"),
        (&["--no-such-thing"], "--no-such-thing (command line): no such option; 'tapster --help' lists them all"),
        (&["-x"], "-x (command line): no such option; 'tapster --help' lists them all"),
        (&["--workers", "-1"], "--workers -1 (command line): must be a whole number from 1 to 4096, or auto"),
        (&["--workers="], "--workers \"\" (command line): must be a whole number from 1 to 4096, or auto"),
        (&["-w"], "--workers (command line): a value is missing; write --workers N"),
        (&["-w", "--bind", ":1"], "--workers (command line): a value is missing; write --workers N"),
        (&["-w", "1", "-w", "2"], "--workers (command line): is given twice; leave one out"),
        (&["--check-config=1"], "--check-config (command line): takes no value"),
        (&["--check-config", "--print-config"], "--check-config and --print-config (command line): give one of them"),
        (&["a:app", "b"], "b (command line): one APP is enough; quote it for the shell if it has blanks"),
        (&["a:"], "APP a: (command line): the callable is missing behind the colon; name it, or leave the colon out"),
        (&["-b", ":80", "-b", ":80"], "--bind :80 (command line): is given twice; leave one out"),
        (
            &["--proxy-protocol", "app:app"],
            "--proxy-protocol app:app (command line): must be off, v1, v2 or auto (if app:app is the application, put it first or \
             give --proxy-protocol=auto app:app)",
        ),
        (&["app:app", "--proxy-protocol", "v3"], "--proxy-protocol v3 (command line): must be off, v1, v2 or auto"),
        (&["--config", "no/such.toml"], "--config no/such.toml (command line): cannot be read: no such file or directory"),
    ] {
        assert_eq!(refused(tapster(args, &[])), message);
    }
}

#[test]
fn an_argument_that_is_not_utf8_is_refused() {
    let bytes = |b: &[u8]| OsString::from_vec(b.to_vec());
    for args in [vec![bytes(b"a\xff")], vec!["-e".into(), bytes(b"A=\xff")], vec![bytes(b"--\xff")]] {
        let output = Command::new(env!("CARGO_BIN_EXE_tapster")).args(&args).env_clear().output().expect("the binary starts");
        let message = refused(output);
        assert!(message.contains('\u{fffd}') && message.contains("(command line)"), "{message}");
    }
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tapster.toml");
    let path = path.to_str().expect("a UTF-8 path");
    for (content, message) in [
        ("# c\nwrokers = 3\n", format!("wrokers (file {path} line 2): no such option; did you mean workers?")),
        (
            "\n\nlog_level = 'loud'\n",
            format!("log_level = loud (file {path} line 3): must be debug, info, warning, error or critical"),
        ),
    ] {
        std::fs::write(path, content).expect("the file is written");
        assert_eq!(refused(tapster(&["-c", path], &[])), message);
        assert_eq!(refused(tapster(&[], &[("TAPSTER_CONFIG", path)])), message);
    }
}

#[test]
fn a_mistake_in_the_environment_is_named_with_its_variable() {
    assert_eq!(
        refused(tapster(&["--print-config"], &[("WEB_CONCURRENCY", "many")])),
        "WEB_CONCURRENCY=many (environment): must be a whole number from 1 to 4096, or auto"
    );
}

#[test]
fn version_and_help_go_to_standard_output() {
    for args in [["-V"], ["--version"]] {
        assert_eq!(printed(tapster(&args, &[])), format!("tapster {}\n", env!("CARGO_PKG_VERSION")));
    }
    let help = printed(tapster(&["--help"], &[]));
    assert_eq!(printed(tapster(&["-h"], &[])), help);
    for option in tapster::config::options::TABLE {
        assert!(help.contains(&format!("{}:\n", option.section.heading())), "{option:?}");
        let name = if option.name == "app" { "[APP]".into() } else { format!("--{}", option.name) };
        assert!(help.contains(&name), "{name} is not in --help");
    }
    for line in ["Signals:", "Exit status:", "Examples:", "  tapster app:app "] {
        assert!(help.contains(line), "{line} is not in --help");
    }
}

#[test]
fn help_has_the_sections_in_the_order_of_the_page() {
    let help = printed(tapster(&["--help"], &[]));
    let at = |section: Section| help.find(&format!("\n{}:\n", section.heading())).expect("every section is in --help");
    assert!(Section::ALL.map(at).is_sorted(), "{help}");
}

#[test]
fn help_fits_into_a_narrow_terminal() {
    let help = printed(tapster(&["--help"], &[("COLUMNS", "60")]));
    let options = help.split("Times are").next().expect("a first part");
    assert!(options.lines().all(|line| line.chars().count() <= 60), "{options}");
}

#[test]
fn print_config_shows_each_value_with_its_origin_and_reads_it_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tapster.toml");
    let path = path.to_str().expect("a UTF-8 path");
    std::fs::write(path, "app = 'site:make(\"x\")'\nkeep-alive = '2m'\nworkers = 3\nbind = [':1', ':2']\n").expect("written");
    let environment = [("TAPSTER_KEEP_ALIVE", "1"), ("TAPSTER_BACKLOG", "99"), ("WEB_CONCURRENCY", "7"), ("TAPSTER_BAKLOG", "1")];
    let config = printed(tapster(&["-c", path, "-w", "4", "--print-config", "-e", "A=\"'"], &environment));
    for line in [
        "# TAPSTER_BAKLOG (environment) is ignored: no such option; did you mean TAPSTER_BACKLOG?".to_string(),
        format!("# read from {path}  # command line"),
        format!("app = 'site:make(\"x\")'  # file {path} line 1"),
        "keep_alive = 1  # environment TAPSTER_KEEP_ALIVE".to_string(),
        format!("bind = [\":1\", \":2\"]  # file {path} line 4"),
        "workers = 4  # command line".to_string(),
        "backlog = 99  # environment TAPSTER_BACKLOG".to_string(),
        "header_timeout = \"30s\"  # default".to_string(),
        "# umask is not set  # default".to_string(),
    ] {
        assert!(config.lines().any(|l| l == line), "{line:?} is not in\n{config}");
    }
    let values = |config: &str| -> toml::Table { config.parse().unwrap_or_else(|e| panic!("{e}\n{config}")) };
    std::fs::write(path, &config).expect("written");
    assert_eq!(values(&printed(tapster(&["-c", path, "--print-config"], &[]))), values(&config));
}

#[test]
fn shells_complete_options_and_commands() {
    for (shell, words) in [
        ("bash", &["complete -F _tapster", "--status-bind", "log-level", "--wait"][..]),
        ("zsh", &["#compdef tapster", "--status-bind", "log-level"]),
        ("fish", &["complete -c tapster", "status-bind", "log-level"]),
    ] {
        let script = printed(tapster(&["completions", shell], &[]));
        assert!(words.iter().all(|word| script.contains(word)), "{shell}: {script}");
    }
    let bash = "source <(\"$1\" completions bash) && COMP_WORDS=(tapster rel) COMP_CWORD=1 && _tapster tapster rel tapster && \
                echo \"${COMPREPLY[@]}\"";
    let words = ["-c", bash, "bash", env!("CARGO_BIN_EXE_tapster")];
    assert_eq!(printed(Command::new("bash").args(words).output().expect("bash is there")).trim(), "reload");
    refused(tapster(&["completions", "tcsh"], &[]));
}
