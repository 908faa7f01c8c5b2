//! Runs the vision transformers that Smalti trains, and those that PyTorch exports, on x86 and ARM.
//!
//! A model file goes through the [`gate`], a strict profile of ONNX; [`load`] makes a [`Model`] of it, and each
//! thread runs a [`Session`] of its own.

mod engine;

pub mod bench;
pub mod cpu;
pub mod doctor;
pub mod error;
pub mod eval;
pub mod gate;
pub mod load;
pub mod pictures;
pub mod selftest;
pub mod session;

pub use error::{Error, Result};
pub use load::Model;
pub use session::{Output, Prediction, Ranked, Session};
pub use smalti_models as models;
pub use smalti_models::{ModelRecord, Picture, Preprocess};
