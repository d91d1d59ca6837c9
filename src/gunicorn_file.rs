//! A gunicorn file is Python code, and the master runs none: this program is run again for it, for a moment, and says what the
//! file has set.
//!
//! The process gets [`OPTION`] in front of the server's own arguments, executes the file and writes JSON to its standard output;
//! what the file prints goes to standard error. It has [`TIME_MAX`] and may say [`ANSWER_MAX`] bytes. It is the first of a process
//! group, which ends with it: nothing that a file starts outlives the reading.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Map, Value as Json, json};

use crate::config::gunicorn::{Content, Name, Source, Value};
use crate::config::{Error, shown};
use crate::sys::privileges;

/// The hidden option, with the file behind an equals sign. People do not use it, so it is in no table.
pub const OPTION: &str = "--read-config=";

/// Longest time for a file: at a reload the master waits for it.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Longest answer in bytes: far above any set of settings, far below what hurts.
const ANSWER_MAX: usize = 1 << 20;

/// What ends the answer, and is nowhere in it.
const END: u8 = b'\n';

/// Mode bits that let the group or everybody write.
const WRITABLE_FOR_OTHERS: u32 = 0o022;

/// Mode bit of a directory in which only the owner of a file may move or remove it (inode(7)).
const STICKY: u32 = 0o1000;

/// The file that this process is to execute, and the server's own arguments with the program's name, if it was started for that.
pub fn order(args: &[OsString]) -> Option<(Source, Vec<OsString>)> {
    let at = args.iter().position(|arg| arg.to_str().is_some_and(|arg| arg.starts_with(OPTION)))?;
    // Behind the first word that is the server's own, it would be somebody's argument.
    if at != 1 {
        return None;
    }
    let source = Source::named(args[at].to_str()?.strip_prefix(OPTION)?)?;
    let own = [&args[..at], &args[at + 1..]].concat();
    Some((source, own))
}

/// Has a process execute the file, and returns what it has set. `command` is this program with [`OPTION`]; it becomes `user`, if
/// the command line names one. `imports` are the directories, besides the working one, where modules are looked for.
pub fn execute(mut command: Command, source: &Source, imports: &[PathBuf], user: Option<&str>) -> Result<Content, Error> {
    let failed = |why: String| Error::File { path: source.path(), line: None, why };
    let exposed = if privileges::is_root() { writable_by_others(source, imports) } else { None };
    if let (Some(path), None) = (&exposed, user) {
        return Err(failed(format!(
            "is not executed by root, because others can write to {}, and code would come from there; make it root's own, or give \
             --user on the command line",
            shown(&path.to_string_lossy())
        )));
    }
    if let Source::File(path) = source
        && let Err(error) = fs::metadata(path)
    {
        let text = error.to_string();
        return Err(failed(format!("cannot be read: {}", text.split(" (os error").next().unwrap_or(&text).to_lowercase())));
    }
    let answer = run(&mut command).map_err(failed)?;
    let names = understand(&answer).map_err(failed)?;
    Ok(Content { names, exposed })
}

/// The answer of the process: one line.
pub fn answer(names: Result<&[Name], &str>) -> String {
    let answer = match names {
        Ok(names) => json!({ "names": names.iter().map(encode_name).collect::<Vec<_>>() }),
        Err(why) => json!({ "error": why }),
    };
    format!("{answer}{}", char::from(END))
}

/// Makes this process end with the one that has asked it.
pub fn end_with_the_asker() {
    // It fails for no valid signal.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
}

/// The file, a directory where it finds modules, or one on the way to them, where others than root could put code of theirs.
fn writable_by_others(source: &Source, imports: &[PathBuf]) -> Option<PathBuf> {
    let path = match source {
        Source::File(path) => path.clone(),
        Source::Module(module) => {
            let path = PathBuf::from(module.replace('.', "/"));
            [path.join("__init__.py"), path.with_extension("py")].into_iter().find(|path| path.is_file()).unwrap_or_default()
        }
    };
    // The working directory is where modules are looked for first.
    [&path, Path::new("")].into_iter().chain(imports.iter().map(PathBuf::as_path)).find_map(open_part)
}

/// The part of the path that others than root can write to.
fn open_part(path: &Path) -> Option<PathBuf> {
    let path = absolute(Path::new(".").join(path)).ok()?;
    let path = path.canonicalize().unwrap_or(path);
    let open = |path: &&Path| {
        fs::metadata(path).is_ok_and(|meta| {
            let harmless = meta.is_dir() && meta.mode() & STICKY != 0;
            meta.uid() != 0 || (meta.mode() & WRITABLE_FOR_OTHERS != 0 && !harmless)
        })
    };
    path.ancestors().find(open).map(Path::to_owned)
}

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot be executed: {error}");
    let (mut answer, writer) = io::pipe().map_err(failed)?;
    let mut child = command.stdin(Stdio::null()).stdout(writer).process_group(0).spawn().map_err(failed)?;
    // The command keeps its end of the pipe open.
    command.stdout(Stdio::null());
    let bytes = listen(&mut answer, Instant::now() + TIME_MAX);
    // Before it is waited for, the number of the group is its own. It fails only for a group that has ended.
    let _ = i32::try_from(child.id()).map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL));
    let status = child.wait().map_err(failed)?;
    match bytes {
        Ok(bytes) if bytes.is_empty() => Err(format!("its process ended without an answer: {status}")),
        result => result,
    }
}

/// Everything up to the line end that comes in time. A process that the file has forked may have the pipe open, so its end is not
/// waited for.
fn listen(answer: &mut PipeReader, deadline: Instant) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, wait) {
            Ok(0) if left.is_zero() => return Err(format!("takes longer than {} s and was ended", TIME_MAX.as_secs())),
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(format!("cannot wait for its process: {}", errno.desc().to_lowercase())),
        }
        match answer.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(count) => {
                let line = piece[..count].split(|&byte| byte == END).next().unwrap_or_default();
                bytes.extend_from_slice(line);
                if line.len() < count {
                    return Ok(bytes);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot listen to its process: {error}")),
        }
        if bytes.len() > ANSWER_MAX {
            return Err(format!("its settings are more than {ANSWER_MAX} bytes of JSON; it was ended"));
        }
    }
}

fn understand(answer: &[u8]) -> Result<Vec<Name>, String> {
    let strange = || format!("its process said {}", shown(&String::from_utf8_lossy(answer)));
    let answer: Map<String, Json> = serde_json::from_slice(answer).map_err(|_| strange())?;
    if let Some(Json::String(why)) = answer.get("error") {
        return Err(why.clone());
    }
    let Some(Json::Array(names)) = answer.get("names") else { return Err(strange()) };
    names.iter().map(|name| decode_name(name).ok_or_else(strange)).collect()
}

fn encode_name(name: &Name) -> Json {
    json!({ "name": name.name, "line": name.line, "value": name.value.as_ref().map(encode) })
}

fn decode_name(name: &Json) -> Option<Name> {
    Some(Name {
        name: name.get("name")?.as_str()?.to_owned(),
        value: match name.get("value")? {
            Json::Null => None,
            value => Some(decode(value)?),
        },
        line: name.get("line")?.as_u64().map(|line| line as usize),
    })
}

/// Each value is an object of one key, which says what it is: JSON alone knows no dict that stays text.
fn encode(value: &Value) -> Json {
    match value {
        Value::None => json!({ "none": true }),
        Value::Bool(flag) => json!({ "bool": flag }),
        Value::Integer(number) => json!({ "integer": number }),
        // JSON has no infinities, and nothing that is no number.
        Value::Float(number) => json!({ "float": number.to_string() }),
        Value::Text(text) => json!({ "text": text }),
        Value::List(items) => json!({ "list": items.iter().map(encode).collect::<Vec<_>>() }),
        Value::Json(text) => json!({ "json": text }),
        Value::Other(text) => json!({ "other": text }),
    }
}

fn decode(value: &Json) -> Option<Value> {
    let (kind, value) = value.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "none" => Value::None,
        "bool" => Value::Bool(value.as_bool()?),
        "integer" => Value::Integer(value.as_i64()?),
        "float" => Value::Float(value.as_str()?.parse().ok()?),
        "text" => Value::Text(value.as_str()?.into()),
        "list" => Value::List(value.as_array()?.iter().map(decode).collect::<Option<_>>()?),
        "json" => Value::Json(value.as_str()?.into()),
        "other" => Value::Other(value.as_str()?.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood_as_it_was_meant() {
        let name = |name: &str, value| Name { name: name.into(), value, line: Some(7) };
        let text = |text: &str| Value::Text(text.into());
        let names = vec![
            name("bind", Some(Value::List(vec![text(":80"), text("ü\n\"")]))),
            name("accesslog", Some(Value::None)),
            name("daemon", Some(Value::Bool(true))),
            name("workers", Some(Value::Integer(-3))),
            name("timeout", Some(Value::Float(1.5))),
            name("keepalive", Some(Value::Float(f64::NEG_INFINITY))),
            name("headers", Some(Value::Json("{\"a\": 1}".into()))),
            name("x", Some(Value::Other("<object>".into()))),
            Name { line: None, ..name("post_fork", None) },
        ];
        assert_eq!(understand(answer(Ok(&names)).as_bytes()), Ok(names));
        assert!(answer(Err("line 1\nline 2")).find('\n').is_some_and(|end| end + 1 == answer(Err("line 1\nline 2")).len()));
        assert_eq!(understand(answer(Err("line 1\nline 2")).as_bytes()), Err("line 1\nline 2".into()));
        for strange in ["", "{}", "[]", "{\"names\": [{}]}", "{\"names\": 3}"] {
            assert!(understand(strange.as_bytes()).unwrap_err().starts_with("its process said "), "{strange}");
        }
    }

    #[test]
    fn the_order_stands_in_front_of_the_servers_own_arguments() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let (source, own) = order(&words(&["tapster", "--read-config=a.py", "-w", "2", "app"])).unwrap();
        assert_eq!((source, own), (Source::File("a.py".into()), words(&["tapster", "-w", "2", "app"])));
        assert_eq!(order(&words(&["tapster", "app", "--read-config=a.py"])), None);
        assert_eq!(order(&words(&["tapster", "-c", "a.py"])), None);
    }

    #[test]
    fn a_process_without_an_end_is_ended() {
        let (mut reader, writer) = io::pipe().unwrap();
        let started = Instant::now();
        assert!(listen(&mut reader, started + Duration::from_millis(30)).unwrap_err().contains("was ended"));
        assert!(started.elapsed() >= Duration::from_millis(30));
        drop(writer);
        assert_eq!(listen(&mut reader, started), Ok(vec![]));
    }
}
