//! The language of `--access-logformat`: gunicorn's atoms and some of our own (`Q`, `P`, `I`), compiled to a list of parts.

use std::fmt;

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text of the format itself.
    Literal(Vec<u8>),
    /// Address of the client.
    RemoteAddr,
    /// Address of the socket's peer.
    Socket,
    /// The X-Request-ID that the request has got.
    GivenId,
    /// User of Basic credentials, which are the field at this place in [`Compiled::fields`].
    User(usize),
    /// Start of the request in the common log format.
    Time,
    /// Request line as sent.
    RequestLine,
    /// Status code.
    Status,
    /// Method.
    Method,
    /// Path without percent-encoding.
    Path,
    /// Query string.
    Query,
    /// `HTTP/1.1`.
    Protocol,
    /// Length of the body.
    Bytes,
    /// Length of the body, a dash for none.
    BytesOrDash,
    /// Duration in whole seconds.
    Seconds,
    /// Duration in milliseconds.
    Millis,
    /// Duration in microseconds.
    Micros,
    /// Duration in seconds with six places.
    DecimalSeconds,
    /// How long the request waited for the application, in microseconds.
    QueueMicros,
    /// `<pid>`.
    Pid,
    /// A field of the request, by its place in [`Compiled::fields`].
    RequestField(usize),
    /// A field of the answer, name in small letters.
    ResponseField(Vec<u8>),
    /// A variable of the environ, by its place in [`Compiled::environ`].
    Environ(usize),
}

/// A compiled format.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The pieces of a line, in order.
    pub parts: Vec<Part>,
    /// Names of the request's fields that are shown, in small letters, each once.
    pub fields: Vec<Vec<u8>>,
    /// Names of the environ's variables that are shown, each once.
    pub environ: Vec<String>,
}

impl Compiled {
    /// The place of a field's name, which is added if it is new.
    fn field(&mut self, name: &str) -> usize {
        place(&mut self.fields, name.to_ascii_lowercase().into_bytes())
    }
}

fn place<T: PartialEq>(names: &mut Vec<T>, name: T) -> usize {
    names.iter().position(|n| *n == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}

/// Name, meaning, and what it is compiled to.
type Atom = (&'static str, &'static str, fn(&mut Compiled) -> Part);

/// The atoms of one letter: one table for the compiler and its messages.
const ATOMS: &[Atom] = &[
    ("h", "address of the client", |_| Part::RemoteAddr),
    // RFC 1413 is dead.
    ("l", "a dash", |_| Part::Literal(b"-".to_vec())),
    ("u", "user of Basic authentication", |c| Part::User(c.field("authorization"))),
    ("t", "time when the request came", |_| Part::Time),
    ("r", "request line", |_| Part::RequestLine),
    ("m", "method", |_| Part::Method),
    ("U", "path without the query", |_| Part::Path),
    ("q", "query string", |_| Part::Query),
    ("H", "protocol", |_| Part::Protocol),
    ("s", "status", |_| Part::Status),
    ("B", "length of the body", |_| Part::Bytes),
    ("b", "length of the body, or a dash", |_| Part::BytesOrDash),
    ("f", "referer", |c| Part::RequestField(c.field("referer"))),
    ("a", "user agent", |c| Part::RequestField(c.field("user-agent"))),
    ("T", "duration in seconds", |_| Part::Seconds),
    ("M", "duration in milliseconds", |_| Part::Millis),
    ("D", "duration in microseconds", |_| Part::Micros),
    ("L", "duration in seconds, with six places", |_| Part::DecimalSeconds),
    ("Q", "wait for the application in microseconds", |_| Part::QueueMicros),
    ("p", "process id", |_| Part::Pid),
    ("P", "address of the peer, proxy", |_| Part::Socket),
    ("I", "request id", |_| Part::GivenId),
];

/// A format that cannot be compiled: what, at which byte, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError(pub String);

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FormatError {}

/// Compiles a format.
pub fn compile(text: &str) -> Result<Compiled, FormatError> {
    if let Some(at) = text.bytes().position(|b| b.is_ascii_control() && b != b'\t') {
        return Err(FormatError(format!("control character at byte {at}: a record of the access log is one line")));
    }
    let mut compiled = Compiled::default();
    let mut literal = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('%') {
        let percent = at + found;
        literal.extend_from_slice(&text.as_bytes()[at..percent]);
        let rest = &text[percent + 1..];
        if rest.starts_with('%') {
            literal.push(b'%');
            at = percent + 2;
            continue;
        }
        let (name, len) = atom_name(rest, percent)?;
        at = percent + 1 + len;
        let part = match atom(name, percent, &mut compiled)? {
            Part::Literal(text) => {
                literal.extend_from_slice(&text);
                continue;
            }
            part => part,
        };
        if !literal.is_empty() {
            compiled.parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        compiled.parts.push(part);
    }
    literal.extend_from_slice(&text.as_bytes()[at..]);
    if !literal.is_empty() {
        compiled.parts.push(Part::Literal(literal));
    }
    Ok(compiled)
}

/// The name between the parentheses of `(name)s`, and the length of all that; `percent` is where the atom starts.
fn atom_name(rest: &str, percent: usize) -> Result<(&str, usize), FormatError> {
    let error = |what: String| FormatError(format!("{what} at byte {percent}: atoms are written %(name)s, a percent sign %%"));
    let Some(inner) = rest.strip_prefix('(') else {
        let hint = rest.chars().next().filter(|c| ATOMS.iter().any(|(n, ..)| n.chars().eq([*c])));
        return Err(error(match hint {
            Some(letter) => format!("`%{letter}` (did you mean `%({letter})s`?)"),
            None => "lone `%`".into(),
        }));
    };
    let Some(end) = inner.find(')') else { return Err(error(format!("`%{rest}` without a closing parenthesis"))) };
    let name = &inner[..end];
    if !inner[end + 1..].starts_with('s') {
        return Err(error(format!("`%({name})` without `s`")));
    }
    Ok((name, end + 3))
}

fn atom(name: &str, percent: usize, compiled: &mut Compiled) -> Result<Part, FormatError> {
    if let Some(braced) = name.strip_prefix('{')
        && let Some((variable, kind)) = braced.rsplit_once('}')
        && !variable.is_empty()
    {
        match kind {
            "i" => return Ok(Part::RequestField(compiled.field(variable))),
            "o" => return Ok(Part::ResponseField(variable.to_ascii_lowercase().into_bytes())),
            "e" => return Ok(Part::Environ(place(&mut compiled.environ, variable.to_owned()))),
            _ => {}
        }
    }
    match ATOMS.iter().find(|(n, ..)| *n == name) {
        Some((.., part)) => Ok(part(compiled)),
        None => Err(unknown(name, percent)),
    }
}

fn unknown(name: &str, percent: usize) -> FormatError {
    let likely = suggestion(name).map_or(String::new(), |atom| format!(" (did you mean `%({atom})s`?)"));
    let known: Vec<&str> = ATOMS.iter().map(|(n, ..)| *n).chain(["{header}i", "{header}o", "{VARIABLE}e"]).collect();
    FormatError(format!("unknown atom `%({name})s` at byte {percent}{likely}; known: {}", known.join(" ")))
}

/// From which similarity (Jaro-Winkler, 0 to 1) on a name is taken for a misspelt word.
const LIKELY: f64 = 0.8;

/// What was probably meant: another case of a letter, a header without its kind, or words that describe an atom.
fn suggestion(name: &str) -> Option<String> {
    if let Some(braced) = name.strip_prefix('{') {
        let variable = braced.split('}').next().filter(|v| !v.is_empty())?;
        return Some(format!("{{{variable}}}i"));
    }
    if let Some((letter, ..)) = ATOMS.iter().find(|(n, ..)| n.eq_ignore_ascii_case(name)) {
        return Some((*letter).to_owned());
    }
    let words = name.replace(['_', '-'], " ").to_ascii_lowercase();
    let closest = |meaning: &str| meaning.split(", ").map(|m| strsim::jaro_winkler(m, &words)).fold(0.0, f64::max);
    let (letter, score) = ATOMS.iter().map(|(n, meaning, _)| (n, closest(meaning))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (score > LIKELY).then(|| (*letter).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options;

    fn refused(text: &str) -> String {
        compile(text).expect_err("the format is wrong").0
    }

    #[test]
    fn literals_between_atoms_are_joined() {
        let compiled = compile("a%%b %(s)s%%").expect("the format is right");
        assert_eq!(compiled.parts, [Part::Literal(b"a%b ".to_vec()), Part::Status, Part::Literal(b"%".to_vec())]);
    }

    #[test]
    fn names_are_listed_once_in_order() {
        let compiled = compile("%({B}e)s%({a.b}e)s%({B}e)s%({USER-agent}i)s%(f)s%(a)s").expect("the format is right");
        assert_eq!(compiled.environ, ["B", "a.b"]);
        assert_eq!(compiled.fields, [b"user-agent".to_vec(), b"referer".to_vec()]);
        let fields = [0, 1, 0].map(Part::RequestField);
        assert_eq!(compiled.parts, [[0, 1, 0].map(Part::Environ), fields].concat());
    }

    #[test]
    fn an_unknown_atom_is_named_with_its_place_and_the_known_ones() {
        let message = refused("%(h)s %(Z)s");
        assert!(message.starts_with("unknown atom `%(Z)s` at byte 6; known: h l u t r m"), "{message}");
        assert!(message.ends_with("D L Q p P I {header}i {header}o {VARIABLE}e"), "{message}");
    }

    #[test]
    fn likely_meanings_are_suggested() {
        for (name, meant) in [
            ("S", "s"),
            ("R", "r"),
            ("{X-Id}", "{X-Id}i"),
            ("{X-Id}x", "{X-Id}i"),
            ("status", "s"),
            ("user_agent", "a"),
            ("referrer", "f"),
            ("method", "m"),
        ] {
            let message = refused(&format!("%({name})s"));
            assert!(message.contains(&format!("(did you mean `%({meant})s`?)")), "{message}");
        }
    }

    #[test]
    fn other_mistakes_say_what_is_right() {
        for (text, start) in [
            ("100%", "lone `%` at byte 3: atoms are written %(name)s"),
            ("x %h", "`%h` (did you mean `%(h)s`?) at byte 2"),
            ("%(h", "`%(h` without a closing parenthesis at byte 0"),
            ("%(h) %(s)s", "`%(h)` without `s` at byte 0"),
            ("%()s", "unknown atom `%()s` at byte 0"),
            ("%({}i)s", "unknown atom `%({}i)s` at byte 0"),
            ("a\nb", "control character at byte 1"),
            ("é%", "lone `%` at byte 2"),
        ] {
            let message = refused(text);
            assert!(message.starts_with(start), "{text}: {message}");
        }
    }

    #[test]
    fn every_atom_of_the_table_and_the_default_compile() {
        for (name, ..) in ATOMS {
            compile(&format!("%({name})s")).expect("it is in the table");
        }
        let default = options::find("access-logformat").and_then(|option| option.default).expect("it has one");
        assert_eq!(compile(default).expect("the default is right").parts.len(), 16);
    }
}
