//! The page for people: one file that loads nothing from anywhere. It has the document of its moment inside, so that it shows
//! something before its first question, and then asks for `status.json` each second.

/// The page with `null` in the place of the document.
const PAGE: &str = include_str!("page.html");

/// What stands before and behind the document.
const BEFORE: &str = "<script type=\"application/json\" id=\"data\">";
const BEHIND: &str = "</script>";

/// Value of Content-Security-Policy: what the page may do. Styles and scripts are the two that it has, by their hashes: nothing
/// that a client has sent can become one. `tests/status_page.rs` compares them.
pub const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; \
     style-src 'sha256-h8es7AtqIvZfhVBFSRrwYIL13OHZZp2ho7TuDTUVGNU='; \
     script-src 'sha256-sFYofRdflXRnPJvXcPqVMmgtHiYi+fPAhgehW9AOoh0='; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page with this document, which is JSON.
pub fn render(document: &str) -> String {
    let (before, rest) = PAGE.split_once(BEFORE).unwrap_or((PAGE, ""));
    let behind = rest.split_once(BEHIND).map_or("", |(_, behind)| behind);
    // A path of a request may have a tag in it, which would end the element.
    let document = document.replace('<', "\\u003c");
    [before, BEFORE, &document, BEHIND, behind].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_cannot_leave_its_element() {
        let page = render(r#"{"path":"</script><script>alert(1)</script>"}"#);
        assert!(page.contains(r#"id="data">{"path":"\u003c/script>\u003cscript>alert(1)\u003c/script>"}</script>"#), "{page}");
        assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
        assert_eq!(page.matches("<script").count(), 2);
    }

    #[test]
    fn the_page_loads_nothing_from_anywhere() {
        for word in ["http://", "https://", "@import", "url("] {
            let places: Vec<_> = PAGE.match_indices(word).map(|(at, _)| &PAGE[at..PAGE.len().min(at + 40)]).collect();
            assert!(places.iter().all(|place| place.starts_with("http://www.w3.org/2000/svg")), "{places:?}");
        }
        assert!(!PAGE.contains(" style=\"") && !PAGE.contains(" onclick="), "the policy forbids them");
    }
}
