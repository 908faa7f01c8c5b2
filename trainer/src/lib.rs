//! Masked-autoencoder pretraining and fine-tuning of compact vision transformers, on a CPU.
#![forbid(unsafe_code)]

pub mod data;
pub mod error;
pub mod rng;

pub use error::{Error, Result};
