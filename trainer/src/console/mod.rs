//! What the program shows and hears: results, messages, progress, signals.

pub(crate) mod log;
pub(crate) mod out;
pub(crate) mod progress;
pub(crate) mod signals;
