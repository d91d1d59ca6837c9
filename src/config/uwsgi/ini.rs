//! An ini file of uWSGI, evaluated as uWSGI does: placeholders, variables of the environment, conditions.

use std::collections::BTreeMap;
use std::path::Path;

/// The section that uWSGI reads.
const SECTION: &str = "uwsgi";

/// What a file may ask of the world.
pub struct World<'a> {
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Usable cores, for `%k`.
    pub cores: usize,
}

/// One option as the file gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub key: String,
    /// Its value, `true` where there is none.
    pub value: String,
    /// Its line, from 1.
    pub number: usize,
}

/// The options of the file at this absolute path, in their order, and what could not be evaluated, as sentences.
pub fn read(text: &str, path: &Path, world: &World<'_>) -> (Vec<Line>, Vec<String>) {
    let mut reader = Reader { path, world, variables: BTreeMap::new(), conditions: Vec::new(), lost: Vec::new() };
    let mut lines: Vec<Line> = Vec::new();
    let mut inside = true;
    for (index, text) in text.lines().enumerate() {
        let text = text.trim();
        let number = index + 1;
        if text.is_empty() || text.starts_with([';', '#']) {
            continue;
        }
        if let Some(section) = text.strip_prefix('[') {
            inside = section.split(']').next() == Some(SECTION);
            continue;
        }
        if !inside {
            continue;
        }
        let (key, value) = text.split_once('=').map_or((text, "true"), |(key, value)| (key.trim(), value.trim()));
        if reader.is_condition(key, value, number) || !reader.holds() {
            continue;
        }
        let value = reader.expand(value, number);
        if matches!(key, "set-placeholder" | "set-ph" | "set") {
            if let Some((name, value)) = value.split_once('=') {
                reader.variables.insert(name.trim().into(), value.trim().into());
            }
            continue;
        }
        reader.variables.insert(key.into(), value.clone());
        lines.push(Line { key: key.into(), value, number });
    }
    (lines, reader.lost)
}

struct Reader<'a> {
    path: &'a Path,
    world: &'a World<'a>,
    /// Options and placeholders so far, for `%(name)`.
    variables: BTreeMap<String, String>,
    /// Whether each open condition holds, the innermost last, and its value for `%(_)`.
    conditions: Vec<(bool, String)>,
    lost: Vec<String>,
}

impl Reader<'_> {
    fn holds(&self) -> bool {
        self.conditions.iter().all(|(holds, _)| *holds)
    }

    /// Takes in a condition or its end; returns whether it was one.
    fn is_condition(&mut self, key: &str, value: &str, number: usize) -> bool {
        match key {
            "endif" | "end-if" => _ = self.conditions.pop(),
            "if-env" | "if-not-env" => {
                let found = (self.world.variable)(value);
                self.conditions.push((found.is_some() == (key == "if-env"), found.unwrap_or_default()));
            }
            "if-exists" | "if-file" | "if-dir" | "if-not-exists" => {
                let value = self.expand(value, number);
                let path = Path::new(&value);
                let holds = match key {
                    "if-file" => path.is_file(),
                    "if-dir" => path.is_dir(),
                    "if-not-exists" => !path.exists(),
                    _ => path.exists(),
                };
                self.conditions.push((holds, value));
            }
            _ if key.starts_with("if-") => {
                self.lost.push(format!(
                    "{key} = {value} (line {number}): this condition is not evaluated, and what it guards is left out"
                ));
                self.conditions.push((false, String::new()));
            }
            "for" | "for-glob" | "for-times" | "endfor" => {
                self.lost.push(format!("{key} = {value} (line {number}): loops are not evaluated"));
            }
            _ => return false,
        }
        true
    }

    fn expand(&mut self, value: &str, number: usize) -> String {
        let mut out = String::new();
        let mut rest = value;
        while let Some(at) = rest.find(['%', '$', '@']) {
            out += &rest[..at];
            let mark = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                let found = match mark {
                    "%" if name == "_" => self.conditions.last().map(|(_, value)| value.clone()),
                    "%" => self.variables.get(name).cloned(),
                    "$" => (self.world.variable)(name),
                    _ => None,
                };
                match found {
                    Some(found) => out += &found,
                    // A format of the log has placeholders of the same form.
                    None if mark == "%" => out += &format!("%({name})"),
                    None => self.lost.push(format!("{mark}({name}) (line {number}): has no value here, and is left empty")),
                }
                rest = after;
            } else if let Some(found) = rest.chars().next().filter(|_| mark == "%").and_then(|letter| self.magic(letter)) {
                out += &found;
                rest = &rest[1..];
            } else {
                out += mark;
            }
        }
        out + rest
    }

    /// The variables of one letter.
    fn magic(&self, letter: char) -> Option<String> {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        match letter {
            'n' => text(self.path.file_stem()),
            's' => text(self.path.file_name()),
            'p' => text(Some(self.path.as_os_str())),
            'd' => text(Some(directory.as_os_str())).map(|directory| format!("{}/", directory.trim_end_matches('/'))),
            'c' => text(directory.file_name()),
            'k' => Some(self.world.cores.to_string()),
            '%' => Some("%".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_variables_and_conditions_are_evaluated() {
        let variable = |name: &str| (name == "PORT").then(|| "8000".to_owned());
        let world = World { variable: &variable, cores: 4 };
        let text = "; a comment\n[uwsgi]\nproject = shop\nset-placeholder = base=/srv/%(project)\nchdir = %(base)\nmaster\n\
                    workers = %k\nsocket = %d%n.sock\nif-env = PORT\nhttp = :%(_)\nendif =\nif-not-env = PORT\nhttp = :80\nendif =\n\
                    if-env = NONE\nthreads = 9\nendif =\nenv = A=$(PORT)$(NONE)\nlog-format = %(addr) 100%%\n[other]\nx = 1\n";
        let (lines, lost) = read(text, Path::new("/etc/uwsgi/apps/shop.ini"), &world);
        let pairs: Vec<_> = lines.iter().map(|line| (line.key.as_str(), line.value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("project", "shop"),
                ("chdir", "/srv/shop"),
                ("master", "true"),
                ("workers", "4"),
                ("socket", "/etc/uwsgi/apps/shop.sock"),
                ("http", ":8000"),
                ("env", "A=8000"),
                ("log-format", "%(addr) 100%"),
            ]
        );
        assert_eq!(lines[1].number, 5);
        assert_eq!(lost, ["$(NONE) (line 18): has no value here, and is left empty"]);
    }
}
