//! The manual page and README.md: their options are those of the table; and the page is clean troff.

use std::fmt::Write;
use std::process::Command;

use tapster::config::gunicorn::{SETTINGS, Setting, Treatment};
use tapster::config::options::{Opt, Section, TABLE, ValueKind};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/tapster.8");
const GATEWAYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/tapster-gateways.7");
const BEGIN: &str = ".\\\" options: generated from the table\n";
const END: &str = ".\\\" options: end\n";

const SIGNALS_BEGIN: &str = ".\\\" signals: generated from the table\n";
const SIGNALS_END: &str = ".\\\" signals: end\n";

const GUNICORN_BEGIN: &str = ".\\\" gunicorn: generated from the table\n";
const GUNICORN_END: &str = ".\\\" gunicorn: end\n";

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const README_BEGIN: &str = "<!-- options: generated from the table -->\n";
const README_END: &str = "<!-- options: end -->\n";

const HINTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/python/tapster/_options.py");
const HINTS_BEGIN: &str = "    # options: generated from the table\n";
const HINTS_END: &str = "    # options: end\n";

/// Set to 1, it makes the first tests write the page and README.md instead of comparing.
const UPDATE: &str = "TAPSTER_UPDATE_MAN";

fn page() -> String {
    std::fs::read_to_string(PAGE).expect("man/tapster.8 is there")
}

/// Sentences that troff prints as they stand, one a line, so that it knows where they end.
fn sentences(text: &str) -> String {
    text.split_inclusive(". ").map(|sentence| escape(sentence.trim_end())).collect::<Vec<_>>().join("\n")
}

/// Text that troff prints as it stands: no escapes, no requests, hyphens that can be copied into a shell.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga").replace('"', "\\(dq");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn heading(option: &Opt) -> String {
    if option.kind == ValueKind::Positional {
        return format!("\\fI{}\\fR", escape(option.value));
    }
    let short = option.short.map(|c| format!("\\-{c}")).into_iter();
    let long = std::iter::once(&option.name).chain(option.aliases).map(|name| format!("\\-\\-{}", escape(name)));
    let names: Vec<String> = short.chain(long).map(|name| format!("\\fB{name}\\fR")).collect();
    let value = match (option.value, option.bare) {
        ("", _) => String::new(),
        (value, Some(_)) if !option.equals => format!(" [\\fI{}\\fR]", escape(value)),
        (value, Some(_)) => format!("[=\\fI{}\\fR]", escape(value)),
        (value, None) => format!(" \\fI{}\\fR", escape(value)),
    };
    format!("{}{value}", names.join(", "))
}

fn options() -> String {
    let mut out = String::new();
    for section in Section::ALL {
        writeln!(out, ".SS {}", section.heading()).expect("a String takes all");
        for option in TABLE.iter().filter(|option| option.section == section) {
            writeln!(out, ".TP\n{}\n{}", heading(option), sentences(option.help)).expect("a String takes all");
            if let Some(bare) = option.bare {
                writeln!(out, "Without a value it is \\fB{}\\fR.", escape(bare)).expect("a String takes all");
            }
            if let Some(default) = option.default.filter(|_| option.kind != ValueKind::Flag) {
                writeln!(out, "The default is \\fB{}\\fR.", escape(default)).expect("a String takes all");
            }
            if let Some(variable) = option.foreign_help() {
                writeln!(out, "Also read from \\fB{}\\fR.", escape(&variable)).expect("a String takes all");
            }
        }
    }
    out
}

fn bold(name: &str) -> String {
    format!("\\fB{}\\fR", escape(name))
}

/// Settings that are options of another name.
fn renamed() -> String {
    let options = SETTINGS.iter().filter_map(|setting| Some((setting, setting.option()?)));
    let renamed = options.filter(|(setting, option)| setting.name != option.name.replace('-', "_"));
    let renamed = renamed.map(|(setting, option)| {
        format!(
            "{} is {}",
            bold(setting.name),
            match option.kind {
                ValueKind::Positional => format!("\\fI{}\\fR", option.value),
                _ => bold(&format!("--{}", option.name)),
            }
        )
    });
    renamed.collect::<Vec<_>>().join(",\n")
}

/// What becomes of gunicorn's settings, in groups.
fn gunicorn() -> String {
    let mut out = format!(".SS The same under another name in files\n{}.\n", renamed());
    let mut group = |heading: &str, rows: Vec<(String, &str)>| {
        writeln!(out, ".SS {heading}").expect("a String takes all");
        for (names, text) in rows {
            writeln!(out, ".TP\n{names}").expect("a String takes all");
            if !text.is_empty() {
                let mut text = text.to_owned();
                text[..1].make_ascii_uppercase();
                writeln!(out, "{}.", sentences(&text)).expect("a String takes all");
            }
        }
    };
    let names = |setting: &Setting| {
        let flags = setting.flags.iter().map(|flag| format!("--{flag}"));
        let short = setting.short.map(|c| format!("-{c}"));
        std::iter::once(setting.name.to_owned()).chain(short).chain(flags).map(|name| bold(&name)).collect::<Vec<_>>().join(", ")
    };
    // Settings with one answer stand together.
    let told = |wanted: fn(&Treatment) -> Option<&'static str>| {
        let mut rows: Vec<(String, &str)> = Vec::new();
        for setting in SETTINGS {
            let Some(text) = wanted(&setting.treatment) else { continue };
            match rows.iter_mut().find(|(_, other)| *other == text) {
                Some((all, _)) => *all += &format!(", {}", names(setting)),
                None => rows.push((names(setting), text)),
            }
        }
        rows
    };
    group(
        "Accepted, and told",
        told(|treatment| match treatment {
            Treatment::Told(text) | Treatment::Missed(text) => Some(text),
            _ => None,
        }),
    );
    group(
        "Accepted or refused by their value",
        told(|treatment| match treatment {
            Treatment::Judged { about, .. } => Some(about),
            _ => None,
        }),
    );
    group(
        "Refused",
        told(|treatment| match treatment {
            Treatment::Refused(text) => Some(text),
            _ => None,
        }),
    );
    out
}

#[test]
fn the_page_has_the_settings_of_gunicorn() {
    generated(PAGE, GUNICORN_BEGIN, GUNICORN_END, &gunicorn());
}

fn signals() -> String {
    let mut out = String::new();
    for group in tapster::config::signals::groups() {
        let names: Vec<_> = group.iter().map(|row| format!("\\fB{}\\fR", row.name)).collect();
        let mut text = group[0].text.to_owned();
        text[..1].make_ascii_uppercase();
        writeln!(out, ".TP\n{}\n{}.\n{}", names.join(", "), escape(&text), sentences(group[0].detail))
            .expect("a String takes all");
    }
    out
}

/// The names of all options, for README.md.
fn names() -> String {
    let mut out = "| about | options |\n|---|---|\n".to_owned();
    for section in Section::ALL {
        let name = |option: &Opt| match option.kind {
            ValueKind::Positional => format!("`{}`", option.value),
            ValueKind::Text | ValueKind::Number | ValueKind::Octal | ValueKind::List | ValueKind::Flag | ValueKind::Switch => {
                format!("`--{}`", option.name)
            }
        };
        let names: Vec<_> = TABLE.iter().filter(|option| option.section == section).map(name).collect();
        writeln!(out, "| {} | {} |", section.heading(), names.join(", ")).expect("a String takes all");
    }
    out
}

/// The options as arguments of Python functions, with their types.
fn hints() -> String {
    let mut out = String::new();
    for option in TABLE.iter().filter(|option| tapster::config::call::is_argument(option)) {
        let kind = match option.kind {
            _ if option.name == "env" => "_List | Mapping[str, str]",
            ValueKind::Flag => "bool",
            ValueKind::List => "_List",
            ValueKind::Number => "_Number",
            ValueKind::Octal => "int | str",
            ValueKind::Text if option.bare.is_some() => "_Text | bool",
            ValueKind::Text | ValueKind::Positional | ValueKind::Switch => "_Text",
        };
        let default = option.default.filter(|_| option.kind != ValueKind::Flag);
        let default = default.map(|text| format!(" The default is {}.", text.replace('"', "'"))).unwrap_or_default();
        writeln!(out, "    {}: {kind} | None", option.key()).expect("a String takes all");
        writeln!(out, "    \"\"\"{}{default}\"\"\"\n", option.help).expect("a String takes all");
    }
    out
}

/// What is between the two marks of a file is `wanted`; or it becomes that, when the file is to be written.
#[track_caller]
fn generated(file: &str, begin: &str, end: &str, wanted: &str) {
    // Tests of one process share the page, and two of them may write it.
    static PAGE_IN_USE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = PAGE_IN_USE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let text = std::fs::read_to_string(file).expect("it is there");
    let (before, rest) = text.split_once(begin).expect("the first mark");
    let (current, after) = rest.split_once(end).expect("the second mark");
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::write(file, format!("{before}{begin}{wanted}{end}{after}")).expect("it is written");
        return;
    }
    assert!(current == wanted, "{file} is out of date; run {UPDATE}=1 cargo test --test man, and commit it");
}

#[test]
fn the_options_of_the_page_are_those_of_the_table() {
    generated(PAGE, BEGIN, END, &options());
}

#[test]
fn the_options_that_python_knows_are_those_of_the_table() {
    generated(HINTS, HINTS_BEGIN, HINTS_END, &hints());
}

#[test]
fn the_signals_of_the_page_are_those_of_the_table() {
    generated(PAGE, SIGNALS_BEGIN, SIGNALS_END, &signals());
}

#[test]
fn the_options_of_the_readme_are_those_of_the_table() {
    generated(README, README_BEGIN, README_END, &names());
}

#[test]
fn the_page_names_this_version_and_every_foreign_variable() {
    let page = page();
    let title = format!(".TH TAPSTER 8 \"\" \"Tapster {}\"", env!("CARGO_PKG_VERSION"));
    assert!(page.contains(&title), "{title} is not in man/tapster.8");
    let (_, environment) = page.split_once(".SH ENVIRONMENT").expect("the section");
    for variable in TABLE.iter().filter_map(|option| option.foreign) {
        assert!(environment.contains(&format!(".B {variable}\n")), "{variable} is not described");
    }
}

#[test]
fn the_pages_are_clean_troff() {
    // LC_ALL: without a UTF-8 locale man warns of characters that the terminal cannot show.
    let run =
        |program: &str, args: &[&str]| Command::new(program).args(args).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").output();
    let pages = [PAGE, GATEWAYS].map(|page| {
        let man = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page];
        [("groff", vec!["-ww", "-man", "-Tutf8", "-z", page]), ("man", man.to_vec())]
    });
    for (program, args) in pages.as_flattened() {
        let output = match run(program, args) {
            Ok(output) => output,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{program} is needed here: {error}");
                println!("skipped: {program} cannot be started ({error}), so the page is not checked by it");
                continue;
            }
        };
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{program} {args:?}: {warnings}");
    }
}
