//! The arithmetic of the large products.

use std::fmt;

use serde::{Deserialize, Serialize};
use smalti_kernels::Isa;

/// What the linear layers multiply in. Weights, activations, sums and everything else are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Values rounded to bf16 before they are multiplied, sums in f32 (mixed precision, arXiv 1905.12322).
    Bf16,
}

impl Precision {
    /// The fastest on this machine: bf16 where its products are instructions.
    pub fn fastest() -> Precision {
        if Isa::best().has_bf16() { Precision::Bf16 } else { Precision::F32 }
    }

    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
