//! Helpers of the whole-system tests. They panic where a test would.

pub mod cases;
pub mod drawn;
