//! Arguments in one text, as a shell would split them: `GUNICORN_CMD_ARGS`, a line of a unit file.

/// Splits `text` at blanks. Quotes and backslashes mean what they mean to `shlex.split` of Python, which gunicorn uses. `None`: a
/// quotation or an escape does not end.
pub fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '\'' => {
                _ = loop {
                    match chars.next()? {
                        '\'' => break word.get_or_insert_default(),
                        c => word.get_or_insert_default().push(c),
                    }
                }
            }
            '"' => {
                _ = loop {
                    match chars.next()? {
                        '"' => break word.get_or_insert_default(),
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\') => word.get_or_insert_default().push(c),
                            c => word.get_or_insert_default().extend(['\\', c]),
                        },
                        c => word.get_or_insert_default().push(c),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let words = |text: &str| split(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(words("--bind=:80  -w 3\n"), ["--bind=:80", "-w", "3"]);
        assert_eq!(
            words(r#"--access-logformat '%(h)s "%(r)s"' -n "a \"b\" \c" x\ y ''"#),
            ["--access-logformat", "%(h)s \"%(r)s\"", "-n", "a \"b\" \\c", "x y", ""]
        );
        assert_eq!(words(""), [] as [&str; 0]);
        for text in ["'", "a\"b", "a\\"] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
