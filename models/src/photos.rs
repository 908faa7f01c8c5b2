//! Photos that ship with the project, so that it can be tried and tested without any of one's own.
//!
//! `photos/README.md` says where they are from, and carries their licence.

/// 440 photos of ten kinds of fruit and vegetables in shops, as a tar archive of JPEG files: ten of each kind to learn from
/// in `train/KIND/`, twenty to measure on in `test/KIND/`, and 140 more in `unlabelled/`.
pub const GROCERIES: &[u8] = include_bytes!("../photos/groceries.tar");
