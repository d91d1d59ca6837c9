//! `tapster migrate`: prints what a configuration of gunicorn or uWSGI is here, as a TOML file, and what of it is lost.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf, absolute};

use crate::config::gunicorn::{Source, Taken};
use crate::config::options::{self, Section};
use crate::config::uwsgi::{self, World};
use crate::config::{self, Error, Given, Level, Notice, Origin, merge, shown};

use super::{CliCommand, Execute, UsageError, command, given, gunicorn, named, one_line};

/// The word that asks for it, as the first argument. An application module of that name is `migrate:app` or `./migrate.py`.
const WORD: &str = "migrate";

/// Makes the exit code 2 when something is lost.
const STRICT: &str = "--strict";

const USAGE: &str = "write: tapster migrate [--strict] gunicorn.conf.py, or uwsgi.ini, or -- gunicorn ARGUMENTS";

/// Whether the arguments (the first is the program) ask for a translation.
pub fn is_asked(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == WORD)
}

/// The command line that counts where these arguments have a gunicorn file executed: the translated one, or none.
pub fn translated_command(args: &[OsString]) -> Vec<OsString> {
    match args.iter().position(|word| word == "--") {
        Some(marker) => args[marker + 1..].iter().skip_while(|word| !gunicorn::is_called(Some(word))).cloned().collect(),
        None => args.iter().take(1).cloned().collect(),
    }
}

/// Translates what the arguments name. `cores` are the usable ones.
pub fn translate(args: &[OsString], execute: Execute<'_>, cores: usize) -> Result<CliCommand, UsageError> {
    let failed = |why: String| UsageError::Arguments(format!("{WORD}: {why}"));
    let mut words = Vec::new();
    for word in args.iter().skip(2) {
        words.push(word.to_str().ok_or_else(|| failed("an argument is not UTF-8".into()))?);
    }
    let strict = words.first() == Some(&STRICT);
    let words = if strict { &words[1..] } else { &words[..] };
    let collected = match words {
        ["--", words @ ..] if !words.is_empty() => of_words(words, execute)?,
        [file] if Path::new(file).extension().is_some_and(|ending| ending == "ini") => of_uwsgi(file, cores)?,
        [file] if !file.starts_with('-') => {
            let source = Source::named(file).unwrap_or_else(|| Source::File(file.into()));
            let mut collected = Collected::of("gunicorn", file);
            collected.add_file(&source, execute)?;
            collected.add_default("workers", "1");
            collected
        }
        _ => return Err(failed(USAGE.into())),
    };
    let (text, is_lossy) = collected.finish();
    Ok(CliCommand::Migrated { text, failed: strict && is_lossy })
}

/// What was found so far.
struct Collected {
    from: String,
    given: Vec<Given>,
    moot: Vec<String>,
    lost: Vec<String>,
}

impl Collected {
    fn of(server: &str, source: &str) -> Self {
        Self { from: format!("{} of {server}", shown(source)), given: vec![], moot: vec![], lost: vec![] }
    }

    fn add_file(&mut self, source: &Source, execute: Execute<'_>) -> Result<(), UsageError> {
        let (layer, refused) = execute(source, None)?.layer_and_refusals(source);
        self.given.extend(layer.given);
        self.add_notices(layer.notices);
        self.lost.extend(refused.iter().map(Error::to_string));
        self.lost.extend(
            layer
                .hooks
                .iter()
                .map(|hook| format!("{hook}: a function has no place in TOML; it takes the file itself (--config)")),
        );
        Ok(())
    }

    /// A warning is about something that does not happen.
    fn add_notices(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            if notice.level > Level::Info { self.lost.push(notice.text) } else { self.moot.push(notice.text) }
        }
    }

    /// A default of the other server's that is another one here.
    fn add_default(&mut self, name: &str, value: &str) {
        let given = self.given.iter().any(|given| given.option.name == name);
        if let (false, Some(option)) = (given, options::find(name)) {
            self.given.push(Given { option, values: vec![value.into()], origin: Origin::Default });
        }
    }

    /// The text, and whether anything is lost.
    fn finish(mut self) -> (String, bool) {
        // What cannot be is named, and the rest is printed.
        let lost = &mut self.lost;
        // Addresses, certificates and keys mean something together only.
        let is_of_tls = |given: &Given| given.option.section == Section::Tls || given.option.name == "bind";
        let is_whole = merge(self.given.iter().filter(|given| is_of_tls(given)).cloned()).is_ok();
        let mut is_valid = |given: &Given| merge([given.clone()]).map_err(|error| lost.push(error.to_string())).is_ok();
        self.given.retain(|given| is_whole && is_of_tls(given) || is_valid(given));
        let mut last: Vec<Given> = Vec::new();
        for given in self.given {
            last.retain(|earlier| earlier.option != given.option);
            last.push(given);
        }
        let mut out = format!("# {}, translated by tapster {}.\n", self.from, env!("CARGO_PKG_VERSION"));
        out += "# Save it as tapster.toml, look at it, and start: tapster --config tapster.toml\n";
        for section in Section::ALL {
            let mut rows = last.iter().filter(|given| given.option.section == section && given.option.sources.file()).peekable();
            if rows.peek().is_some() {
                writeln!(out, "\n# {}", section.heading()).expect("a String takes all");
            }
            for given in rows {
                let note = if given.origin == Origin::Default { "  # its default" } else { "" };
                writeln!(out, "{}{note}", config::line_of(given)).expect("a String takes all");
            }
        }
        for (heading, lines) in [("Needs nothing here", &self.moot), ("Not carried over", &self.lost)] {
            if !lines.is_empty() {
                writeln!(out, "\n# {heading}:").expect("a String takes all");
            }
            for line in lines.iter().flat_map(|text| text.lines()) {
                // A line of the file may have anything in it, and none of it may become TOML.
                let visible: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                writeln!(out, "#   {visible}").expect("a String takes all");
            }
        }
        (out, !self.lost.is_empty())
    }
}

fn of_words(words: &[&str], execute: Execute<'_>) -> Result<Collected, UsageError> {
    let origin = Origin::CommandLine;
    let program = words.iter().position(|word| gunicorn::is_called(Some(&word.into())));
    let Some(program) = program else {
        return Err(UsageError::Arguments(format!("{WORD}: the command is not one of gunicorn; {USAGE}")));
    };
    let matches = command().try_get_matches_from(&words[program..]);
    let matches = matches.map_err(|error| UsageError::Arguments(one_line(&error, &origin)))?;
    let arguments = given(&matches, &origin)?;
    let mut collected = Collected::of("gunicorn", &words.join(" "));
    if let Some(source) = named("config", &arguments).and_then(|config| Source::named(&config.values.concat())) {
        collected.add_file(&source, execute)?;
    }
    for taken in gunicorn::outcomes(&matches, &origin) {
        match taken {
            Ok(Taken::Notice(notice)) => collected.add_notices(vec![notice]),
            Ok(Taken::Option(_) | Taken::Nothing) => {}
            Err(error) => collected.lost.push(error.to_string()),
        }
    }
    collected.given.extend(arguments);
    collected.add_default("workers", "1");
    Ok(collected)
}

fn of_uwsgi(file: &str, cores: usize) -> Result<Collected, UsageError> {
    let failed = |error: &std::io::Error| {
        UsageError::Arguments(format!("{WORD}: {} cannot be read: {}", shown(file), super::reason(error)))
    };
    let bytes = std::fs::read(file).map_err(|error| failed(&error))?;
    let path = absolute(PathBuf::from(file)).map_err(|error| failed(&error))?;
    let world = World { variable: &|name| std::env::var(name).ok(), cores };
    let translation = uwsgi::translate(&String::from_utf8_lossy(&bytes), &path, Path::new(file), &world);
    let uwsgi::Translation { given, moot, lost } = translation;
    Ok(Collected { given, moot, lost, ..Collected::of("uWSGI", file) })
}
