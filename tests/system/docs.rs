//! The documentation: every link leads somewhere, and the book has every page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The Markdown files of a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The lines of a page that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence && !line.starts_with("    ")
    })
}

/// What a page links to, `[text](target)` and `[text]: target`.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        if let Some((_, target)) = line.split_once("]: ").filter(|_| line.starts_with('[')) {
            found.push(target.trim().to_owned());
        }
        found.extend(line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    found
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ';
    headings
        .map(|heading| {
            heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// What is wrong with a page's links.
fn dead_links(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let outside = |link: &String| link.contains("://") || link.starts_with("mailto:");
    let dead = |link: &String| {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
        if !target.exists() {
            return true;
        }
        !anchor.is_empty() && !anchors(&fs::read_to_string(&target).unwrap_or_default()).contains(anchor)
    };
    let links = links(&text).into_iter().filter(|link| !outside(link)).filter(dead);
    links.map(|link| format!("{}: {link}", page.display())).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let folders = [root.clone(), root.join("docs"), root.join("models/cards"), root.join("tests/golden")];
    let pages: Vec<PathBuf> = folders.iter().flat_map(|folder| pages(folder)).collect();
    assert!(pages.len() > 20, "{pages:?}");
    let dead: Vec<String> = pages.iter().flat_map(|page| dead_links(page)).collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn a_dead_link_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("a.md");
    fs::write(&page, "# One two\n[x](#one-two) [y](b.md) [z](#three)\n\n    [code](no.md)\n").unwrap();
    let dead = dead_links(&page);
    assert!(dead.len() == 2 && dead[0].ends_with("b.md") && dead[1].ends_with("#three"), "{dead:?}");
}

#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let listed: BTreeSet<String> =
        links(&fs::read_to_string(docs.join("SUMMARY.md")).unwrap()).into_iter().collect();
    let there = pages(&docs).into_iter().map(|page| page.file_name().unwrap().to_string_lossy().into_owned());
    let there: BTreeSet<String> = there.filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(listed, there);
}
