//! Class banks: learned classes beside a model's own.

use std::ffi::{CString, c_char, c_int};
use std::sync::Mutex;

use smalti_runtime::bank::{Answer, ClassBank};

use crate::border::{self, Result, entry, usage};
use crate::handles::Table;
use crate::learned::{self, smalti_learned_options};
use crate::model::{self, c_texts, file, smalti_model};
use crate::session::{smalti_ranked, smalti_session, with_result};

/// A class bank that `smalti-run learn` wrote, of one model. One thread at a time uses it; on others it is SMALTI_BUSY.
pub struct smalti_bank {
    _opaque: (),
}

/// A bank that C holds.
struct Held {
    bank: ClassBank,
    labels: Vec<CString>,
    answer: Mutex<Answer>,
}

static BANKS: Table<Held> = Table::new("class bank", 2);

/// Takes a bank in; its handle.
fn keep(bank: ClassBank) -> Result<*mut smalti_bank> {
    let (labels, answer) = (c_texts(bank.labels()), Mutex::new(bank.answer()));
    BANKS.insert(Held { bank, labels, answer })
}

/// Reads the class bank of a model. The file is not used afterwards, and the model need not stay open.
///
/// `options` may be null. A damaged file, or one of another model, is SMALTI_REFUSED. On success `*bank` is the bank, to be
/// closed with smalti_bank_close; else it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_bank_open(
    model: *const smalti_model,
    path: *const c_char,
    options: *const smalti_learned_options,
    bank: *mut *mut smalti_bank,
) -> c_int {
    entry("smalti_bank_open", || {
        // SAFETY: what the header asks of callers.
        let (room, path, (trust, _)) = unsafe {
            let room = border::room(bank, "bank")?.write(std::ptr::null_mut());
            (room, border::text(path, "path")?, learned::trust(options)?)
        };
        *room = keep(ClassBank::open(file(path)?, &model::find(model)?.model, &trust)?)?;
        Ok(())
    })
}

/// As smalti_bank_open, of `length` bytes in memory. They are not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_bank_open_bytes(
    model: *const smalti_model,
    bytes: *const u8,
    length: usize,
    options: *const smalti_learned_options,
    bank: *mut *mut smalti_bank,
) -> c_int {
    entry("smalti_bank_open_bytes", || {
        // SAFETY: what the header asks of callers.
        let (room, bytes, (trust, signature)) = unsafe {
            let room = border::room(bank, "bank")?.write(std::ptr::null_mut());
            (room, border::slice(bytes, length, "bytes")?, learned::trust(options)?)
        };
        trust.check(bytes, signature)?;
        *room = keep(ClassBank::from_bytes(bytes, &model::find(model)?.model)?)?;
        Ok(())
    })
}

/// Closes a bank; null is fine.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_bank_close(bank: *mut smalti_bank) -> c_int {
    entry("smalti_bank_close", || {
        if !bank.is_null() {
            BANKS.remove(bank)?;
        }
        Ok(())
    })
}

/// Number of classes: the model's own, or one ("unknown") where it gives nothing but an embedding, and the learned ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_bank_class_count(bank: *const smalti_bank, count: *mut usize) -> c_int {
    entry("smalti_bank_class_count", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(count, "count") }?;
        room.write(BANKS.get(bank)?.labels.len());
        Ok(())
    })
}

/// A class's label in UTF-8: first the model's own, in its order, then the learned ones. It stays where it is until the bank
/// is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_bank_label(
    bank: *const smalti_bank,
    index: usize,
    label: *mut *const c_char,
) -> c_int {
    entry("smalti_bank_label", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(label, "label") }?.write(std::ptr::null());
        let held = BANKS.get(bank)?;
        let count = held.labels.len();
        *room = held.labels.get(index).ok_or_else(|| usage(format!("class {index} of {count}")))?.as_ptr();
        Ok(())
    })
}

/// Bytes of heap that opening the bank and its answers take at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_bank_memory_bound(bank: *const smalti_bank, bytes: *mut usize) -> c_int {
    entry("smalti_bank_memory_bound", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(bytes, "bytes") }?;
        let held = BANKS.get(bank)?;
        room.write(held.bank.memory_bound() + learned::handle_bytes::<Held>(&held.labels));
        Ok(())
    })
}

/// The `k` most probable classes of the session's last run among all of the bank's, as smalti_top_k. Allocates nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_bank_top_k(
    bank: *mut smalti_bank,
    session: *mut smalti_session,
    ranked: *mut smalti_ranked,
    k: usize,
) -> c_int {
    entry("smalti_bank_top_k", || {
        let held = BANKS.get(bank)?;
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::slice_mut(ranked, k, "ranked") }?;
        if k > held.labels.len() {
            return Err(usage(format!("the best {k} of {} classes", held.labels.len())));
        }
        let mut answer = learned::buffers(&held.answer, "class bank")?;
        with_result(session, |model, output| Ok(held.bank.answer_into(model, output, &mut answer)?))?;
        for (room, &(index, probability)) in room.iter_mut().zip(&answer.ranked) {
            let label = held.labels.get(index).map_or(c"".as_ptr(), |label| label.as_ptr());
            room.write(smalti_ranked { index, probability, label });
        }
        Result::Ok(())
    })
}
