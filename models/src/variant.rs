//! What an encoder has besides a plain vision transformer: parts of DeiT III, DINOv2 and larger networks.
//!
//! A [`Variant`] has a text form, which flags, settings and `config.json` share: parts with commas between them, such as
//! `registers=4,no-embed-class,layer-scale`. The empty text is the plain vision transformer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::vit::{LAYER_NORM_EPS, MLP_RATIO};

/// The feed-forward of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mlp {
    /// `fc2(gelu(fc1(x)))`.
    #[default]
    Gelu,
    /// `fc2(silu(g) · u)` with `[g, u] = fc1(x)` (SwiGLU, arXiv 2002.05202), so that `fc1` is twice as wide.
    SwiGlu,
}

impl Mlp {
    /// Outputs of `fc1` for each of the hidden layer.
    pub fn fused(self) -> usize {
        match self {
            Mlp::Gelu => 1,
            Mlp::SwiGlu => 2,
        }
    }
}

/// The parts of an encoder that a plain vision transformer has not, or has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Variant {
    /// Register tokens (arXiv 2309.16588): learned tokens behind the class token that nobody reads in the end. DeiT's
    /// distillation token is one too.
    pub registers: usize,
    /// Whether positions are those of patches alone (timm's `no_embed_class`). Registers have none either.
    pub no_embed_class: bool,
    /// Whether each residual branch ends with a learned factor a channel, `gamma` (LayerScale, arXiv 2103.17239).
    pub layer_scale: bool,
    /// Whether queries and keys of each head go through a layer norm of their own (arXiv 2302.05442).
    pub qk_norm: bool,
    /// The feed-forward.
    pub mlp: Mlp,
    /// Width of the feed-forward's hidden layer, where that is not [`MLP_RATIO`] times the width of a token.
    pub hidden: Option<usize>,
    /// Added to the variance in all layer norms.
    pub norm_eps: f32,
}

impl Default for Variant {
    fn default() -> Variant {
        Variant::PLAIN
    }
}

impl Variant {
    /// The plain vision transformer.
    pub const PLAIN: Variant = Variant {
        registers: 0,
        no_embed_class: false,
        layer_scale: false,
        qk_norm: false,
        mlp: Mlp::Gelu,
        hidden: None,
        norm_eps: LAYER_NORM_EPS,
    };

    /// Whether this is the plain vision transformer.
    pub fn is_plain(&self) -> bool {
        *self == Variant::PLAIN
    }

    /// The same variant with a hidden layer of this width, in an encoder of width `dim`.
    pub fn with_hidden(self, hidden: usize, dim: usize) -> Variant {
        Variant { hidden: (hidden != MLP_RATIO * dim).then_some(hidden), ..self }
    }

    /// Width of the feed-forward's hidden layer.
    pub fn hidden(&self, dim: usize) -> usize {
        self.hidden.unwrap_or(MLP_RATIO * dim)
    }

    /// Outputs of the feed-forward's first layer.
    pub fn fused(&self, dim: usize) -> usize {
        self.mlp.fused() * self.hidden(dim)
    }

    /// Refuses what no model can have.
    pub fn check(&self) -> Result<()> {
        let refuse = |found: String, expected: &str| {
            Err(Error::Config { field: "variant", found, expected: format!("expected {expected}") })
        };
        if self.registers > 64 {
            return refuse(format!("registers={}", self.registers), "at most 64");
        }
        if self.registers > 0 && !self.no_embed_class {
            return refuse(self.to_string(), "no-embed-class with registers, which have no positions");
        }
        if let Some(hidden) = self.hidden.filter(|hidden| !(1..=1 << 15).contains(hidden)) {
            return refuse(format!("hidden={hidden}"), "1 to 32768");
        }
        if !(1e-20..=1e-2).contains(&self.norm_eps) {
            return refuse(format!("norm-eps={:e}", self.norm_eps), "1e-20 to 1e-2");
        }
        Ok(())
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.registers > 0 {
            parts.push(format!("registers={}", self.registers));
        }
        let switches = [
            ("no-embed-class", self.no_embed_class),
            ("layer-scale", self.layer_scale),
            ("qk-norm", self.qk_norm),
            ("swiglu", self.mlp == Mlp::SwiGlu),
        ];
        parts.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()));
        parts.extend(self.hidden.map(|hidden| format!("hidden={hidden}")));
        if self.norm_eps != LAYER_NORM_EPS {
            parts.push(format!("norm-eps={:e}", self.norm_eps));
        }
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Variant> {
        let mut variant = Variant::PLAIN;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let refuse = || Error::Config {
                field: "variant",
                found: part.into(),
                expected:
                    "expected registers=N, no-embed-class, layer-scale, qk-norm, swiglu, hidden=N, norm-eps=X"
                        .into(),
            };
            match part.split_once('=').unwrap_or((part, "")) {
                ("registers", number) => variant.registers = number.parse().map_err(|_| refuse())?,
                ("hidden", number) => variant.hidden = Some(number.parse().map_err(|_| refuse())?),
                ("norm-eps", number) => variant.norm_eps = number.parse().map_err(|_| refuse())?,
                ("no-embed-class", "") => variant.no_embed_class = true,
                ("layer-scale", "") => variant.layer_scale = true,
                ("qk-norm", "") => variant.qk_norm = true,
                ("swiglu", "") => variant.mlp = Mlp::SwiGlu,
                _ => return Err(refuse()),
            }
        }
        variant.check()?;
        Ok(variant)
    }
}

impl TryFrom<String> for Variant {
    type Error = Error;

    fn try_from(text: String) -> Result<Variant> {
        text.parse()
    }
}

impl From<Variant> for String {
    fn from(variant: Variant) -> String {
        variant.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_come_back_from_their_text() {
        let all = Variant {
            registers: 4,
            no_embed_class: true,
            layer_scale: true,
            qk_norm: true,
            mlp: Mlp::SwiGlu,
            hidden: Some(100),
            norm_eps: 1e-12,
        };
        let text = "registers=4,no-embed-class,layer-scale,qk-norm,swiglu,hidden=100,norm-eps=1e-12";
        assert_eq!((all.to_string().as_str(), text.parse::<Variant>().unwrap()), (text, all));
        assert_eq!("".parse::<Variant>().unwrap(), Variant::PLAIN);
        assert_eq!(serde_json::to_string(&all).unwrap(), format!("{text:?}"));
        assert_eq!(serde_json::from_str::<Variant>("\" layer-scale, \"").unwrap().to_string(), "layer-scale");
    }

    #[test]
    fn what_no_model_has_is_named() {
        for wrong in [
            "registers",
            "registers=-1,no-embed-class",
            "registers=65,no-embed-class",
            "registers=4",
            "layer-scale=1",
            "hidden=0",
            "norm-eps=0",
            "norm-eps=nan",
            "geglu",
        ] {
            let message = wrong.parse::<Variant>().unwrap_err().to_string();
            assert!(message.starts_with("variant"), "{wrong}: {message}");
        }
    }

    #[test]
    fn widths_follow_the_kind() {
        let swiglu = Variant { mlp: Mlp::SwiGlu, ..Variant::PLAIN };
        assert_eq!((Variant::PLAIN.fused(8), swiglu.fused(8)), (32, 64));
        assert_eq!(swiglu.with_hidden(20, 8).fused(8), 40);
        assert_eq!(swiglu.with_hidden(32, 8), swiglu);
    }
}
