//! The graph of a classifier, batch 1, every shape fixed.
//!
//! ```text
//! image ─ (Cast Transpose) Conv Reshape Transpose ─ Concat class token ─ Add positions (─ Concat registers)
//!   ─ depth × [LayerNormalization, linear qkv, Split, heads, MatMul Mul Softmax MatMul, linear proj, Add,
//!              LayerNormalization, linear fc1, GELU, linear fc2, Add]
//!   ─ class token's row, or mean of the patches' rows ─ LayerNormalization = embedding
//!   ─ linear head = logits
//! ```
//! LayerScale's factors are in the weights of the layer before them. Queries and keys with norms of their own come from
//! linear layers of their own, as do both sides of SwiGLU, `fc1.gate` and `fc1.value`, so that nothing has to be cut apart:
//! `Sigmoid Mul` and the product of both. A model without a head ends with its embedding. Behind a convolutional stem ([`super::convolutions`]) there is neither a class token nor the last norm.
//!
//! A linear layer is `MatMul` with the transposed weight (`NAME.weight_t`) and `Add` of the bias; GELU is exact,
//! `Div Erf Add Mul Mul`. Engines know these forms from PyTorch's exporter and fuse them. Weights that are
//! stored as they are carry timm's names.

use smalti_models::contract::{EMBEDDING, INPUT, LOGITS};
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{AttributeProto, GraphProto};
use smalti_models::variant::Mlp;
use smalti_models::{Pooling, Preprocess, VitConfig, names, stem};

use super::builder::Builder;
use super::convolutions::Stem;
use super::fold::{fold, scale_rows};
use super::{Head, InputForm};
use crate::error::Result;
use crate::model::Classifier;

/// Names of the numbers that all blocks share.
const SQRT_2: &str = "gelu.sqrt2";
const ONE: &str = "gelu.one";
const HALF: &str = "gelu.half";
const SCALE: &str = "attn.scale";
const HEADS: &str = "attn.heads";
const ROWS: &str = "attn.rows";

/// A classifier's tensors on their way into a graph.
struct Export<'a> {
    model: &'a Classifier,
    params: &'a [f32],
    graph: Builder,
}

/// The graph of a classifier with these parameters.
pub(super) fn graph(
    model: &Classifier,
    params: &[f32],
    preprocess: &Preprocess,
    form: InputForm,
    head: Head,
) -> Result<GraphProto> {
    let mut export = Export { model, params, graph: Builder::default() };
    export.shared();
    let patches = match (export.vit().stem, form) {
        (stem::Stem::Patches, InputForm::U8Nhwc) => export.bytes(preprocess)?,
        (stem::Stem::Patches, InputForm::F32Nchw) => export.floats()?,
        (stem::Stem::Convolutions, form) => export.convolutions(preprocess, form)?,
    };
    let mut x = export.tokens(&patches)?;
    for i in 0..export.vit().depth {
        x = export.block(&format!("blocks.{i}"), &x)?;
    }
    export.head(&x, head)?;
    Ok(export.graph.finish("smalti"))
}

impl Export<'_> {
    fn vit(&self) -> &VitConfig {
        self.model.vit()
    }

    /// A tensor's values.
    fn values(&self, name: &str) -> Result<&[f32]> {
        Ok(self.model.layout().slot(name)?.of(self.params))
    }

    /// Stores a tensor as it is, under its own name.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<String> {
        let values = self.model.layout().slot(name)?.of(self.params);
        Ok(self.graph.floats(name, shape, values))
    }

    /// The numbers that all blocks share.
    fn shared(&mut self) {
        let VitConfig { dim, heads, .. } = *self.vit();
        let (tokens, head_dim) = (self.vit().tokens(), self.vit().head_dim());
        let scale = 1.0 / (head_dim as f64).sqrt();
        self.graph.sizes(HEADS, &[1, tokens, heads, head_dim]);
        self.graph.sizes(ROWS, &[1, tokens, dim]);
        for (name, value) in
            [(SCALE, scale as f32), (SQRT_2, std::f32::consts::SQRT_2), (ONE, 1.0), (HALF, 0.5)]
        {
            self.graph.floats(name, &[], &[value]);
        }
    }

    /// An image of normalised floats, channels first.
    fn float_planes(&mut self) -> String {
        let VitConfig { img_size, channels, .. } = *self.vit();
        self.graph.input(INPUT, DataType::Float, &[1, channels, img_size, img_size])
    }

    /// An image of bytes, channels last, as floats, channels first.
    fn byte_planes(&mut self) -> String {
        let VitConfig { img_size, channels, .. } = *self.vit();
        let image = self.graph.input(INPUT, DataType::Uint8, &[1, img_size, img_size, channels]);
        let real = self.graph.node(
            "Cast",
            "image.float",
            &[image],
            vec![AttributeProto::int("to", DataType::Float as i64)],
        );
        self.graph.node(
            "Transpose",
            "image.planes",
            &[real],
            vec![AttributeProto::ints("perm", &[0, 3, 1, 2])],
        )
    }

    /// Patches of an image of normalised floats.
    fn floats(&mut self) -> Result<String> {
        let VitConfig { patch_size, channels, dim, .. } = *self.vit();
        let image = self.float_planes();
        let weight = self.tensor("patch_embed.proj.weight", &[dim, channels, patch_size, patch_size])?;
        let bias = self.tensor("patch_embed.proj.bias", &[dim])?;
        Ok(self.patches(image, weight, bias))
    }

    /// Patches of an image of bytes; the embedding's weights do the normalising.
    fn bytes(&mut self, preprocess: &Preprocess) -> Result<String> {
        let VitConfig { patch_size, channels, dim, .. } = *self.vit();
        let planes = self.byte_planes();
        let [weight, bias] = ["weight", "bias"].map(|part| format!("patch_embed.proj.{part}"));
        let (weight, bias) = fold(self.values(&weight)?, self.values(&bias)?, preprocess)?;
        let shape = [dim, channels, patch_size, patch_size];
        let weight = self.graph.floats("patch_embed.proj.weight_folded", &shape, &weight);
        let bias = self.graph.floats("patch_embed.proj.bias_folded", &[dim], &bias);
        Ok(self.patches(planes, weight, bias))
    }

    /// `[1, patches, dim]`.
    fn patches(&mut self, planes: String, weight: String, bias: String) -> String {
        let side = self.vit().patch_size as i64;
        let sizes = [1, self.vit().dim, self.vit().patches()];
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[side; 2]),
            AttributeProto::ints("strides", &[side; 2]),
        ];
        let map = self.graph.node("Conv", "patch_embed.proj", &[planes, weight, bias], attributes);
        let shape = self.graph.sizes("patch_embed.shape", &sizes);
        let columns = self.graph.node("Reshape", "patch_embed.columns", &[map, shape], vec![]);
        self.graph.node(
            "Transpose",
            "patch_embed",
            &[columns],
            vec![AttributeProto::ints("perm", &[0, 2, 1])],
        )
    }

    /// What the stages of a convolutional stem make of the image: `[1, patches, dim]`.
    fn convolutions(&mut self, preprocess: &Preprocess, form: InputForm) -> Result<String> {
        let planes = match form {
            InputForm::U8Nhwc => self.byte_planes(),
            InputForm::F32Nchw => self.float_planes(),
        };
        let (vit, layout) = (self.model.vit(), self.model.layout());
        let mut stem = Stem { vit, layout, params: self.params, graph: &mut self.graph };
        let planes = match form {
            InputForm::U8Nhwc => stem.normalise(&planes, preprocess)?,
            InputForm::F32Nchw => planes,
        };
        stem.tokens(planes)
    }

    /// Class token and registers in front, if there are any, positions on what has some: `[1, tokens, dim]`.
    fn tokens(&mut self, patches: &str) -> Result<String> {
        let (dim, rows, registers) = (self.vit().dim, self.vit().positions(), self.vit().variant.registers);
        if self.vit().class_tokens() == 0 {
            let positions = self.tensor("pos_embed", &[1, rows, dim])?;
            return Ok(self.graph.node("Add", "tokens.placed", &[patches, &positions], vec![]));
        }
        let class_token = self.tensor("cls_token", &[1, 1, dim])?;
        if self.vit().variant.no_embed_class {
            let mut prefix = vec![class_token];
            if registers > 0 {
                prefix.push(self.tensor("reg_token", &[1, registers, dim])?);
            }
            let positions = self.tensor("pos_embed", &[1, rows, dim])?;
            prefix.push(self.graph.node("Add", "tokens.placed", &[patches, &positions], vec![]));
            return Ok(self.graph.node("Concat", "tokens", &prefix, vec![AttributeProto::int("axis", 1)]));
        }
        let positions = self.tensor("pos_embed", &[1, rows, dim])?;
        let all = self.graph.node(
            "Concat",
            "tokens",
            &[class_token.as_str(), patches],
            vec![AttributeProto::int("axis", 1)],
        );
        Ok(self.graph.node("Add", "tokens.placed", &[all, positions], vec![]))
    }

    fn layer_norm(&mut self, output: &str, name: &str, x: &str) -> Result<String> {
        let (dim, eps) = (self.values(&format!("{name}.bias"))?.len(), self.vit().variant.norm_eps);
        let weight = self.tensor(&format!("{name}.weight"), &[dim])?;
        let bias = self.tensor(&format!("{name}.bias"), &[dim])?;
        let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", eps)];
        Ok(self.graph.node("LayerNormalization", output, &[x, &weight, &bias], attributes))
    }

    /// `x · weightᵀ + bias`, with the weight stored transposed.
    fn linear(&mut self, output: &str, name: &str, x: &str) -> Result<String> {
        let outputs = self.values(&format!("{name}.bias"))?.len();
        let weight = transpose(self.values(&format!("{name}.weight"))?, outputs);
        let shape = [weight.len() / outputs.max(1), outputs];
        let weight = self.graph.floats(&format!("{name}.weight_t"), &shape, &weight);
        let bias = self.tensor(&format!("{name}.bias"), &[outputs])?;
        Ok(self.product(output, name, x, [&weight, &bias]))
    }

    /// As [`Export::linear`], of one of several parts of the outputs: a layer of its own, named after the `part`.
    fn part(&mut self, name: &str, [i, of]: [usize; 2], part: &str, x: &str) -> Result<String> {
        let [weight, bias] = [self.values(&format!("{name}.weight"))?, self.values(&format!("{name}.bias"))?];
        let cut = |values: &[f32]| values[i * values.len() / of..(i + 1) * values.len() / of].to_vec();
        let (weight, bias) = (cut(weight), cut(bias));
        self.stored_linear(&format!("{name}.{part}"), x, &weight, &bias)
    }

    /// A branch's last layer, with the factors of LayerScale in its weights.
    fn branch_end(&mut self, name: &str, scale: &str, x: &str) -> Result<String> {
        if !self.vit().variant.layer_scale {
            return self.linear(name, name, x);
        }
        let gamma = self.values(&format!("{scale}.gamma"))?;
        let weight = scale_rows(self.values(&format!("{name}.weight"))?, gamma);
        let bias = scale_rows(self.values(&format!("{name}.bias"))?, gamma);
        self.stored_linear(name, x, &weight, &bias)
    }

    /// A linear layer with a weight that no tensor of ours is.
    fn stored_linear(&mut self, name: &str, x: &str, weight: &[f32], bias: &[f32]) -> Result<String> {
        let (inputs, weight) = (weight.len() / bias.len().max(1), transpose(weight, bias.len()));
        let weight = self.graph.floats(&format!("{name}.weight_t"), &[inputs, bias.len()], &weight);
        let bias = self.graph.floats(&format!("{name}.bias"), &[bias.len()], bias);
        Ok(self.product(name, name, x, [&weight, &bias]))
    }

    fn product(&mut self, output: &str, name: &str, x: &str, [weight, bias]: [&str; 2]) -> String {
        let product = self.graph.node("MatMul", &format!("{name}.product"), &[x, weight], vec![]);
        self.graph.node("Add", output, &[&product, bias], vec![])
    }

    fn block(&mut self, name: &str, x: &str) -> Result<String> {
        let norm = self.layer_norm(&format!("{name}.norm1"), &format!("{name}.norm1"), x)?;
        let mixed = self.attention(name, &norm)?;
        let mid = self.graph.node("Add", &format!("{name}.mid"), &[x, &mixed], vec![]);
        let norm = self.layer_norm(&format!("{name}.norm2"), &format!("{name}.norm2"), &mid)?;
        let active = match self.vit().variant.mlp {
            Mlp::Gelu => {
                let hidden = self.linear(&format!("{name}.mlp.fc1"), &format!("{name}.mlp.fc1"), &norm)?;
                self.gelu(&format!("{name}.mlp.gelu"), &hidden)
            }
            Mlp::SwiGlu => self.swiglu(&format!("{name}.mlp"), &norm)?,
        };
        let out = self.branch_end(&format!("{name}.mlp.fc2"), &format!("{name}.ls2"), &active)?;
        Ok(self.graph.node("Add", name, &[mid, out], vec![]))
    }

    fn attention(&mut self, block: &str, x: &str) -> Result<String> {
        let name = format!("{block}.attn");
        let rows = match self.vit().variant.qk_norm {
            true => {
                let mut part = |i, part| self.part(&format!("{name}.qkv"), [i, 3], part, x);
                [part(0, "q")?, part(1, "k")?, part(2, "v")?]
            }
            false => {
                let qkv = self.linear(&format!("{name}.qkv"), &format!("{name}.qkv"), x)?;
                let rows = ["q", "k", "v"].map(|part| format!("{name}.{part}_rows"));
                self.graph.split("Split", rows, &[qkv], vec![AttributeProto::int("axis", 2)])
            }
        };
        let q = self.heads(&name, "q", &rows[0], &[0, 2, 1, 3])?;
        let k = self.heads(&name, "k", &rows[1], &[0, 2, 3, 1])?;
        let v = self.heads(&name, "v", &rows[2], &[0, 2, 1, 3])?;
        let graph = &mut self.graph;
        let scores = graph.node("MatMul", &format!("{name}.products"), &[q, k], vec![]);
        let scores = graph.node("Mul", &format!("{name}.scores"), &[scores.as_str(), SCALE], vec![]);
        let shares = graph.node(
            "Softmax",
            &format!("{name}.softmax"),
            &[scores],
            vec![AttributeProto::int("axis", -1)],
        );
        let mixed = graph.node("MatMul", &format!("{name}.mixed_heads"), &[shares, v], vec![]);
        let order = vec![AttributeProto::ints("perm", &[0, 2, 1, 3])];
        let mixed = graph.node("Transpose", &format!("{name}.mixed_tokens"), &[mixed], order);
        let mixed = graph.node("Reshape", &format!("{name}.mixed"), &[mixed.as_str(), ROWS], vec![]);
        self.branch_end(&format!("{name}.proj"), &format!("{block}.ls1"), &mixed)
    }

    /// `silu(gate) · value`, both linear in `x`.
    fn swiglu(&mut self, name: &str, x: &str) -> Result<String> {
        let gate = self.part(&format!("{name}.fc1"), [0, 2], "gate", x)?;
        let value = self.part(&format!("{name}.fc1"), [1, 2], "value", x)?;
        let graph = &mut self.graph;
        let share = graph.node("Sigmoid", &format!("{name}.sigmoid"), &[&gate], vec![]);
        let silu = graph.node("Mul", &format!("{name}.silu"), &[gate, share], vec![]);
        Ok(graph.node("Mul", &format!("{name}.swiglu"), &[silu, value], vec![]))
    }

    /// `[1, tokens, dim]` by heads, in the order `perm` of (batch, token, head, value); queries and keys behind their norms,
    /// where they have some.
    fn heads(&mut self, name: &str, part: &str, rows: &str, perm: &[i64]) -> Result<String> {
        let mut heads = self.graph.node("Reshape", &format!("{name}.{part}_heads"), &[rows, HEADS], vec![]);
        if self.vit().variant.qk_norm && part != "v" {
            let norm = format!("{name}.{part}_norm");
            heads = self.layer_norm(&norm, &norm, &heads)?;
        }
        Ok(self.graph.node(
            "Transpose",
            &format!("{name}.{part}"),
            &[heads],
            vec![AttributeProto::ints("perm", perm)],
        ))
    }

    /// `x / 2 · (1 + erf(x / √2))`, in the order of operations that PyTorch writes.
    fn gelu(&mut self, name: &str, x: &str) -> String {
        let graph = &mut self.graph;
        let part = graph.node("Div", &format!("{name}.part"), &[x, SQRT_2], vec![]);
        let erf = graph.node("Erf", &format!("{name}.erf"), &[part], vec![]);
        let sum = graph.node("Add", &format!("{name}.sum"), &[erf.as_str(), ONE], vec![]);
        let product = graph.node("Mul", &format!("{name}.product"), &[x, &sum], vec![]);
        graph.node("Mul", name, &[product.as_str(), HALF], vec![])
    }

    /// One vector out of all tokens, then the outputs.
    fn head(&mut self, x: &str, head: Head) -> Result<()> {
        let (dim, pool, classes) = (self.vit().dim, self.model.pool(), self.model.classes());
        let embedding = if self.vit().class_tokens() == 0 {
            self.mean(EMBEDDING, x)
        } else {
            let pooled = match pool {
                Pooling::Token => self.class_row(x),
                Pooling::Mean => self.patch_mean(x),
            };
            self.layer_norm(EMBEDDING, names::pool_norm(pool), &pooled)?
        };
        if head == Head::Classes {
            let logits = self.linear(LOGITS, "head", &embedding)?;
            self.graph.output(&logits, &[1, classes]);
        }
        self.graph.output(&embedding, &[1, dim]);
        Ok(())
    }

    /// The class token's row: `[1, dim]`. The norm behind works row by row, so the others need none.
    fn class_row(&mut self, x: &str) -> String {
        let index = self.graph.index("pool.index", 0);
        self.graph.node("Gather", "pool", &[x, &index], vec![AttributeProto::int("axis", 1)])
    }

    /// The mean over the patches' rows, without those in front: `[1, dim]`.
    fn patch_mean(&mut self, x: &str) -> String {
        let (first, end) = (self.vit().prefix_tokens(), self.vit().tokens());
        let window = [("pool.start", first), ("pool.end", end), ("pool.axis", 1)];
        let [start, end, axis] = window.map(|(name, value)| self.graph.sizes(name, &[value]));
        let rows = self.graph.node("Slice", "pool.rows", &[x, &start, &end, &axis], vec![]);
        self.mean("pool", &rows)
    }

    /// The mean over all rows: `[1, dim]`.
    fn mean(&mut self, output: &str, x: &str) -> String {
        let attributes = vec![AttributeProto::ints("axes", &[1]), AttributeProto::int("keepdims", 0)];
        self.graph.node("ReduceMean", output, &[x], attributes)
    }
}

/// The transpose of a matrix of `rows` rows.
fn transpose(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows.max(1);
    let column = |j: usize| matrix.iter().skip(j).step_by(columns.max(1)).copied();
    (0..columns).flat_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::transpose;

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(transpose(&[], 3).is_empty());
    }
}
