//! The version and the last error.

use std::ffi::{c_char, c_int};

use crate::border::{last_message, text_entry};
use crate::codes::*;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// The library's version, as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn smalti_version() -> *const c_char {
    text_entry("smalti_version", || VERSION.as_ptr().cast())
}

/// What went wrong in the last call on this thread that did not return SMALTI_OK, in one line: what was found, what was
/// expected. Empty before the first. Valid until the next such call on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_last_error() -> *const c_char {
    text_entry("smalti_last_error", last_message)
}

/// A code's name, as "SMALTI_BUSY"; "unknown code" for others. Valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_code_name(code: c_int) -> *const c_char {
    text_entry("smalti_code_name", || {
        let name = match code {
            SMALTI_OK => c"SMALTI_OK",
            SMALTI_USAGE => c"SMALTI_USAGE",
            SMALTI_REFUSED => c"SMALTI_REFUSED",
            SMALTI_FAILED => c"SMALTI_FAILED",
            SMALTI_DATA => c"SMALTI_DATA",
            SMALTI_IO => c"SMALTI_IO",
            SMALTI_NULL => c"SMALTI_NULL",
            SMALTI_HANDLE => c"SMALTI_HANDLE",
            SMALTI_BUSY => c"SMALTI_BUSY",
            SMALTI_INTERNAL => c"SMALTI_INTERNAL",
            _ => c"unknown code",
        };
        name.as_ptr()
    })
}
