//! The stages of training that users ask for, each a [`Task`](crate::train::Task) with its settings; and [`import`], which
//! makes a run without training.

pub mod distil;
pub mod finetune;
mod flags;
pub mod head;
pub mod import;
mod neighbours;
pub mod pretrain;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Settings as JSON, for states and checkpoints.
fn to_json(settings: &impl Serialize) -> Result<Value> {
    serde_json::to_value(settings)
        .map_err(|e| Error::Usage(format!("settings cannot be written as JSON: {e}")))
}
