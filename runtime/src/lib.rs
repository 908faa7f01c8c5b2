//! Runs the vision transformers that Smalti trains, and those that PyTorch exports, on x86 and ARM.
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models")).unwrap();
//! use smalti_runtime::{Model, images};
//!
//! let model = Model::open("colours_u8.onnx")?;
//! let prediction = model.session()?.classify(&images::open_for("red.png", &model)?)?;
//! assert_eq!(prediction.best().map(|best| best.label.as_str()), Some("red"));
//! # Ok::<(), smalti_runtime::Error>(())
//! ```
//!
//! A model file goes through the [`gate`], a strict profile of ONNX; [`load`] makes a [`Model`] of it, and each
//! thread runs a [`Session`] of its own.
//!
//! # Features
//!
//! `tract`, on by default: tract runs the graphs that our own kernels do not. Without it they are refused
//! ([`Error::Refused`]).

mod backend;
mod cgroup;
mod compile;
mod complete;
#[cfg(feature = "tract")]
mod engine;
mod gaussian;
mod guard;
mod outputs;
mod pieces;
mod scalar;
mod store;
mod text;

pub mod anomaly;
pub mod bank;
pub mod cpu;
pub mod digest;
pub mod doctor;
pub mod error;
pub mod explain;
pub mod files;
pub mod gate;
pub mod images;
pub mod inspect;
pub mod load;
pub mod memory;
pub mod selftest;
pub mod session;
pub mod stream;
pub mod taps;
pub mod tokens;
pub mod trust;
pub mod watch;

pub use error::{Error, Result};
pub use load::{Model, OpenOptions};
pub use session::{Output, Prediction, Ranked, Session};
pub use smalti_models as models;
pub use smalti_models::{Image, ModelRecord, Preprocess};
pub use text::printable;
