//! What a model is trained for: the loss, and its gradient where the model hands over.
//!
//! An objective holds what is compared and how. Its `loss` runs the model forward and compares. Its `gradient` also writes
//! the loss's gradient into the model's activations and runs the model's backward passes. A new objective on the same
//! model needs no change of the model: a loss on embeddings runs [`Classifier::embed`], writes `dembeddings` and runs
//! [`Classifier::embed_backward`].
//!
//! [`Classifier::embed`]: crate::model::Classifier::embed
//! [`Classifier::embed_backward`]: crate::model::Classifier::embed_backward

pub mod classify;
pub mod features;
pub mod mask;
pub mod pixels;

pub use classify::CrossEntropy;
pub use features::FeatureLoss;
pub use mask::Mask;
pub use pixels::PixelLoss;
