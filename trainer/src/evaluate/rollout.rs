//! Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928, section 3): how much of what is pooled comes from each patch, if
//! attention is all that moves it. It is the same for every class.

use smalti_models::{HeatMap, Pooling, Preprocess};

use crate::error::{Error, Result};
use crate::model::classifier;
use crate::objective::mask::Mask;
use crate::stages::finetune::Finetuned;

/// The map of a plain vision transformer over an image of the model's input size, as bytes: a cell for each patch.
///
/// # Errors
/// A model that begins with convolutions; an image of another size.
pub fn of_classifier(model: &Finetuned, bytes: &[u8]) -> Result<HeatMap> {
    let (vit, Preprocess { img_size, channels, .. }) = (model.model.vit(), &model.preprocess);
    if !vit.stem.is_patches() {
        let problem = "attention rollout is for plain vision transformers, and this one begins with convolutions: take occlusion";
        return Err(Error::Usage(problem.into()));
    }
    let mut planes = vec![0.0; img_size * img_size * channels];
    model.preprocess.normalise(bytes, &mut planes)?;
    let visible = Mask::none(1, vit.patches()).visible;
    let input =
        classifier::Input { pixels: &planes, visible: &visible, drop: None, batch: 1, batch_weight: None };
    let mut acts = classifier::Activations::default();
    model.model.embed(&model.params, input, &mut acts);
    let (tokens, first) = (vit.tokens(), vit.prefix_tokens());
    let layers: Vec<Vec<f64>> =
        acts.attention().map(|probs| mean_of_heads(probs, vit.heads, tokens)).collect();
    let pooled = match model.model.pool() {
        Pooling::Token => 0..vit.class_tokens(),
        Pooling::Mean => first..tokens,
    };
    let shares = rollout(&layers, tokens, pooled.start);
    Ok(HeatMap::new([vit.grid(); 2], shares[first..].iter().map(|share| *share as f32).collect())?)
}

/// The mean of `[heads, queries, stride]` over heads, without padding: `[queries, tokens]`.
fn mean_of_heads(probs: &[f32], heads: usize, tokens: usize) -> Vec<f64> {
    let stride = tokens.next_multiple_of(8);
    let queries = probs.len() / (heads * stride).max(1);
    let mut mean = vec![0.0; queries * tokens];
    for head in probs.chunks_exact((queries * stride).max(1)) {
        for (mean, row) in mean.chunks_exact_mut(tokens).zip(head.chunks_exact(stride)) {
            mean.iter_mut().zip(row).for_each(|(mean, p)| *mean += f64::from(*p) / heads as f64);
        }
    }
    mean
}

/// How much of the mean of the last layer's queries comes from each token. A layer `[queries, tokens]` has a row for each token,
/// the last one only for those from `first` on; half of each token stays where it is, along the residual.
fn rollout(layers: &[Vec<f64>], tokens: usize, first: usize) -> Vec<f64> {
    let mut shares = vec![0.0; tokens];
    let queries = layers.last().map_or(0, |last| last.len() / tokens.max(1));
    shares.iter_mut().skip(first).take(queries).for_each(|share| *share = 1.0 / queries as f64);
    for layer in layers.iter().rev() {
        let offset = if layer.len() == tokens * tokens { 0 } else { first };
        let mut before: Vec<f64> = shares.iter().map(|share| share / 2.0).collect();
        for (row, share) in layer.chunks_exact(tokens).zip(&shares[offset..]) {
            before.iter_mut().zip(row).for_each(|(sum, p)| *sum += share / 2.0 * p);
        }
        shares = before;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Classifier;
    use smalti_models::presets::Preset;

    #[test]
    fn shares_follow_attention_and_the_residual() {
        // Token 0 looks at 2 in the last layer, 2 looks at 1 in the first.
        let first = vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0];
        let last = vec![0.0, 0.0, 1.0];
        let found = rollout(&[first, last], 3, 0);
        assert_eq!(found, [0.5, 0.25, 0.25]);
        assert_eq!(rollout(&[], 2, 0), [0.0, 0.0]);
    }

    #[test]
    fn a_model_s_map_has_a_cell_for_each_patch_and_loses_nothing() {
        for pool in [Pooling::Mean, Pooling::Token] {
            let vit = Preset::Nano.encoder(32, 8, 3);
            let classifier = Classifier::new(&vit, 3, pool).unwrap();
            let params = classifier.layout().init::<f32>(7);
            let preprocess = Preprocess {
                img_size: 32,
                channels: 3,
                fit: Default::default(),
                resize: None,
                interpolation: Default::default(),
                mean: vec![0.5; 3],
                std: vec![0.25; 3],
            };
            let model = Finetuned { model: classifier, params, preprocess, labels: vec!["a".into(); 3] };
            let bytes: Vec<u8> = (0..32 * 32 * 3).map(|i| (i * 31 % 251) as u8).collect();
            let found = of_classifier(&model, &bytes).unwrap();
            let sum: f32 = found.values().iter().sum();
            assert_eq!(found.cells(), [4, 4]);
            // The rest is the class token's.
            assert!(
                sum > 0.3 && sum < 1.0 + 1e-6 && found.values().iter().all(|share| *share > 0.0),
                "{sum}"
            );
            assert!(of_classifier(&model, &bytes[1..]).is_err());
        }
    }
}
