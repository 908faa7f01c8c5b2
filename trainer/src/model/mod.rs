//! The models: a stem that makes tokens, a stack of transformer blocks, the encoder around both, the masked autoencoder and the classifier.
//!
//! A model is a struct of slots into the flat parameter vector ([`params`]). Its activations are a struct of buffers that
//! is reused from batch to batch. Its backward pass reads as its forward pass in reverse, and adds to the flat gradient
//! vector ([`grads`]). What a model is trained for is not its business: losses are in [`crate::objective`].

mod block;
pub mod classifier;
mod decoder;
mod encoder;
pub mod grads;
pub mod mae;
pub mod ops;
pub mod params;
pub mod patch;
pub mod posembed;
pub mod precision;
mod stack;
mod stem;
pub mod student;
pub mod weights;

pub use classifier::Classifier;
pub use grads::Grads;
pub use mae::Mae;
pub use student::Student;
