//! Compiles the library that stands before libc; where that is not glibc on this machine, there is none.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=faults.c");
    println!("cargo::rustc-check-cfg=cfg(faults)");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let is_glibc = var("CARGO_CFG_TARGET_OS") == "linux" && var("CARGO_CFG_TARGET_ENV") == "gnu";
    if !is_glibc || var("TARGET") != var("HOST") {
        return;
    }
    let library = Path::new(&var("OUT_DIR")).join("faults.so");
    let flags =
        ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Wno-nonnull-compare", "faults.c", "-ldl", "-o"];
    let status = Command::new("cc")
        .args(flags)
        .arg(&library)
        .status()
        .expect("a C compiler, as Rust itself needs one");
    assert!(status.success(), "faults.c does not compile");
    println!("cargo::rustc-cfg=faults");
    println!("cargo::rustc-env=FAULTS={}", library.display());
}
