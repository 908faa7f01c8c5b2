//! From a file's tensors to a model's parameters, with a report.

use std::collections::BTreeSet;
use std::fmt;

use smalti_models::names::TensorSpec;

use super::names::{Dialect, Part};
use super::{Entry, Source, Weights, foreign, positions};
use crate::error::Result;
use crate::model::params::Layout;

/// Missing tensors that an error names.
const NAMED: usize = 3;

/// What of a model is taken from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// All of it. The file holds these tensors and no others.
    Model,
    /// What fine-tuning starts from: the encoder, and the last norm where model and file pool alike. Positions of another
    /// grid are resampled.
    Encoder,
    /// What embeds images: the encoder and its last norm, whichever way model and file pool.
    Embedding,
}

/// A tensor of the file that was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The file's name for it.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

/// What became of each tensor. Shown, it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Tensors of the file that the model has now, under the file's names.
    pub used: Vec<String>,
    /// Tensors of the file that were not used.
    pub left_out: Vec<LeftOut>,
    /// Tensors of the model that keep their initial values.
    pub fresh: Vec<String>,
    /// Patches along a side in the file and in the model, where positions were resampled.
    pub resampled: Option<[usize; 2]>,
    dialect: Dialect,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dialect = if self.dialect == Dialect::Timm { "timm" } else { "Hugging Face" };
        write!(f, "{} tensors used (names of {dialect})", self.used.len())?;
        if let Some([from, to]) = self.resampled {
            write!(f, ", positions resampled from {from}x{from} to {to}x{to} patches")?;
        }
        let reasons: BTreeSet<&str> = self.left_out.iter().map(|left| left.reason).collect();
        for reason in reasons {
            let those = self.left_out.iter().filter(|left| left.reason == reason);
            let names: Vec<&str> = those.map(|left| left.name.as_str()).collect();
            write!(f, "; left out ({reason}): {}", foreign::listed(&names, NAMED))?;
        }
        if !self.fresh.is_empty() {
            let names: Vec<&str> = self.fresh.iter().map(String::as_str).collect();
            write!(f, "; starting fresh: {}", foreign::listed(&names, NAMED))?;
        }
        Ok(())
    }
}

/// How one tensor of a model is filled.
enum Fill<'a> {
    Fresh,
    /// Copied from here.
    From(&'a Entry),
    /// Resampled from here, over grids of so many patches along a side.
    Resampled(&'a Entry, [usize; 2]),
}

impl Weights {
    /// Copies the tensors into the parameters of the model that `layout` describes; what starts fresh is left as it is.
    ///
    /// # Errors
    /// Tensors that are missing, that the model does not have, or whose shapes differ.
    pub fn load(&self, layout: &Layout, params: &mut [f32], take: Take) -> Result<Loaded> {
        let specs: Vec<&TensorSpec> = layout.iter().map(|(spec, _)| spec).collect();
        let (fills, loaded) = self.assign(&specs, take)?;
        for ((spec, slot), fill) in layout.iter().zip(fills) {
            let values = slot.of_mut(params);
            match fill {
                Fill::Fresh => {}
                Fill::From(entry) => self.copy(entry, values),
                Fill::Resampled(entry, [from, to]) => {
                    let mut table = vec![0.0; (1 + from * from) * spec.shape[2]];
                    self.copy(entry, &mut table);
                    values.copy_from_slice(&positions::resample(&table, spec.shape[2], from, to));
                }
            }
        }
        Ok(loaded)
    }

    /// Whether [`Weights::load`] would fill a model of these tensors.
    pub(super) fn check(&self, specs: &[TensorSpec], take: Take) -> Result<()> {
        self.assign(&specs.iter().collect::<Vec<_>>(), take).map(|_| ())
    }

    /// Decides for each tensor of model and file what becomes of it.
    fn assign(&self, specs: &[&TensorSpec], take: Take) -> Result<(Vec<Fill<'_>>, Loaded)> {
        let norm = self.check_norm(take)?;
        let mut loaded = Loaded {
            used: Vec::new(),
            left_out: Vec::new(),
            fresh: Vec::new(),
            resampled: None,
            dialect: self.dialect,
        };
        let (mut fills, mut missing, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for spec in specs {
            let name = source_name(&spec.name, norm, take);
            let is_fresh = match part_of(&spec.name) {
                Part::Head => take != Take::Model,
                Part::Norm => take == Take::Encoder && Some(prefix(&spec.name)) != norm,
                _ => false,
            };
            match self.entries.get(&name) {
                _ if is_fresh => {
                    loaded.fresh.push(spec.name.clone());
                    fills.push(Fill::Fresh);
                }
                None => missing.push(self.missing_name(&name, None)),
                Some(entry) => {
                    missing.extend(self.missing_thirds(&name, entry));
                    let fill = self.fit(spec, entry, take)?;
                    if let Fill::Resampled(_, grids) = fill {
                        loaded.resampled = Some(grids);
                    }
                    loaded.used.extend(entry.source.names().into_iter().map(str::to_string));
                    taken.push(name);
                    fills.push(fill);
                }
            }
        }
        let mut surplus = Vec::new();
        for (_, entry) in self.entries.iter().filter(|(name, _)| !taken.contains(name)) {
            match reason(entry.part, take) {
                Some(reason) => {
                    let left =
                        entry.source.names().into_iter().map(|name| LeftOut { name: name.into(), reason });
                    loaded.left_out.extend(left);
                }
                None => surplus.extend(entry.source.names()),
            }
        }
        self.refuse_unequal(&missing, &surplus)?;
        Ok((fills, loaded))
    }

    /// The name, `norm` or `fc_norm`, of the file's last norm, which is whole and the only one.
    fn check_norm(&self, take: Take) -> Result<Option<&'static str>> {
        let has = |norm: &str, kind: &str| self.entries.contains_key(&format!("{norm}.{kind}"));
        let [norm, fc_norm] = ["norm", "fc_norm"].map(|norm| has(norm, "weight") || has(norm, "bias"));
        if take == Take::Model {
            return Ok(None); // Our own models: the list of tensors says it all.
        }
        let found = match (norm, fc_norm) {
            (true, false) => "norm",
            (false, true) => "fc_norm",
            (true, true) => {
                let norms = self.entries.values().filter(|entry| entry.part == Part::Norm);
                let names: Vec<&str> = norms.flat_map(|entry| entry.source.names()).collect();
                let names = foreign::listed(&names, names.len());
                return Err(self.unusable(format!("has two last norms, {names}: expected one of them")));
            }
            (false, false) => {
                let lacks = self.missing_name("norm.weight", None);
                return Err(self.unusable(format!("lacks tensor {lacks}, and has no `fc_norm` either")));
            }
        };
        for (kind, other) in [("weight", "bias"), ("bias", "weight")] {
            if !has(found, kind) {
                let [lacks, has] =
                    [kind, other].map(|kind| self.missing_name(&format!("{found}.{kind}"), None));
                return Err(self.unusable(format!("has {has}, but lacks tensor {lacks}")));
            }
        }
        Ok(Some(found))
    }

    /// What of query, key and value is not there.
    fn missing_thirds(&self, timm: &str, entry: &Entry) -> Vec<String> {
        let Source::Thirds(thirds) = &entry.source else { return Vec::new() };
        let absent = (0..3).filter(|third| thirds[*third].is_none());
        absent.map(|third| self.missing_name(timm, Some(third))).collect()
    }

    /// Checks a tensor's shape against the model's.
    fn fit<'a>(&self, spec: &TensorSpec, entry: &'a Entry, take: Take) -> Result<Fill<'a>> {
        let mut want = spec.shape.clone();
        if let (Source::Thirds(_), Some(rows)) = (&entry.source, want.first_mut()) {
            *rows /= 3;
        }
        for name in entry.source.names() {
            let shape = &self.tensors[name].shape;
            if *shape == want {
                continue;
            }
            if let Some(grids) = grids(spec, shape).filter(|_| take == Take::Encoder) {
                return Ok(Fill::Resampled(entry, grids));
            }
            let advice = advice(spec, shape);
            return Err(self.unusable(format!("tensor `{name}` is {shape:?}, expected {want:?}{advice}")));
        }
        Ok(Fill::From(entry))
    }

    /// Copies a tensor, or three in order.
    fn copy(&self, entry: &Entry, values: &mut [f32]) {
        let mut rest = values;
        for name in entry.source.names() {
            let from = &self.tensors[name].values;
            let (part, after) = rest.split_at_mut(from.len());
            part.copy_from_slice(from);
            rest = after;
        }
    }

    /// The error for tensors that one side has and the other has not.
    fn refuse_unequal(&self, missing: &[String], surplus: &[&str]) -> Result<()> {
        let mut problems = Vec::new();
        if !missing.is_empty() {
            let more = missing.len().saturating_sub(NAMED);
            let first = missing[..missing.len() - more].join(", ");
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            problems.push(format!("lacks tensor {first}{more}"));
        }
        if !surplus.is_empty() {
            let names = foreign::listed(surplus, NAMED);
            problems.push(format!("has tensors that this model does not have: {names}"));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(self.unusable(problems.join("; "))),
        }
    }
}

/// The tensor of a file that becomes the model's `name`.
fn source_name(name: &str, norm: Option<&str>, take: Take) -> String {
    match (part_of(name), norm, take) {
        (Part::Norm, Some(norm), Take::Embedding) => name.replacen(prefix(name), norm, 1),
        _ => name.to_string(),
    }
}

/// `fc_norm.weight` as `fc_norm`.
fn prefix(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// What a tensor of ours belongs to.
fn part_of(name: &str) -> Part {
    super::names::translate(name).map_or(Part::Encoder, |name| name.part)
}

/// Why a tensor is left out; none where it must not be.
fn reason(part: Part, take: Take) -> Option<&'static str> {
    match (part, take) {
        (_, Take::Model) | (Part::Encoder, _) | (Part::Norm, Take::Embedding) => None,
        (Part::Norm, Take::Encoder) => Some("the model pools its tokens another way"),
        (Part::Head, _) => Some("the head of other classes"),
        (Part::Decoder, _) => Some("the decoder of an autoencoder"),
        (Part::Pooler, _) => Some("a layer in front of the head"),
        (Part::Buffer, _) => Some("no trained values"),
    }
}

/// Patches along a side in file and model, where a tensor holds positions of another square grid.
fn grids(spec: &TensorSpec, shape: &[usize]) -> Option<[usize; 2]> {
    let &[1, tokens, dim] = shape else { return None };
    if spec.name != "pos_embed" || dim != spec.shape[2] {
        return None;
    }
    let side = |tokens: usize| {
        let patches = tokens.checked_sub(1).filter(|patches| *patches > 0)?;
        (patches.isqrt().pow(2) == patches).then(|| patches.isqrt())
    };
    Some([side(tokens)?, side(spec.shape[1])?])
}

/// What to do about a shape that differs.
fn advice(spec: &TensorSpec, shape: &[usize]) -> String {
    match (spec.name.as_str(), shape) {
        ("patch_embed.proj.weight", &[dim, channels, height, width]) if height == width => {
            match &spec.shape[..] {
                [_, _, patch, _] if *patch != height => format!(": give --patch-size {height}"),
                [_, want, ..] if *want != channels => format!(": give --channels {channels}"),
                _ => format!(": give --dim {dim}"),
            }
        }
        ("pos_embed", &[1, tokens, _]) if tokens.isqrt().pow(2) == tokens => {
            ": positions must include one for the class token".into()
        }
        _ => String::new(),
    }
}
