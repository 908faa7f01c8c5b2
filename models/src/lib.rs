//! What the Smalti trainer and runtime share.
//!
//! The order of the modules is the order of the data: a [`vit`] configuration (often a [`presets`] one) with its [`stem`]
//! and [`variant`] fixes the tensors in [`names`]; a [`folder`] lists images with their splits and classes; an [`image`] goes through
//! [`resize`] and [`preprocess`] into the model; [`contract`] is what an exported ONNX file says
//! about all of that, and [`onnx`] has the messages of such a file. [`starts`] are weights to begin with, [`photos`]
//! images to try everything on, [`accuracy`] says how far a measured one can be trusted, a [`heat_map`] what an answer depends on,
//! [`foreign`] what a file is that is none of these. Everything is written by [`files`].
#![forbid(unsafe_code)]

pub mod accuracy;
pub mod contract;
pub mod error;
pub mod files;
pub mod folder;
pub mod foreign;
pub mod heat_map;
pub mod image;
pub mod names;
pub mod onnx;
pub mod photos;
pub mod preprocess;
pub mod presets;
pub mod resize;
pub mod starts;
pub mod stem;
pub mod variant;
pub mod vit;

pub use contract::ModelRecord;
pub use error::{Error, Result};
pub use heat_map::HeatMap;
pub use image::Image;
pub use preprocess::Preprocess;
pub use stem::Stem;
pub use variant::Variant;
pub use vit::{DecoderConfig, DecoderKind, MaeConfig, Pooling, VitConfig};
