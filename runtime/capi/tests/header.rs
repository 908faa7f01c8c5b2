//! The committed header against the code. `cargo test -p smalti-capi --test header -- --ignored` writes it anew.

use std::path::{Path, PathBuf};

use cbindgen::{Builder, Config, Language, Style};

const TOP: &str = "\
/* Smalti: runs vision transformers from ONNX files. How to use it: docs/embedding-in-c.md.
 *
 * Written from the library's source by `cargo test -p smalti-capi --test header -- --ignored`.
 *
 * - Entries return SMALTI_OK or another code; smalti_last_error says in words what was wrong. An entry that fails
 *   changes nothing but its outputs.
 * - Handles are checked: a closed or wrong one is SMALTI_HANDLE. Pointers must be null or point to what is said here.
 * - Every entry may be called on any thread. A model is for all threads at once; a session, a class bank and an anomaly
 *   detector are for one at a time: while an entry is at work, they return SMALTI_BUSY on other threads.
 * - No thread is started unless smalti_session_new is asked for more than one. Nothing is written, and nothing read but
 *   the files that are opened by name, and with a key their signatures' and the key's; a caught bug leaves a line on
 *   standard error.
 * - After fork, the child may go on with what was opened before: its sessions run on the calling thread alone. A session that
 *   another thread ran at that moment stays SMALTI_BUSY there. The shared library stays in memory after dlclose.
 * - Structs begin with their size, so that programs run with later versions of the library.
 */
";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate() -> String {
    let mut config = Config {
        language: Language::C,
        style: Style::Both,
        header: Some(TOP.into()),
        include_guard: Some("SMALTI_H".into()),
        cpp_compat: true,
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        line_length: 110,
        after_includes: Some(format!("\n#define SMALTI_VERSION \"{}\"", env!("CARGO_PKG_VERSION"))),
        documentation_style: cbindgen::DocumentationStyle::C99,
        ..Config::default()
    };
    config.function.sort_by = Some(cbindgen::SortKey::None);
    let mut builder = Builder::new().with_config(config);
    for file in ["codes", "model", "session", "learned", "bank", "anomaly", "status"] {
        builder = builder.with_src(folder().join(format!("src/{file}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

fn path() -> PathBuf {
    folder().join("smalti.h")
}

#[test]
fn the_header_is_that_of_the_code() {
    let committed = std::fs::read_to_string(path()).unwrap();
    assert!(committed == generate(), "smalti.h: run `cargo test -p smalti-capi --test header -- --ignored`");
}

#[test]
fn every_entry_is_in_the_header_and_in_the_misuse_suite() {
    let suites = ["tests/misuse.c", "tests/misuse_learned.c"];
    let misuse = suites.map(|suite| std::fs::read_to_string(folder().join(suite)).unwrap()).concat();
    let header = std::fs::read_to_string(path()).unwrap();
    let entries = entries();
    assert_eq!(entries.len(), 34);
    for entry in entries {
        assert!(header.contains(&format!("{entry}(")), "{entry}");
        assert!(misuse.contains(&format!("\"{entry}\"")), "no panic is injected in {entry}");
    }
}

/// The names after `extern "C" fn`, the test's own hook left out.
fn entries() -> Vec<String> {
    let mut entries = Vec::new();
    for file in std::fs::read_dir(folder().join("src")).unwrap() {
        let file = file.unwrap().path();
        if Path::file_stem(&file).is_some_and(|name| name == "injection") {
            continue;
        }
        let source = std::fs::read_to_string(file).unwrap();
        let names = source.split("extern \"C\" fn ").skip(1).filter_map(|rest| rest.split('(').next());
        entries.extend(names.map(String::from));
    }
    entries
}

#[test]
#[ignore = "writes smalti.h"]
fn write() {
    std::fs::write(path(), generate()).unwrap();
}
