//! Whatever happens to a file's tensors, each of them is used, listed as left out, or named by the refusal.

use std::collections::BTreeSet;

use proptest::prelude::*;
use smalti_models::{Pooling, names};
use smalti_trainer::model::weights::{Take, Tensors};

use crate::support::{VIT, classes, hugging_face, load, mae, read, tensor, timm};

/// A change to one tensor.
#[derive(Clone, Copy, Debug)]
enum Change {
    Remove,
    Rename(&'static str),
    Reshape(usize),
    Add(&'static str),
}

/// Names that a changed tensor gets, or that are added: of ours, of wrappers, of Hugging Face, of nobody.
const NAMES: [&str; 16] = [
    "blocks.0.norm1.weight",
    "blocks.2.norm1.weight",
    "module.blocks.1.norm2.bias",
    "model.cls_token",
    "encoder.layer.0.attention.attention.key.weight",
    "vit.layernorm.bias",
    "classifier.weight",
    "pooler.dense.bias",
    "decoder.decoder_norm.bias",
    "decoder_blocks.7.norm1.bias",
    "mask_token",
    "fc_norm.weight",
    "position_ids",
    "blocks.0.ls1.gamma",
    "something",
    "",
];

/// The place of the autoencoder among the files to start from.
const MAE: usize = 1;

const SHAPES: [&[usize]; 6] = [&[], &[0], &[8], &[1, 17, 8], &[8, 3, 2, 2], &[24, 8]];

fn change() -> impl Strategy<Value = (usize, Change)> {
    let name = || prop::sample::select(&NAMES[..]);
    let change = prop_oneof![
        Just(Change::Remove),
        name().prop_map(Change::Rename),
        (0..SHAPES.len()).prop_map(Change::Reshape),
        name().prop_map(Change::Add),
    ];
    (any::<prop::sample::Index>(), change).prop_map(|(index, change)| (index.index(1 << 16), change))
}

/// Carries a change out; the names that it touched.
fn apply(tensors: &mut Tensors, (index, change): (usize, Change)) -> Vec<String> {
    let Some(name) = tensors.keys().nth(index % tensors.len().max(1)).cloned() else { return Vec::new() };
    match change {
        Change::Remove => {
            tensors.remove(&name);
            vec![name]
        }
        Change::Rename(to) => {
            let moved = tensors.remove(&name).unwrap();
            tensors.insert(to.into(), moved);
            vec![name, to.into()]
        }
        Change::Reshape(shape) => {
            tensors.insert(name.clone(), tensor(&name, SHAPES[shape]));
            vec![name]
        }
        Change::Add(to) => {
            tensors.insert(to.into(), tensor(to, &[8]));
            vec![to.into()]
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tensor_is_used_or_listed_or_named(
        start in 0usize..3, pool in prop::sample::select(vec![Pooling::Token, Pooling::Mean]),
        take in prop::sample::select(vec![Take::Model, Take::Encoder, Take::Embedding]),
        changes in prop::collection::vec(change(), 0..4),
    ) {
        let mut tensors = [timm(&VIT), mae(&VIT), hugging_face(&timm(&VIT), "vit.")][start].clone();
        let touched: Vec<String> = changes.into_iter().flat_map(|change| apply(&mut tensors, change)).collect();
        // Whether sizes can be read off is another way in; it must not panic either.
        if let Ok(weights) = read(&tensors) {
            let _ = weights.sizes();
        }
        match load(&tensors, &VIT, pool, take) {
            Ok((loaded, params)) => {
                let mut found: Vec<&str> = loaded.used.iter().map(String::as_str).collect();
                found.extend(loaded.left_out.iter().map(|left| left.name.as_str()));
                let (count, found): (usize, BTreeSet<&str>) = (found.len(), found.into_iter().collect());
                prop_assert_eq!(count, tensors.len());
                prop_assert!(tensors.keys().all(|name| found.contains(name.as_str())));
                let fresh: BTreeSet<&str> = loaded.fresh.iter().map(String::as_str).collect();
                let mut at = 0;
                for spec in names::classifier(&VIT, classes(take), pool) {
                    let untouched = params[at..at + spec.len()].iter().all(|x| *x == 9.0);
                    prop_assert_eq!(untouched, fresh.contains(spec.name.as_str()), "{}", spec.name);
                    at += spec.len();
                }
            }
            Err(error) => {
                prop_assert_eq!(error.exit_code(), 5);
                let text = error.to_string();
                prop_assert!(!text.contains('\n'), "{}", text);
                // Unchanged, each file fits, but as a whole model a decoder or the other pooling is too much.
                let fits = take != Take::Model || (start != MAE && pool == Pooling::Token);
                let named = |name: &String| text.contains(&format!("`{name}`"));
                prop_assert!(!fits || touched.iter().any(named), "{}", text);
            }
        }
    }
}
