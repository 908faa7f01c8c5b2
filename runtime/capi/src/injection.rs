//! A panic in an entry of choice, for the misuse tests alone.

use std::ffi::{CStr, c_char};
use std::sync::{Mutex, PoisonError};

static ASKED: Mutex<Option<String>> = Mutex::new(None);

/// Makes the next call of that entry panic; "run" is the middle of a run.
///
/// # Safety
/// `entry` is text with a zero at its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_test_panic(entry: *const c_char) {
    // SAFETY: the caller's promise.
    let entry = unsafe { CStr::from_ptr(entry) };
    *ASKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry.to_string_lossy().into_owned());
}

pub(crate) fn panic_if_asked(entry: &str) {
    let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    if asked.take_if(|asked| asked == entry).is_some() {
        panic!("as the test asked");
    }
}
