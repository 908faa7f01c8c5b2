//! A model in a web page: what `smalti-run page` puts beside the model's file, compiled to WebAssembly by
//! `scripts/wasm`.
//!
//! A page writes a file's bytes into the [`room`] that it asked for, calls an entry, and reads the answer: JSON, a PNG
//! file, or what was wrong. No pointer goes in, so nothing here is unsafe but the names that the entries keep.
//!
//! A panic ends the module, as WebAssembly cannot catch one: the page starts it anew.

mod answers;

use std::cell::RefCell;

pub use answers::Answers;

thread_local! {
    static ANSWERS: RefCell<Answers> = RefCell::default();
}

/// Makes room for the bytes of a file and gives its address; none if there is not so much memory.
// SAFETY: no other function has the name.
#[unsafe(no_mangle)]
pub extern "C" fn room(len: usize) -> *mut u8 {
    ANSWERS.with_borrow_mut(|answers| answers.room(len).map_or(std::ptr::null_mut(), <[u8]>::as_mut_ptr))
}

/// Opens the model whose file was written and runs its test vectors; the answer says what it is.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn open() -> bool {
    ANSWERS.with_borrow_mut(Answers::open)
}

/// Classifies the image whose file was written; the answer has that many labels, most probable first.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn classify(top_k: u32) -> bool {
    ANSWERS.with_borrow_mut(|answers| answers.classify(top_k as usize))
}

/// Draws what the probability of a class, by its number, depends on over the image whose file was written; a negative
/// number stands for the most probable class. The answer is a PNG file.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn explain(class: i32) -> bool {
    ANSWERS.with_borrow_mut(|answers| answers.explain(usize::try_from(class).ok()))
}

/// Where the answer of the last entry stands, or what was wrong if that gave `false`.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> *const u8 {
    ANSWERS.with_borrow(|answers| answers.answer().as_ptr())
}

/// Bytes of the answer.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn answer_len() -> usize {
    ANSWERS.with_borrow(|answers| answers.answer().len())
}
