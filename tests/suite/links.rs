//! The documents: whoever follows a link in one arrives.

use std::fs;
use std::path::{Path, PathBuf};

/// Everything that is written for people, from the project's folder on.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    folders.extend(["deploy", "worker", "shared", "tests"].map(|name| root.join(name)));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("it can be read"));
    let mut found: Vec<_> = files.map(|file| file.expect("it can be read").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

/// A document's lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// What a heading is called in a link: lower case, without marks, with hyphens for spaces.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let words: String = heading.trim().to_lowercase().chars().filter(kept).collect();
    words.replace(' ', "-")
}

fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Where the links of a text lead, of those that lead to no other place on the net.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let ends = prose(text).flat_map(|line| line.split("](").skip(1));
    ends.filter_map(|rest| rest.split_once(')')).map(|(to, _)| to).filter(|to| !to.contains("://"))
}

#[test]
fn every_link_in_a_document_leads_to_a_file_and_a_heading_that_are_there() {
    let mut lost = Vec::new();
    let mut followed = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document can be read");
        for link in links(&text) {
            let (path, heading) = link.split_once('#').map_or((link, None), |(p, h)| (p, Some(h)));
            let folder = document.parent().expect("a file lies in a folder");
            let target = if path.is_empty() { document.clone() } else { folder.join(path) };
            let found = match heading {
                None => target.exists(),
                Some(heading) => fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).iter().any(|found| found == heading)),
            };
            followed += 1;
            if !found {
                lost.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(followed > 30, "only {followed} links were found");
}
