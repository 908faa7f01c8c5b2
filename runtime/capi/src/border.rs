//! Between C and Rust: panics, error messages, pointers.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smalti_runtime::Error;

use crate::codes::{SMALTI_INTERNAL, SMALTI_NULL, SMALTI_OK, SMALTI_USAGE};

/// Why an entry failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: c_int,
    pub(crate) message: String,
}

/// What an entry's work gives.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { code: error.exit_code().into(), message: error.to_string() }
    }
}

/// A call that does not fit.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure { code: SMALTI_USAGE, message: message.into() }
}

thread_local! {
    /// The message of this thread's last failure.
    static LAST: RefCell<CString> = RefCell::default();
}

/// The message of this thread's last failure; valid until the next.
pub(crate) fn last_message() -> *const c_char {
    // No message where the thread is about to end.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn remember(message: &str) {
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    let _ = LAST.try_with(|last| last.replace(message));
}

/// Runs an entry's work; what it returns goes to C.
pub(crate) fn entry(name: &'static str, work: impl FnOnce() -> Result<()>) -> c_int {
    let failure = match caught(name, work) {
        Ok(Ok(())) => return SMALTI_OK,
        Ok(Err(failure)) => failure,
        Err(failure) => failure,
    };
    remember(&failure.message);
    failure.code
}

/// As [`entry`] where C gets text. After a panic it is empty.
pub(crate) fn text_entry(name: &'static str, work: impl FnOnce() -> *const c_char) -> *const c_char {
    caught(name, work).unwrap_or_else(|failure| {
        remember(&failure.message);
        c"".as_ptr()
    })
}

/// Turns a panic into a failure.
fn caught<T>(name: &'static str, work: impl FnOnce() -> T) -> Result<T> {
    let work = || {
        #[cfg(feature = "panic-injection")]
        crate::injection::panic_if_asked(name);
        work()
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = format!("internal error in {name}: {}; please report it", panic_message(&*panic));
        // What a panic carries may itself panic when it is dropped; what that carries is let go.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(std::mem::forget);
        Failure { code: SMALTI_INTERNAL, message }
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// Refuses pointers that nothing can be behind.
fn check<T>(pointer: *const T, count: usize, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(Failure { code: SMALTI_NULL, message: format!("`{name}` is null") });
    }
    if !pointer.is_aligned() {
        return Err(usage(format!("`{name}` is not aligned to {} bytes", align_of::<T>())));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(usage(format!("`{name}`: {count} values are more than memory has")));
    }
    Ok(())
}

/// C's text.
///
/// # Safety
/// Unless null, `pointer` points to text with a zero at its end, which nobody changes during `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a CStr> {
    check(pointer, 1, name)?;
    // SAFETY: not null, and the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// C's array.
///
/// # Safety
/// Unless null or misaligned, `pointer` points to `count` values, which nobody changes during `'a`.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    check(pointer, count, name)?;
    // SAFETY: not null, aligned, of a possible size, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// C's room for an array, whatever is in it.
///
/// # Safety
/// Unless null or misaligned, `pointer` points to room for `count` values, which nobody else uses during `'a`.
pub(crate) unsafe fn slice_mut<'a, T>(
    pointer: *mut T,
    count: usize,
    name: &str,
) -> Result<&'a mut [MaybeUninit<T>]> {
    check(pointer, count, name)?;
    // SAFETY: not null, aligned, of a possible size, and the caller's promise; uninitialised values are allowed.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), count) })
}

/// C's room for one value.
///
/// # Safety
/// As for [`slice_mut`] with one value.
pub(crate) unsafe fn room<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut MaybeUninit<T>> {
    check(pointer, 1, name)?;
    // SAFETY: not null, aligned, and the caller's promise.
    Ok(unsafe { &mut *pointer.cast() })
}

/// A struct that begins with its own size as C's header has it (`size_t`) and whose value is all zeros where nothing is
/// said.
///
/// # Safety
/// The type is `repr(C)`, its first field is that size, and all zeros are a value of it; so is any other pattern of
/// bits.
pub(crate) unsafe trait Prefixed: Copy {}

/// The size that a struct says.
///
/// # Safety
/// Unless null or misaligned, `pointer` points to at least a `size_t`.
unsafe fn said_size<T: Prefixed>(pointer: *const T, name: &str) -> Result<usize> {
    check(pointer, 1, name)?;
    // SAFETY: not null, aligned, and the caller's promise; the trait's: the size comes first.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < size_of::<usize>() || size > 4096 {
        return Err(usage(format!("`{name}`: its size is {size}; set it to sizeof the struct")));
    }
    Ok(size)
}

/// Reads such a struct of an older or newer header than this library's. One that says anything beyond what this library
/// knows is refused.
///
/// # Safety
/// Unless null or misaligned, `pointer` points to as many bytes as the struct says.
pub(crate) unsafe fn read<T: Prefixed>(pointer: *const T, name: &str) -> Result<T> {
    // SAFETY: the caller's promise.
    let size = unsafe { said_size(pointer, name) }?;
    // SAFETY: the caller's promise, and bytes have no alignment.
    let bytes = unsafe { slice(pointer.cast::<u8>(), size, name) }?;
    let (known, unknown) = bytes.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|&byte| byte != 0) {
        return Err(usage(format!(
            "`{name}` asks for something that this version of the library does not know"
        )));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: both are valid for that many bytes, and apart; the trait's promise: any bits are a value.
    unsafe {
        std::ptr::copy_nonoverlapping(known.as_ptr(), value.as_mut_ptr().cast(), known.len());
        Ok(value.assume_init())
    }
}

/// Writes as much of such a struct as the caller's header knows; its size stays.
///
/// # Safety
/// Unless null or misaligned, `pointer` points to as many bytes as the struct there says, which nobody else uses.
pub(crate) unsafe fn write<T: Prefixed>(pointer: *mut T, value: &T, name: &str) -> Result<()> {
    // SAFETY: the caller's promise.
    let size = unsafe { said_size(pointer.cast_const(), name) }?;
    let (skip, end) = (size_of::<usize>(), size.min(size_of::<T>()));
    // SAFETY: both are valid up to `end`, and apart, as `value` is ours.
    unsafe {
        let (from, to) = (std::ptr::from_ref(value).cast::<u8>(), pointer.cast::<u8>());
        std::ptr::copy_nonoverlapping(from.add(skip), to.add(skip), end - skip);
    }
    Ok(())
}
