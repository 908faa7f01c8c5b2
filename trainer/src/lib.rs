//! Masked-autoencoder pretraining and fine-tuning of compact vision transformers, on a CPU.
//!
//! The order of the modules is the way the data goes: [`data`] gives batches, [`mask`] hides patches, [`nn`] runs
//! forward and back over the [`ops`], [`step`] sums gradients over threads and [`ranks`], [`optim`] moves the parameters,
//! [`mod@train`] is the loop around them. [`mod@pretrain`], [`mod@finetune`] and [`evaluate`] are what users ask for.
#![forbid(unsafe_code)]

pub mod bench;
pub mod checkpoint;
pub mod clock;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod files;
pub mod finetune;
pub mod mask;
pub mod memory;
pub mod nn;
pub mod onnx;
pub mod ops;
pub mod optim;
pub mod params;
pub mod patch;
pub mod posembed;
pub mod precision;
pub mod pretrain;
pub mod probe;
pub mod ranks;
pub mod reconstruct;
pub mod rng;
pub mod run;
pub mod step;
pub mod train;

pub use error::{Error, Result};
