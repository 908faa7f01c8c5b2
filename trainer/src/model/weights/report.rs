//! What became of each tensor.

use std::collections::BTreeSet;
use std::fmt;

use super::foreign::listed;
use super::names::Dialect;

/// Tensors of a group that the line names.
const NAMED: usize = 3;

/// A tensor of the file that was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The file's name for it.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

/// What became of each tensor of a file and of a model. [`Display`](fmt::Display) shows it in one line.
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

impl Loaded {
    /// A report on nothing yet.
    pub(super) fn new(dialect: Dialect) -> Loaded {
        Loaded { used: Vec::new(), left_out: Vec::new(), fresh: Vec::new(), resampled: None, dialect }
    }
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
            write!(f, "; left out ({reason}): {}", listed(&names, NAMED))?;
        }
        if !self.fresh.is_empty() {
            let names: Vec<&str> = self.fresh.iter().map(String::as_str).collect();
            write!(f, "; starting fresh: {}", listed(&names, NAMED))?;
        }
        Ok(())
    }
}
