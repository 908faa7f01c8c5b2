//! `smalti`.
fn main() {}
