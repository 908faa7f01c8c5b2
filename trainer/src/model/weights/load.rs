//! From a file's tensors to a model's parameters.

use std::collections::BTreeSet;

use smalti_models::names::TensorSpec;

use super::foreign::listed;
use super::names::{Part, is_stage};
use super::report::{LeftOut, Loaded};
use super::rules::{self, Take};
use super::{Entry, Source, Weights};
use crate::error::Result;
use crate::model::params::Layout;

/// Tensors that an error names.
const NAMED: usize = 3;

/// How one tensor of a model is filled.
enum Fill<'a> {
    /// Not at all.
    Fresh,
    /// With a tensor of the file.
    Copy(&'a Entry),
    /// With positions of the file, resampled from and to so many patches along a side.
    Resample(&'a Entry, [usize; 2]),
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
                Fill::Copy(entry) => values.copy_from_slice(&self.values(entry)),
                Fill::Resample(entry, [from, to]) => {
                    let table = self.filter.resample(&self.values(entry), spec.shape[2], from, to);
                    values.copy_from_slice(&table);
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
        // Of our own models the list of tensors says it all.
        let norm = if take == Take::Model { None } else { self.last_norm()? };
        let has_norm = specs.iter().any(|spec| rules::is_norm(spec));
        let mut loaded = Loaded::new(self.dialect);
        let (mut fills, mut missing, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
        for spec in specs {
            let name = rules::source_name(&spec.name, norm, take);
            if rules::is_fresh(&spec.name, norm, take) {
                loaded.fresh.push(spec.name.clone());
                fills.push(Fill::Fresh);
            } else if let Some(entry) = self.entries.get(&name) {
                missing.extend(self.missing_pieces(&name, entry));
                let fill = self.fit(spec, entry, take)?;
                if let Fill::Resample(_, grids) = fill {
                    loaded.resampled = Some(grids);
                }
                loaded.used.extend(entry.source.names().into_iter().map(str::to_string));
                fills.push(fill);
                taken.insert(name);
            } else {
                missing.push(self.missing_name(&name, None));
            }
        }
        let mut surplus = Vec::new();
        for (_, entry) in self.entries.iter().filter(|(name, _)| !taken.contains(*name)) {
            let names = entry.source.names();
            match rules::reason(entry.part, take, has_norm) {
                Some(reason) => {
                    loaded.left_out.extend(names.iter().map(|&name| LeftOut { name: name.into(), reason }));
                }
                None => surplus.extend(names),
            }
        }
        self.refuse_unequal(&missing, &surplus)?;
        Ok((fills, loaded))
    }

    /// The file's last norm, `norm` or `fc_norm`: the only one, with weight and bias. Behind convolutions there may be none.
    fn last_norm(&self) -> Result<Option<&'static str>> {
        let has = |name: &str| self.entries.contains_key(name);
        let is_there = |norm: &str| has(&format!("{norm}.weight")) || has(&format!("{norm}.bias"));
        let norm = match (is_there("norm"), is_there("fc_norm")) {
            (true, false) => "norm",
            (false, true) => "fc_norm",
            (true, true) => {
                let norms = self.entries.values().filter(|entry| entry.part == Part::Norm);
                let names: Vec<&str> = norms.flat_map(|entry| entry.source.names()).collect();
                let names = listed(&names, names.len());
                return Err(self.unusable(format!("has two last norms, {names}: expected one of them")));
            }
            (false, false) if self.entries.keys().any(|name| is_stage(name)) => return Ok(None),
            (false, false) => {
                let lacks = self.missing_name("norm.weight", None);
                return Err(self.unusable(format!("lacks tensor {lacks}, and has no `fc_norm` either")));
            }
        };
        for (kind, other) in [("weight", "bias"), ("bias", "weight")] {
            let [kind, other] = [kind, other].map(|kind| format!("{norm}.{kind}"));
            if !has(&kind) {
                let [lacks, has] = [kind, other].map(|name| self.missing_name(&name, None));
                return Err(self.unusable(format!("has {has}, but lacks tensor {lacks}")));
            }
        }
        Ok(Some(norm))
    }

    /// What of query, key and value, or of other pieces, is not there.
    fn missing_pieces(&self, timm: &str, entry: &Entry) -> Vec<String> {
        let Source::Pieces(pieces) = &entry.source else { return Vec::new() };
        let absent = pieces.iter().enumerate().filter(|(_, piece)| piece.is_none());
        absent.map(|(piece, _)| self.missing_name(timm, Some(piece))).collect()
    }

    /// Checks a tensor's type and shape against the model's.
    fn fit<'a>(&self, spec: &TensorSpec, entry: &'a Entry, take: Take) -> Result<Fill<'a>> {
        let mut want = spec.shape.clone();
        if let (Source::Pieces(pieces), Some(rows)) = (&entry.source, want.first_mut()) {
            *rows /= pieces.len();
        }
        for name in entry.source.names() {
            let tensor = &self.tensors[name];
            if !tensor.is_float() {
                let problem = format!("tensor `{name}` is {:?}: expected F32, F16 or BF16", tensor.dtype);
                return Err(self.unusable(problem));
            }
            if tensor.shape == want {
                continue;
            }
            if let Some(grids) = rules::grids(spec, &tensor.shape).filter(|_| take.resamples()) {
                return Ok(Fill::Resample(entry, grids));
            }
            let (shape, advice) = (&tensor.shape, rules::advice(spec, &tensor.shape));
            return Err(self.unusable(format!("tensor `{name}` is {shape:?}, expected {want:?}{advice}")));
        }
        Ok(Fill::Copy(entry))
    }

    /// A tensor's values, or those of its pieces in order.
    pub(super) fn values(&self, entry: &Entry) -> Vec<f32> {
        let tensors = entry.source.names().into_iter().map(|name| &self.tensors[name].values[..]);
        tensors.collect::<Vec<_>>().concat()
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
            let names = listed(surplus, NAMED);
            problems.push(format!("has tensors that this model does not have: {names}"));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(self.unusable(problems.join("; "))),
        }
    }
}
