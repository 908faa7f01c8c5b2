//! What a model learns from: which patches are hidden, and what is compared with what.

pub mod mask;
