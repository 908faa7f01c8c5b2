//! What files of learned things have in common: how they are opened.

use std::ffi::{CString, c_char};
use std::sync::{Mutex, MutexGuard, TryLockError};

use smalti_runtime::trust::{PublicKey, Trust};

use crate::border::{self, Failure, Prefixed, Result};
use crate::codes::SMALTI_BUSY;
use crate::model::optional;

/// How to open a class bank or an anomaly detector. Fill it with zeros and set the size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct smalti_learned_options {
    /// sizeof(smalti_learned_options).
    pub size: usize,
    /// Open only what this key signed with minisign, as for models; null for no check.
    pub pubkey: *const c_char,
    /// For bytes with a key: the text of the signature file.
    pub signature: *const c_char,
}

// SAFETY: as asked: the size first, and raw pointers behind it, without gaps at the end.
unsafe impl Prefixed for smalti_learned_options {}

/// What a file must show, and the signature for bytes.
///
/// # Safety
/// Unless null, `options` points to as many bytes as it says; the texts in it are null or end with a zero, and stay as they
/// are during `'a`.
pub(crate) unsafe fn trust<'a>(options: *const smalti_learned_options) -> Result<(Trust, Option<&'a str>)> {
    if options.is_null() {
        return Ok(Default::default());
    }
    // SAFETY: the caller's promise.
    let (key, signature) = unsafe {
        let options = border::read(options, "options")?;
        (optional(options.pubkey, "options.pubkey")?, optional(options.signature, "options.signature")?)
    };
    Ok((Trust { key: key.map(PublicKey::named).transpose()?, min_version: None }, signature))
}

/// The buffers of a handle, unless a thread is at them.
pub(crate) fn buffers<'a, T>(buffers: &'a Mutex<T>, name: &str) -> Result<MutexGuard<'a, T>> {
    match buffers.try_lock() {
        Ok(buffers) => Ok(buffers),
        // A panic has passed; every use starts with all that it needs.
        Err(TryLockError::Poisoned(buffers)) => Ok(buffers.into_inner()),
        Err(TryLockError::WouldBlock) => {
            Err(Failure { code: SMALTI_BUSY, message: format!("another thread uses this {name}") })
        }
    }
}

/// Bytes of heap that a handle takes besides what it stands for: labels, and a place in a table.
pub(crate) fn handle_bytes<T>(labels: &[CString]) -> usize {
    let texts: usize =
        labels.iter().map(|label| label.as_bytes_with_nul().len() + size_of::<CString>()).sum();
    size_of::<T>() + texts + PLACE
}

/// Of a node of a table, with the counts of an owner.
const PLACE: usize = 1024;
