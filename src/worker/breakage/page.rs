//! The page and its words: pure.

use std::fmt::Write;

use crate::channel::Breakage;
use crate::log::stamp;

/// Asks now and then whether the page is still the answer, and loads the address again when it is not. The question has the same
/// field as that of the browser, so that it is the page that is asked for.
const SCRIPT: &str = "\
const seen = document.body.dataset.seen;
setInterval(async () => {
  try {
    const answer = await fetch(location.href, {headers: {Accept: 'text/html'}, cache: 'no-store'});
    if (answer.headers.get('Tapster-Reload') !== 'failed' || !(await answer.text()).includes('data-seen=\"' + seen + '\"'))
      location.reload();
  } catch {}
}, 500);";

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .3rem 0; }
pre { background: color-mix(in srgb, currentColor 8%, transparent); border-left: 4px solid #c0392b; font: 14px/1.5 ui-monospace, monospace;
  overflow-x: auto; padding: 1rem; }";

/// The page for browsers.
pub fn html(breakage: &Breakage) -> String {
    let Breakage { saved, text } = breakage;
    let error = escaped(error_line(text));
    let place = place(text).map(|(file, line)| format!("<p><b>{}</b>, line {}</p>\n", escaped(file), escaped(line)));
    let place = place.unwrap_or_default();
    // Two failures that are alike are the same page.
    let seen = format!("{saved}-{:x}", text.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())));
    let (time, text) = (time(*saved), escaped(text.trim_end()));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{error}</title>\n<style>\n{STYLE}\n</style>\n<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>\n</head>\n\
         <body data-seen=\"{seen}\">\n<h1>{error}</h1>\n{place}\
         <p>Saved at {time}. The code cannot be loaded; this page renews itself when it can.</p>\n<pre>{text}</pre>\n\
         <script>\n{SCRIPT}\n</script>\n</body>\n</html>\n"
    )
}

/// The same for other clients.
pub fn plain(breakage: &Breakage) -> String {
    format!("The code that was saved at {} cannot be loaded.\n\n{}\n", time(breakage.saved), breakage.text.trim_end())
}

/// The time of the day.
fn time(seconds: u64) -> String {
    let mut text = Vec::new();
    stamp::rfc3339(&mut text, seconds, None);
    let text = String::from_utf8_lossy(&text).into_owned();
    // 2026-11-21T10:00:00+00:00
    text.get(11..19).unwrap_or(&text).to_owned()
}

/// The last line that is no part of a frame: the exception.
fn error_line(text: &str) -> &str {
    let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with(' ');
    text.lines().rev().find(is_said).unwrap_or("The code cannot be loaded")
}

/// File and line of the last frame.
fn place(text: &str) -> Option<(&str, &str)> {
    let frame = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("File \""))?;
    let (file, rest) = frame.split_once('"')?;
    let line = rest.strip_prefix(", line ")?;
    let end = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
    Some((file, &line[..end]))
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(character),
            _ if character.is_control() => write!(safe, "{}", character.escape_default()).expect("a String takes all"),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "cannot load app: importing `app` raised an exception\nTraceback (most recent call last):\n  \
                        File \"/srv/a<b>/app.py\", line 12, in <module>\n    import shop\n  File \"/srv/shop.py\", line 3\n    def (\n        \
                        ^\nSyntaxError: invalid syntax & more\n";

    #[test]
    fn the_page_names_error_file_line_and_time_and_lets_nothing_through() {
        let page = html(&Breakage { saved: 3_661, text: TEXT.into() });
        for part in [
            "<h1>SyntaxError: invalid syntax &amp; more</h1>",
            "<b>/srv/shop.py</b>, line 3<",
            "Saved at ",
            "File &quot;/srv/a&lt;b&gt;/app.py&quot;, line 12",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("a<b>"));
    }

    #[test]
    fn a_text_without_a_traceback_is_its_own_heading() {
        assert_eq!(error_line("workers = 0 (file t.toml): must be\n"), "workers = 0 (file t.toml): must be");
        assert_eq!(place("workers = 0"), None);
        assert_eq!(error_line(""), "The code cannot be loaded");
    }
}
