//! What entries return. The numbers up to 6 and 70 are the exit codes of `smalti-run`.

use std::ffi::c_int;

/// All went well.
pub const SMALTI_OK: c_int = 0;
/// A call that does not fit: a wrong size, a result before the first run, a model without preprocessing.
pub const SMALTI_USAGE: c_int = 2;
/// The model file was refused.
pub const SMALTI_REFUSED: c_int = 3;
/// The self-test failed.
pub const SMALTI_FAILED: c_int = 4;
/// An image or a tensor that cannot be used.
pub const SMALTI_DATA: c_int = 5;
/// The file system said no.
pub const SMALTI_IO: c_int = 6;
/// A null pointer where there must be none.
pub const SMALTI_NULL: c_int = 16;
/// A handle that is closed, or of another kind, or never was one.
pub const SMALTI_HANDLE: c_int = 17;
/// Another thread runs this session.
pub const SMALTI_BUSY: c_int = 18;
/// A bug in the library, caught. The process is well; please report the message with the model.
pub const SMALTI_INTERNAL: c_int = 70;
