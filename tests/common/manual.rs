//! Examples of the manual page, so that they are run as they stand.

/// The example of tapster(8) that begins with the line `first`, which is left out; troff's escapes are taken away.
#[track_caller]
pub fn example(first: &str) -> String {
    let page = include_str!("../../man/tapster.8");
    let (_, rest) = page.split_once(&format!(".EX\n{first}\n")).unwrap_or_else(|| panic!("man/tapster.8 has {first:?}"));
    let block = rest.split("\n.EE").next().expect("the block ends");
    block.replace("\\-", "-").replace("\\e", "\\")
}
