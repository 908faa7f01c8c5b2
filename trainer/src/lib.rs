//! Masked-autoencoder pretraining and fine-tuning of compact vision transformers, on a CPU.
//!
//! The order of the modules is the way the data goes: [`data`] gives batches, [`mask`] hides patches, [`nn`] runs
//! forward and back over the [`ops`], [`step`] sums gradients over threads, [`optim`] moves the parameters.
#![forbid(unsafe_code)]

pub mod data;
pub mod error;
pub mod mask;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod params;
pub mod patch;
pub mod posembed;
pub mod rng;
pub mod step;

pub use error::{Error, Result};
