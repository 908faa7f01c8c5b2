//! The precision of the matrix products of linear layers.

use std::fmt;

use serde::{Deserialize, Serialize};
use smalti_kernels::Isa;

/// The type that linear layers multiply in. Weights, activations, sums and everything else are f32 with both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Operands rounded to bf16, sums in f32 (mixed precision, arXiv 1905.12322).
    Bf16,
}

impl Precision {
    /// The fastest on this machine: bf16 where the processor has instructions for its products.
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
