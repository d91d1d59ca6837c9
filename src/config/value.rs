//! The small values of options: numbers, durations, sizes, lists of directories. Each reader takes the text and its bounds; its
//! error is the clause that follows the value in a message ("must be 1 to 4096").

use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::proxy::Accept;

use super::logs::{AccessFormat, LogConfig, LogTarget};

/// Longest secret in bytes: fronts send it in the packet of the request's head, which has 8 KiB.
const SECRET_MAX: usize = 1024;

/// What others call a protocol that is spoken here: in front of an address it can only be meant as one.
const ALIASES: [(&str, Protocol); 3] = [("fcgi", Protocol::FastCgi), ("fast-cgi", Protocol::FastCgi), ("ajp13", Protocol::Ajp)];

/// Likeness of names from which on one is taken for the other, misspelt.
const SIMILAR: f64 = 0.8;

/// Reads a whole number: digits only, because `parse` alone would take a sign.
pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    digits(text).filter(|n| (min..=max).contains(n)).ok_or_else(|| format!("must be a whole number from {min} to {max}"))
}

/// Reads a duration: a number of seconds with up to nine decimals, or one with a unit (`ms`, `s`, `m`, `h`).
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let form = || format!("must be a duration such as 30, 1.5, 500ms, 30s, 5m or 1h, from {} to {}", shown(min), shown(max));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (amount, unit) = text.split_at(end);
    let unit_nanos: u128 = match unit {
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(form()),
    };
    let (whole, fraction) = amount.split_once('.').map_or((amount, None), |(w, f)| (w, Some(f)));
    let mut nanos = u128::from(digits(whole).ok_or_else(form)?) * unit_nanos;
    if let Some(fraction) = fraction {
        if fraction.len() > 9 {
            return Err(form());
        }
        nanos += u128::from(digits(fraction).ok_or_else(form)?) * unit_nanos / 10u128.pow(fraction.len() as u32);
    }
    let duration = u64::try_from(nanos).map(Duration::from_nanos).ok().filter(|d| (min..=max).contains(d)).ok_or_else(form)?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err("is finer than a millisecond, which is the clock of the timers".into());
    }
    Ok(duration)
}

/// Reads a number of bytes, plain or with a binary unit (`k`, `M`, `G`, each also as `KiB`).
pub(super) fn size(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let form = || format!("must be a number of bytes such as 8190, 512k, 10M or 1G, from {min} to {max}");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (amount, unit) = text.split_at(end);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(form()),
    };
    digits(amount).and_then(|n| n.checked_mul(1 << shift)).filter(|n| (min..=max).contains(n)).ok_or_else(form)
}

/// Reads which versions of the PROXY protocol are taken, with the words that gunicorn has for each; `None`: it is off.
pub(super) fn proxy_protocol(text: &str) -> Result<Option<Accept>, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" | "false" | "0" | "none" => Ok(None),
        "auto" | "true" | "1" => Ok(Some(Accept::Auto)),
        "v1" => Ok(Some(Accept::V1)),
        "v2" => Ok(Some(Accept::V2)),
        _ => Err("must be off, v1, v2 or auto".into()),
    }
}

/// Reads the name of a protocol.
pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    Protocol::named(&text.to_ascii_lowercase())
        .ok_or_else(|| format!("must be one of {}{}", Protocol::names(), similar_protocol(text)))
}

/// The words that suggest the protocol that a name may have been meant for, to follow a message; empty if none is like it.
pub(super) fn similar_protocol(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let alias = ALIASES.into_iter().find(|(alias, _)| *alias == name).map(|(_, protocol)| protocol);
    let likeness = |protocol: &Protocol| strsim::jaro_winkler(protocol.name(), &name);
    let rated = Protocol::ALL.into_iter().filter(|protocol| likeness(protocol) >= SIMILAR);
    let closest = alias.or_else(|| rated.max_by(|a, b| likeness(a).total_cmp(&likeness(b))));
    closest.map(|protocol| format!("; did you mean {}?", protocol.name())).unwrap_or_default()
}

/// Whether this is what others call a protocol that is spoken here.
pub(super) fn is_alias(name: &str) -> bool {
    ALIASES.iter().any(|(alias, _)| name.eq_ignore_ascii_case(alias))
}

/// Reads a secret, which is not to be guessed: an empty one would let everybody in who sends none.
pub(super) fn secret(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty; a secret is expected, such as the output of `openssl rand -hex 16`".into()),
        1..=SECRET_MAX if !text.contains('\0') => Ok(text.into()),
        _ => Err(format!("must have at most {SECRET_MAX} bytes and no NUL")),
    }
}

/// Reads where an application is mounted: the root of everything, or a path with a slash at its begin.
pub(super) fn root_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    if text.contains(|c: char| c.is_control() || c == '?' || c == '#') {
        return Err("is not a path: it has a control character, a question mark or a number sign".into());
    }
    if !(path.is_empty() || path.starts_with('/')) {
        return Err(format!("must begin with a slash; write /{path}"));
    }
    Ok(path.into())
}

/// Reads a path that requests are matched with, as [`root_path`]: decoded, and one that an honest client can ask for.
pub(super) fn decoded_path(text: &str) -> Result<String, String> {
    let path = root_path(text)?;
    if !path.is_empty() && path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("has an empty part, . or .. in its path, which no request can have".into());
    }
    if path.contains('%') {
        return Err("has a % in its path; write it decoded".into());
    }
    Ok(path)
}

/// Reads the mode of a socket's file in octal: its owner at least must be able to connect, or nobody but root could.
pub(super) fn socket_mode(text: &str) -> Result<u32, String> {
    let wrong = || "must be an octal number from 600 to 777 that lets the owner read and write, such as 600 or 660";
    octal(text, 0o777).ok().filter(|mode| mode & 0o600 == 0o600).ok_or_else(|| wrong().into())
}

/// Reads a file mode mask in octal, with or without `0o`.
pub(super) fn octal(text: &str, max: u32) -> Result<u32, String> {
    let number = text.strip_prefix("0o").unwrap_or(text);
    let valid = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let parsed = if valid { u32::from_str_radix(number, 8).ok() } else { None };
    parsed.filter(|n| *n <= max).ok_or_else(|| format!("must be an octal number from 0 to {max:o}, such as 022"))
}

/// Reads the path of a file or directory.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("is empty; a path is expected".into()),
        _ if text.contains('\0') => Err("has a NUL character, which no path can have".into()),
        _ => Ok(text.into()),
    }
}

/// Reads the path of a pid file. A number is what somebody gives who takes `-p` for the port, as it is for other servers.
pub(super) fn pid_file(text: &str) -> Result<PathBuf, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "is to be the path of a pid file; a port is given by --bind :{text}, a file of that name by ./{text}"
        ));
    }
    path(text)
}

/// Splits directories at commas (gunicorn's `--pythonpath`) and colons (PYTHONPATH).
pub(super) fn directories(text: &str) -> Result<Vec<PathBuf>, String> {
    text.split([',', ':'])
        .map(|part| {
            path(part).map_err(|_| "has an empty or impossible part; write directories separated by commas or colons".into())
        })
        .collect()
}

/// Reads `KEY=VALUE`.
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        _ if text.contains('\0') => Err("has a NUL character, which the environment cannot have".into()),
        // Servers of WSGI read it as a prefix, and it would be the application's alone.
        Some(("SCRIPT_NAME", path)) => Err(format!("names where the application is mounted; write --root-path {path} instead")),
        Some(("", _)) => Err("has no name in front of the =; write KEY=VALUE".into()),
        Some((key, value)) => Ok((key.into(), value.into())),
        None => Err("has no =; write KEY=VALUE".into()),
    }
}

/// Reads a flag.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

/// Reads a name that is shown or looked up: visible characters, at least one.
pub(super) fn name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty; a name is expected".into()),
        _ if text.contains(char::is_control) => Err("has control characters, which no name can have".into()),
        _ => Ok(text.into()),
    }
}

/// Reads the place of a log: a path, `-` for the given stream, `none` for no log.
pub(super) fn log_target(text: &str, stream: LogTarget) -> Result<Option<LogTarget>, String> {
    match text {
        "-" => Ok(Some(stream)),
        "none" => Ok(None),
        _ => path(text).map(|path| Some(LogTarget::File(path))),
    }
}

/// Reads `json` or a format of gunicorn's atoms, which the access log compiles.
pub(super) fn access_format(text: &str) -> Result<AccessFormat, String> {
    match text {
        "" => Err("is empty; write json or a format of %(...)s atoms".into()),
        "json" => Ok(AccessFormat::Json),
        _ => Ok(AccessFormat::Atoms(text.into())),
    }
}

/// Reads a path, or JSON that begins with a brace.
pub(super) fn log_config(text: &str) -> Result<LogConfig, String> {
    if text.starts_with('{') { Ok(LogConfig::Json(text.into())) } else { path(text).map(LogConfig::File) }
}

fn digits(text: &str) -> Option<u64> {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

/// The shortest spelling of a bound.
fn shown(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (0, 0) => "0".into(),
        (s, 0) if s % 3600 == 0 => format!("{}h", s / 3600),
        (s, 0) if s % 60 == 0 => format!("{}m", s / 60),
        (s, 0) => format!("{s}s"),
        (_, _) => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn durations_are_read_with_and_without_unit() {
        for (text, millis) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("500ms", 500),
            ("1.5", 1_500),
            ("1.5h", 5_400_000),
            ("0.001", 1),
            ("0", 0),
            ("24h", 86_400_000),
        ] {
            assert_eq!(duration(text, Duration::ZERO, DAY), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in
            ["", "s", "-1", "+1", " 1", "1 s", "1d", "1S", ".5", "1.", "1.2.3", "25h", "1e3", "99999999999999999999", "inf"]
        {
            let error = duration(text, Duration::ZERO, DAY).expect_err(text);
            assert!(error.contains("from 0 to 24h"), "{text}: {error}");
        }
        let endless = format!("1.{}", "0".repeat(40));
        assert!(duration(&endless, Duration::ZERO, DAY).is_err());
        assert!(duration("0.0001", Duration::ZERO, DAY).unwrap_err().contains("finer"));
        assert!(duration("99ms", Duration::from_millis(100), DAY).unwrap_err().contains("from 100ms to"));
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [("0", 0), ("8190", 8190), ("512k", 512 << 10), ("10M", 10 << 20), ("1G", 1 << 30), ("2KiB", 2048)] {
            assert_eq!(size(text, 0, 1 << 40), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "+1", "1 k", "1.5M", "1T", "1kb", "18446744073709551616", "18014398509481984k"] {
            assert!(size(text, 0, u64::MAX).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_no_signs_and_keep_to_their_bounds() {
        assert_eq!(number("4096", 1, 4096), Ok(4096));
        for text in ["0", "4097", "+1", "-1", "", "1.0", "0x1", "١"] {
            assert_eq!(number(text, 1, 4096), Err("must be a whole number from 1 to 4096".into()), "{text}");
        }
    }

    #[test]
    fn a_socket_mode_leaves_its_owner_in() {
        for (text, mode) in [("600", 0o600), ("0660", 0o660), ("0o666", 0o666), ("777", 0o777)] {
            assert_eq!(socket_mode(text), Ok(mode));
        }
        for text in ["0", "0000", "400", "200", "066", "100", "1600", "6000", "x", ""] {
            let error = socket_mode(text).expect_err(text);
            assert!(error.contains("600"), "{text}: {error}");
        }
    }

    #[test]
    fn a_number_is_no_pid_file() {
        assert!(pid_file("8000").unwrap_err().contains("--bind :8000"));
        assert_eq!([pid_file("./8000"), pid_file("8000.pid")], ["./8000", "8000.pid"].map(|path| Ok(path.into())));
        assert_eq!(pid_file(""), path(""));
    }

    #[test]
    fn a_umask_is_octal() {
        assert_eq!(octal("022", 0o777), Ok(0o22));
        assert_eq!(octal("0o27", 0o777), Ok(0o27));
        assert_eq!(octal("0", 0o777), Ok(0));
        for text in ["", "8", "1000", "+22", "0x1f", "-1"] {
            assert!(octal(text, 0o777).is_err(), "{text}");
        }
    }

    #[test]
    fn directories_are_split_at_commas_and_colons() {
        assert_eq!(directories("a,b:/c"), Ok(vec!["a".into(), "b".into(), "/c".into()]));
        assert!(directories("a,,b").is_err());
        assert!(directories("").is_err());
    }

    #[test]
    fn a_variable_keeps_every_equals_sign_of_its_value() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), "".into())));
        for text in ["A", "=b", "A=\0", "SCRIPT_NAME=/shop"] {
            assert!(variable(text).is_err(), "{text:?}");
        }
    }
}
