//! How an image becomes tokens: by its patches, or by stages of convolutions.
//!
//! ```text
//! image ─ stages.0 ─ stages.1 ─ stages.2 ─ stages.3 ─ ReLU ─ one token for each 16 x 16 pixels
//!
//! stage          x ─ down (3x3, stride 2) ─ norm ─ ReLU ─ residual
//! residual       x + norm(conv2(ReLU(norm(conv1(x)))))          not in stages.0
//! ```
//! Plain 3x3 convolutions with stride 2 in front of a transformer are those of arXiv 2106.14881; the residual branch is
//! the basic block of arXiv 1512.03385 without its last ReLU. The scale of its last norm starts at zero
//! (arXiv 1706.02677, section 5.1), so a fresh stem is a chain of four convolutions.

use serde::{Deserialize, Serialize};

/// What stands in front of the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// One linear layer on each patch, and a class token (arXiv 2010.11929).
    #[default]
    Patches,
    /// [`STAGES`] stages of convolutions and no class token. The blocks behind them start as the identity.
    Convolutions,
}

impl Stem {
    /// Whether patches are embedded one by one.
    pub fn is_patches(&self) -> bool {
        *self == Stem::Patches
    }
}

/// Stages of a convolutional stem.
pub const STAGES: usize = 4;
/// Side of the square of pixels that becomes one token of a convolutional stem: each stage halves the image.
pub const STRIDE: usize = 1 << STAGES;
/// The width of a token is a multiple of this, so that the widths of all stages are whole numbers.
pub const WIDTH_UNIT: usize = 16;
/// Added to the variance under the root of a batch norm (arXiv 1502.03167; PyTorch's default).
pub const BATCH_NORM_EPS: f32 = 1e-5;

/// One stage: a convolution that halves the image, and a residual branch of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Channels of its input.
    pub inputs: usize,
    /// Channels of its output.
    pub width: usize,
    /// Side of its output in positions.
    pub side: usize,
    /// Whether it has a residual branch.
    pub residual: bool,
}

/// The stages from images `[channels, img_size, img_size]` to tokens of width `dim`. Their widths are 3, 6, 12 and 16
/// sixteenths of `dim`: 24, 48, 96, 128 for 128.
pub fn stages(img_size: usize, channels: usize, dim: usize) -> [Stage; STAGES] {
    let widths = [3, 6, 12, 16].map(|parts| dim / WIDTH_UNIT * parts);
    std::array::from_fn(|i| Stage {
        inputs: if i == 0 { channels } else { widths[i - 1] },
        width: widths[i],
        side: img_size >> (i + 1),
        residual: i > 0,
    })
}

/// Multiply-adds of all convolutions on one image.
pub fn multiply_adds(stages: &[Stage]) -> u64 {
    let stage = |stage: &Stage| {
        let branch = if stage.residual { 2 * stage.width } else { 0 };
        (stage.side * stage.side * 9 * stage.width * (stage.inputs + branch)) as u64
    };
    stages.iter().map(stage).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_halve_the_image_and_follow_the_width() {
        let stages = stages(96, 3, 128);
        assert_eq!(stages.map(|stage| stage.inputs), [3, 24, 48, 96]);
        assert_eq!(stages.map(|stage| stage.width), [24, 48, 96, 128]);
        assert_eq!(stages.map(|stage| stage.side), [48, 24, 12, 6]);
        let millions = multiply_adds(&stages) as f64 / 1e6;
        assert!((75.0..77.0).contains(&millions), "{millions}");
    }
}
