//! The strict reader of weights: what it takes from files of timm and Hugging Face, and what it refuses.

mod accounting;
mod golden;
mod lies;
mod support;
