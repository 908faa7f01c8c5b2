//! What programs that were built with this minor version's header hold on to: entries, structs, numbers. `abi.txt` lists them;
//! taking one away or changing it breaks such programs, and needs another minor version.
//! `cargo test -p smalti-capi --test abi -- --ignored` adds what is new.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The declarations of a header, each on a line, sorted; what belongs to C++ and comments are left out.
fn declarations(header: &str) -> BTreeSet<String> {
    let comments = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, rest)| rest));
    let (mut found, mut code) = (BTreeSet::new(), String::new());
    for line in comments.collect::<String>().lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        match line.strip_prefix("#define ") {
            // A number; the guard has none, and the version is to change.
            Some(define) if define.contains(' ') && !define.starts_with("SMALTI_VERSION ") => {
                found.insert(format!("#define {}", words(define)));
            }
            _ if line.starts_with('#') || line.starts_with("extern \"C\"") || line == "}" => {}
            _ => code += &format!("{line} "),
        }
    }
    let (mut depth, mut declaration) = (0, String::new());
    for letter in code.chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == ';' && depth == 0 {
            found.insert(words(&declaration));
            declaration.clear();
        } else {
            declaration.push(letter);
        }
    }
    assert_eq!(words(&declaration), "", "the header ends with a whole declaration");
    found
}

/// With one space between words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The listed declarations that a program would miss. Structs begin with their size: fields may be added at their ends.
fn missing<'a>(listed: &'a BTreeSet<String>, now: &BTreeSet<String>) -> Vec<&'a String> {
    let is_there = |line: &String| {
        let fields =
            line.rsplit_once(" }").map(|(fields, _)| fields).filter(|_| line.contains("{ size_t size;"));
        now.contains(line)
            || fields.is_some_and(|fields| now.iter().any(|now| now.starts_with(&format!("{fields} "))))
    };
    listed.iter().filter(|line| !is_there(line)).collect()
}

fn now() -> BTreeSet<String> {
    declarations(&std::fs::read_to_string(file("smalti.h")).unwrap())
}

fn head() -> String {
    let version = env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap().0;
    format!("# What programs that were built for libsmalti.so.{version} hold on to: tests/abi.rs.\n")
}

#[test]
fn programs_of_this_minor_version_find_what_they_were_built_with() {
    let text = std::fs::read_to_string(file("abi.txt")).unwrap();
    let rest = text
        .strip_prefix(&head())
        .expect("abi.txt is of another minor version: remove it, and write it anew");
    let listed: BTreeSet<String> = rest.lines().map(String::from).collect();
    let now = now();
    assert!(
        now.iter().filter(|line| line.contains("smalti_") && line.ends_with(')')).count() >= 34,
        "{now:#?}"
    );
    let gone = missing(&listed, &now);
    assert!(gone.is_empty(), "programs that were built before miss:\n{gone:#?}\nin the header:\n{now:#?}");
    assert!(now == listed, "abi.txt: run `cargo test -p smalti-capi --test abi -- --ignored`");
}

#[test]
fn what_breaks_a_program_is_told_from_what_does_not() {
    let old = declarations(
        "#define N 3\ntypedef struct a {\n  size_t size; // its size\n  int b;\n} a;\nint f(const a *a,\n      int b);\n",
    );
    let all = ["#define N 3", "int f(const a *a, int b)", "typedef struct a { size_t size; int b; } a"];
    assert_eq!(old, all.map(String::from).into());
    let longer = "#define N 3\ntypedef struct a { size_t size; int b; int c; } a;\nint f(const a *a, int b);\nint g(void);\n";
    assert!(missing(&old, &declarations(longer)).is_empty());
    for (from, to) in
        [("N 3", "N 4"), ("int b; int c;", "int c;"), ("int f(const a *a, int b)", "int f(const a *a)")]
    {
        assert_eq!(missing(&old, &declarations(&longer.replace(from, to))).len(), 1, "{to}");
    }
}

#[test]
#[ignore = "writes abi.txt"]
fn write() {
    let lines: String = now().iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(file("abi.txt"), head() + &lines).unwrap();
}
