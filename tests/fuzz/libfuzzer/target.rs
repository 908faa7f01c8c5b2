//! One target, which `SMALTI_TARGET` names, under libFuzzer. Its seeds go to the folder `SMALTI_SEEDS` first.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use smalti_fuzz::{Target, target, write_seeds};

fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: use scripts/fuzz"))
}

static TARGET: LazyLock<Target> = LazyLock::new(|| target(&named("SMALTI_TARGET")));

libfuzzer_sys::fuzz_target!(
    init: write_seeds(&TARGET, Path::new(&named("SMALTI_SEEDS"))).expect("room for seeds"),
    |bytes: &[u8]| {
        if let Err(problem) = (TARGET.run)(bytes) {
            panic!("{problem}");
        }
    }
);
