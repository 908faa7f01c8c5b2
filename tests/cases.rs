//! The golden cases: settings from `golden/golden.json`, tensors from the `.safetensors` file of that name.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use smalti_models::VitConfig;
use smalti_models::names::TensorSpec;
use smalti_trainer::model::ops::Float;
use smalti_trainer::model::params::{Layout, Slot};

/// One case; `golden/README.md` says what its keys are.
pub struct Case {
    settings: Value,
    bytes: Vec<u8>,
}

impl Case {
    /// Reads a case.
    pub fn open(name: &str) -> Case {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let all: Value = serde_json::from_slice(&read("golden.json")).expect("golden.json is no JSON");
        Case { settings: all[name].clone(), bytes: read(&format!("{name}.safetensors")) }
    }

    /// A setting or a value of the case; null where there is none.
    pub fn get(&self, key: &str) -> &Value {
        &self.settings[key]
    }

    /// A number.
    pub fn number(&self, key: &str) -> f64 {
        self.get(key).as_f64().unwrap_or_else(|| panic!("`{key}` is no number"))
    }

    /// A count.
    pub fn count(&self, key: &str) -> usize {
        self.get(key).as_u64().unwrap_or_else(|| panic!("`{key}` is no count")) as usize
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let list = self.get(key).as_array().unwrap_or_else(|| panic!("`{key}` is no list"));
        list.iter().map(|value| value.as_f64().expect("a number")).collect()
    }

    /// Both betas of AdamW.
    pub fn betas(&self) -> [f64; 2] {
        self.numbers("betas").try_into().expect("two betas")
    }

    /// The encoder's configuration.
    pub fn vit(&self) -> VitConfig {
        serde_json::from_value(self.get("encoder").clone()).expect("an encoder")
    }

    /// The bytes of a tensor, if the case has it.
    fn tensor(&self, name: &str, dtype: Dtype) -> Option<Vec<[u8; 4]>> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let tensor = tensors.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), dtype, "{name}");
        Some(tensor.data().as_chunks().0.to_vec())
    }

    /// A tensor's values.
    pub fn floats<R: Float>(&self, name: &str) -> Vec<R> {
        let values = self.tensor(name, Dtype::F32).unwrap_or_else(|| panic!("no tensor `{name}`"));
        values.into_iter().map(|bytes| R::of(f64::from(f32::from_le_bytes(bytes)))).collect()
    }

    /// A tensor's values, if the case has it.
    pub fn floats_if<R: Float>(&self, name: &str) -> Option<Vec<R>> {
        self.tensor(name, Dtype::F32).map(|_| self.floats(name))
    }

    /// A tensor of places, if the case has it.
    pub fn places(&self, name: &str) -> Option<Vec<u32>> {
        Some(self.tensor(name, Dtype::I32)?.into_iter().map(u32::from_le_bytes).collect())
    }

    /// All tensors of a model, `PREFIX.NAME`, in one flat vector. Running statistics are fresh.
    pub fn flat<R: Float>(&self, layout: &Layout, prefix: &str) -> Vec<R> {
        let fresh = layout.init::<R>(0);
        let values = |(spec, slot): (&TensorSpec, Slot)| match spec.role.is_statistic() {
            true => slot.of(&fresh).to_vec(),
            false => self.floats::<R>(&format!("{prefix}.{}", spec.name)),
        };
        layout.iter().flat_map(values).collect()
    }
}

/// The length of the difference over the length of what is wanted.
pub fn distance<R: Float>(found: &[R], wanted: &[R]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = length(&mut found.iter().zip(wanted).map(|(a, b)| a.wide() - b.wide()));
    difference / length(&mut wanted.iter().map(|x| x.wide()))
}

/// The largest difference of any two values.
pub fn largest_difference<R: Float>(found: &[R], wanted: &[R]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let differences = found.iter().zip(wanted).map(|(a, b)| (a.wide() - b.wide()).abs());
    // Not a number must not pass as small.
    differences.fold(0.0, |most, next| if next <= most { most } else { next })
}
