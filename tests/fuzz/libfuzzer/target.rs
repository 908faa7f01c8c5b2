//! The target that this program is named after.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(problem) = (smalti_fuzz::target(env!("CARGO_BIN_NAME")).run)(bytes) {
        panic!("{problem}");
    }
});
