//! What fronts send, made by hand.

/// Variables of a request that nothing is missing of.
pub const PLAIN: [(&str, &str); 5] =
    [("CONTENT_LENGTH", "0"), ("SCGI", "1"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/"), ("REMOTE_ADDR", "192.0.2.7")];

/// The head of a request in SCGI.
pub fn scgi(variables: &[(&str, &str)]) -> Vec<u8> {
    let pairs: Vec<u8> = variables.iter().flat_map(|(name, value)| format!("{name}\0{value}\0").into_bytes()).collect();
    [format!("{}:", pairs.len()).as_bytes(), &pairs, b","].concat()
}

/// The head of a request in uwsgi.
pub fn uwsgi(variables: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
    let pairs: Vec<u8> = variables.iter().flat_map(|(name, value)| [text(name), text(value)].concat()).collect();
    [&[0][..], &(pairs.len() as u16).to_le_bytes(), &[0], &pairs].concat()
}

/// These variables in the place of those of [`PLAIN`] that have their names.
pub fn with<'a>(variables: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let other = |name: &str| variables.iter().all(|(replaced, _)| *replaced != name);
    PLAIN.into_iter().filter(|(name, _)| other(name)).chain(variables.iter().copied()).collect()
}
