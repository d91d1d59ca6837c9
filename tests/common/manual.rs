//! Examples of the manual page, so that they are run as they stand.

/// The example of tapster(8) or tapster-gateways(7) that begins with the line `first`, which is left out; troff's escapes are taken away.
#[track_caller]
pub fn example(first: &str) -> String {
    let pages = [include_str!("../../man/tapster.8"), include_str!("../../man/tapster-gateways.7")];
    let begin = format!(".EX\n{first}\n");
    let rest = pages.iter().find_map(|page| page.split_once(&begin)).unwrap_or_else(|| panic!("a page has {first:?}")).1;
    let block = rest.split("\n.EE").next().expect("the block ends");
    block.replace("\\-", "-").replace("\\e", "\\").replace("\\('e", "\u{e9}")
}
