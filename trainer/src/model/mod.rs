//! The models: a stack of transformer blocks, the encoder around it, the masked autoencoder and the classifier.
//!
//! A model is a struct of slots into the flat parameter vector ([`params`]). Its saved activations are a struct of
//! buffers that is reused from batch to batch; its backward reads as its forward reversed.

mod block;
mod branch;
pub mod classifier;
mod decoder;
pub mod encoder;
pub mod mae;
mod mlp;
pub mod ops;
pub mod params;
pub mod patch;
pub mod posembed;
pub mod precision;
mod stack;
pub mod weights;

pub use classifier::Classifier;
pub use encoder::Encoder;
pub use mae::Mae;
