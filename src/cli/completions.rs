//! `tapster completions SHELL`: what a shell needs to complete the command line, made of the tables of options and commands.

use std::ffi::OsString;

use clap_complete::Shell;

use super::{CliCommand, UsageError, command, operate};

/// The word that asks for it, as the first argument. An application module of that name is `completions:app`.
const WORD: &str = "completions";

/// Whether the arguments (the first is the program) ask for it.
pub fn is_asked(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == WORD)
}

/// The script for the shell that the arguments name.
pub fn print(args: &[OsString]) -> Result<CliCommand, UsageError> {
    let shell = match args {
        [_, _, shell] => shell.to_str().and_then(|name| name.parse::<Shell>().ok()),
        _ => None,
    };
    let shell = shell.filter(|shell| matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish));
    let shell = shell.ok_or_else(|| UsageError::Arguments(format!("{WORD}: write bash, zsh or fish behind it")))?;
    let mut script = Vec::new();
    let mut whole = command().subcommands(operate::command().get_subcommands().cloned());
    clap_complete::generate(shell, &mut whole, "tapster", &mut script);
    Ok(CliCommand::Print(String::from_utf8_lossy(&script).into_owned()))
}
