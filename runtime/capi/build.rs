//! Gives the shared library its name, so that programs that were linked with one minor version load that one, and keeps it loaded.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let part = |name: &str| std::env::var(name).unwrap_or_default();
    if part("CARGO_CFG_TARGET_OS") == "linux" {
        let (major, minor) = (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR"));
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsmalti.so.{major}.{minor}");
        // Stays in memory after dlclose: helper threads of open sessions run its code, and handles stay good.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
