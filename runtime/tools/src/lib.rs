//! What happens to models on a workstation: quantization, comparison, evaluation, measurement.
//!
//! [`quantize`] makes int8 of a float model and holds it to a budget, which [`compare`] measures over [`samples`];
//! [`eval`] tells accuracy over a folder, [`mod@bench`] latency and memory. All of it runs models by [`smalti_runtime`].
//! [`suggest`], `usage` and `shell` are what both programs have in common around the command line.
#![forbid(unsafe_code)]

pub mod bench;
pub mod compare;
pub mod eval;
pub mod markup;
pub mod quantize;
pub mod samples;
#[cfg(feature = "shell")]
pub mod shell;
pub mod suggest;
mod threads;
#[cfg(feature = "cli")]
pub mod usage;
