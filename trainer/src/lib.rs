//! Masked-autoencoder pretraining and fine-tuning of compact vision transformers, on a CPU.
//!
//! The modules follow the data. [`data`] reads images and makes batches, [`model`] runs forward and backward over one
//! flat parameter vector, [`objective`] says what is hidden and what is compared, [`run`] owns the folder that a run
//! writes, [`train`] sums gradients and moves the parameters, [`stages`] are what users ask for, [`evaluate`] measures
//! the outcome, [`export`] writes it for a device and [`selection`] says what to label next.
#![forbid(unsafe_code)]

pub mod data;
pub mod model;
pub mod objective;
pub mod run;
pub mod teacher;
pub mod train;

pub mod stages;

pub mod bench;
pub mod evaluate;
pub mod export;
pub mod selection;

pub mod clock;
pub mod error;
pub mod files;
pub mod rng;
pub mod sheet;

pub use error::{Error, Result};
