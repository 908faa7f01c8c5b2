//! What users ask for: the stages of training.

pub mod finetune;
pub mod pretrain;
