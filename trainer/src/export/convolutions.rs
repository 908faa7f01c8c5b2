//! The graph of a convolutional stem, from the planes of an image to its tokens.
//!
//! ```text
//! stages × [Conv Relu, and with a residual branch Conv Relu Conv Add] ─ Relu ─ Reshape Transpose
//! ```
//! Batch norms are folded into the convolutions (arXiv 1712.05877, section 3.2): `NAME.conv.weight_folded` is the weight
//! times the norm's factor, `NAME.conv.bias_folded` its offset. Bytes are normalised before the first convolution and not
//! within it, since its border of zeros stands for pixels of the mean.

use smalti_models::onnx::AttributeProto;
use smalti_models::{Preprocess, VitConfig};

use super::builder::Builder;
use crate::error::{Error, Result};
use crate::model::ops::batch_norm::BatchNorm;
use crate::model::params::Layout;

/// A stem's tensors on their way into a graph.
pub(super) struct Stem<'a> {
    pub(super) vit: &'a VitConfig,
    pub(super) layout: &'a Layout,
    pub(super) params: &'a [f32],
    pub(super) graph: &'a mut Builder,
}

impl Stem<'_> {
    /// Normalises planes of bytes as floats: `(x / 255 - mean) / std`.
    pub(super) fn normalise(&mut self, planes: &str, preprocess: &Preprocess) -> Result<String> {
        let channels = preprocess.mean.iter().zip(&preprocess.std);
        let (factors, offsets): (Vec<f32>, Vec<f32>) = channels
            .map(|(&mean, &std)| (f64::from(mean), f64::from(std)))
            .map(|(mean, std)| ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32))
            .unzip();
        if !factors.iter().chain(&offsets).all(|value| value.is_finite()) {
            let std = &preprocess.std;
            return Err(Error::Usage(format!(
                "std {std:?} is too small to normalise bytes by; export with --input f32-nchw"
            )));
        }
        let shape = [1, factors.len(), 1, 1];
        let factors = self.graph.floats("image.factor", &shape, &factors);
        let offsets = self.graph.floats("image.offset", &shape, &offsets);
        let scaled = self.graph.node("Mul", "image.scaled", &[planes, &factors], vec![]);
        Ok(self.graph.node("Add", "image.normalised", &[scaled, offsets], vec![]))
    }

    /// `[1, patches, dim]` from normalised planes `[1, C, H, W]`.
    pub(super) fn tokens(&mut self, planes: String) -> Result<String> {
        let mut x = planes;
        for (i, stage) in self.vit.stages().iter().enumerate() {
            let name = |part: &str| format!("stages.{i}.{part}");
            let down = self.conv_norm(&name("down"), &x, stage.inputs, 2)?;
            x = self.relu(&name("down.relu"), &down);
            if stage.residual {
                let hidden = self.conv_norm(&name("conv1"), &x, stage.width, 1)?;
                let hidden = self.relu(&name("conv1.relu"), &hidden);
                let branch = self.conv_norm(&name("conv2"), &hidden, stage.width, 1)?;
                x = self.graph.node("Add", &format!("stages.{i}"), &[x, branch], vec![]);
            }
        }
        let map = self.relu("stages.relu", &x);
        let shape = self.graph.sizes("stages.shape", &[1, self.vit.dim, self.vit.patches()]);
        let columns = self.graph.node("Reshape", "stages.columns", &[map, shape], vec![]);
        Ok(self.graph.node("Transpose", "stages", &[columns], vec![AttributeProto::ints("perm", &[0, 2, 1])]))
    }

    fn relu(&mut self, name: &str, x: &str) -> String {
        self.graph.node("Relu", name, &[x], vec![])
    }

    /// A 3x3 convolution and its norm as one convolution with a bias.
    fn conv_norm(&mut self, name: &str, x: &str, inputs: usize, stride: i64) -> Result<String> {
        let weight = self.layout.slot(&format!("{name}.conv.weight"))?.of(self.params);
        let (factors, offsets) = BatchNorm::find(self.layout, name)?.folded(self.params);
        let rows = weight.chunks_exact(9 * inputs).zip(&factors);
        let folded: Vec<f32> =
            rows.flat_map(|(row, factor)| row.iter().map(move |weight| weight * factor)).collect();
        let shape = [offsets.len(), inputs, 3, 3];
        let weight = self.graph.floats(&format!("{name}.conv.weight_folded"), &shape, &folded);
        let bias = self.graph.floats(&format!("{name}.conv.bias_folded"), &[offsets.len()], &offsets);
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[3; 2]),
            AttributeProto::ints("pads", &[1; 4]),
            AttributeProto::ints("strides", &[stride; 2]),
        ];
        Ok(self.graph.node("Conv", &format!("{name}.conv"), &[x, &weight, &bias], attributes))
    }
}
