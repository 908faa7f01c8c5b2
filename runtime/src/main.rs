//! `smalti-run`.
fn main() {}
