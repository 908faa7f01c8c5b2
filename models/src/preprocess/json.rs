//! `preprocessor_config.json` in Hugging Face's keys.

use serde_json::{Value, json};

use super::{FitMode, MAX_IMG_SIZE, MAX_RESIZE, Preprocess};
use crate::error::{Error, Result};
use crate::resize::Interpolation;

/// From bytes to the scale 0 to 1.
const RESCALE: f64 = 1.0 / 255.0;

pub(super) fn write(preprocess: &Preprocess) -> Value {
    let square = |side: usize| json!({ "height": side, "width": side });
    let (side, resized) = (preprocess.img_size, preprocess.resize.unwrap_or(preprocess.img_size));
    let mut config = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": square(resized),
        "resample": resample_of(preprocess.interpolation),
        "do_rescale": true,
        "rescale_factor": RESCALE,
        "do_normalize": true,
        "image_mean": numbers(&preprocess.mean),
        "image_std": numbers(&preprocess.std),
    });
    if preprocess.fit == FitMode::Crop {
        // The slow ViTImageProcessor knows no crop; this one has the same keys and the crop.
        config["image_processor_type"] = json!("CLIPImageProcessor");
        config["size"] = json!({ "shortest_edge": resized });
    } else if preprocess.resize.is_some() {
        config["image_processor_type"] = json!("DeiTImageProcessor");
    } else {
        return config;
    }
    config["do_center_crop"] = json!(true);
    config["crop_size"] = square(side);
    config
}

/// Pillow's number of a filter.
fn resample_of(interpolation: Interpolation) -> u8 {
    match interpolation {
        Interpolation::Bilinear => 2,
        Interpolation::Bicubic => 3,
    }
}

/// Floats as their shortest decimals, not as the doubles next to them.
fn numbers(values: &[f32]) -> Value {
    values.iter().map(|value| json!(value.to_string().parse::<f64>().ok())).collect()
}

pub(super) fn read(config: &Value) -> Result<Preprocess> {
    if !config.is_object() {
        return refuse("{}", config, "an object");
    }
    for key in ["do_resize", "do_rescale"] {
        if !flag(config, key, true)? {
            return refuse(key, &config[key], "true");
        }
    }
    for key in ["do_pad", "do_thumbnail", "do_flip_channel_order"] {
        if flag(config, key, false)? {
            return refuse(key, &config[key], "false");
        }
    }
    let factor = &config["rescale_factor"];
    if !factor.is_null() && !factor.as_f64().is_some_and(|factor| (factor - RESCALE).abs() < 1e-6) {
        return refuse("rescale_factor", factor, "1/255");
    }
    let interpolation = match config["resample"].as_u64() {
        Some(2) => Interpolation::Bilinear,
        Some(3) => Interpolation::Bicubic,
        _ => return refuse("resample", &config["resample"], "2 (bilinear) or 3 (bicubic)"),
    };
    let (img_size, resize, fit) = read_size(config)?;
    let (mean, std) = read_moments(config)?;
    let preprocess = Preprocess { img_size, channels: mean.len(), fit, resize, interpolation, mean, std };
    preprocess
        .check()
        .map_err(|error| Error::Preprocessor { key: "image_std", problem: error.to_string() })?;
    Ok(preprocess)
}

fn refuse<T>(key: &'static str, found: &Value, expected: &str) -> Result<T> {
    let mut found = if found.is_null() { "missing".into() } else { found.to_string() };
    if found.len() > 80 {
        found = found.chars().take(80).chain("...".chars()).collect();
    }
    Err(Error::Preprocessor { key, problem: format!("{found}, expected {expected}") })
}

fn flag(config: &Value, key: &'static str, default: bool) -> Result<bool> {
    match &config[key] {
        Value::Null => Ok(default),
        Value::Bool(value) => Ok(*value),
        other => refuse(key, other, "true or false"),
    }
}

/// One side in pixels, up to the largest.
fn side(key: &'static str, value: &Value, most: usize) -> Result<usize> {
    match value.as_u64() {
        Some(side) if (1..=most as u64).contains(&side) => Ok(side as usize),
        _ => refuse(key, value, &format!("1 to {most} pixels")),
    }
}

/// `{"height": N, "width": N}` with both the same.
fn square(key: &'static str, value: &Value, most: usize) -> Result<usize> {
    let height = side(key, &value["height"], most)?;
    if side(key, &value["width"], most)? != height {
        return refuse(key, value, "a square");
    }
    Ok(height)
}

/// The input side, the side that images are resized to before if it is larger, and how they get there.
fn read_size(config: &Value) -> Result<(usize, Option<usize>, FitMode)> {
    let size = &config["size"];
    let crop = flag(config, "do_center_crop", false)?;
    let most = if crop { MAX_RESIZE } else { MAX_IMG_SIZE };
    // A plain number is the short side where a crop follows, else both sides.
    let (resized, fit) = match size {
        Value::Number(_) => (side("size", size, most)?, if crop { FitMode::Crop } else { FitMode::Squash }),
        Value::Object(keys) if keys.contains_key("shortest_edge") => {
            (side("size.shortest_edge", &size["shortest_edge"], most)?, FitMode::Crop)
        }
        Value::Object(_) => (square("size", size, most)?, FitMode::Squash),
        other => return refuse("size", other, "a number, height and width, or shortest_edge"),
    };
    if !crop {
        return match fit {
            FitMode::Crop => {
                refuse("do_center_crop", &config["do_center_crop"], "true with size.shortest_edge")
            }
            FitMode::Squash => Ok((resized, None, fit)),
        };
    }
    let value = &config["crop_size"];
    let key = "crop_size";
    let img_size = match value {
        Value::Object(_) => square(key, value, MAX_IMG_SIZE)?,
        _ => side(key, value, MAX_IMG_SIZE)?,
    };
    if img_size > resized {
        return refuse(key, value, &format!("at most the resized side, {resized}"));
    }
    Ok((img_size, (img_size < resized).then_some(resized), fit))
}

/// Mean and standard deviation; without normalisation 0 and 1.
fn read_moments(config: &Value) -> Result<(Vec<f32>, Vec<f32>)> {
    if !flag(config, "do_normalize", true)? {
        return Ok((vec![0.0; 3], vec![1.0; 3]));
    }
    let mean = floats("image_mean", &config["image_mean"])?;
    let std = floats("image_std", &config["image_std"])?;
    if std.len() != mean.len() {
        return refuse(
            "image_std",
            &config["image_std"],
            &format!("{} numbers as in image_mean", mean.len()),
        );
    }
    Ok((mean, std))
}

/// One finite number a channel; a lone number stands for three.
fn floats(key: &'static str, value: &Value) -> Result<Vec<f32>> {
    let float = |value: &Value| value.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
    let values: Option<Vec<f32>> = match value {
        Value::Number(_) => float(value).map(|value| vec![value; 3]),
        Value::Array(values) if values.len() == 1 || values.len() == 3 => values.iter().map(float).collect(),
        _ => None,
    };
    match values {
        Some(values) => Ok(values),
        None => refuse(key, value, "1 or 3 finite numbers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// google/vit-base-patch16-224.
    fn vit() -> Value {
        json!({
            "do_normalize": true, "do_rescale": true, "do_resize": true,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "ViTImageProcessor", "resample": 2,
            "rescale_factor": 0.00392156862745098, "size": { "height": 224, "width": 224 }
        })
    }

    /// openai/clip-vit-base-patch32.
    fn clip() -> Value {
        json!({
            "crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224
        })
    }

    #[test]
    fn published_records_are_understood() {
        let preprocess = read(&vit()).unwrap();
        assert_eq!((preprocess.img_size, preprocess.channels, preprocess.fit), (224, 3, FitMode::Squash));
        assert_eq!(preprocess.interpolation, Interpolation::Bilinear);
        let preprocess = read(&clip()).unwrap();
        assert_eq!((preprocess.img_size, preprocess.fit), (224, FitMode::Crop));
        assert_eq!(preprocess.mean, [0.48145466, 0.4578275, 0.40821073]);
        // The same, as newer versions write it.
        let mut newer = clip();
        newer["size"] = json!({ "shortest_edge": 224 });
        newer["crop_size"] = json!({ "height": 224, "width": 224 });
        assert_eq!(read(&newer).unwrap(), preprocess);
        // facebook/dinov2-small: a crop of a larger resize; facebook/deit-small-patch16-224 squashes first.
        newer["size"] = json!({ "shortest_edge": 256 });
        let dinov2 = read(&newer).unwrap();
        assert_eq!((dinov2.img_size, dinov2.resize, dinov2.fit), (224, Some(256), FitMode::Crop));
        newer["size"] = json!({ "height": 256, "width": 256 });
        let deit = read(&newer).unwrap();
        assert_eq!((deit.img_size, deit.resize, deit.fit), (224, Some(256), FitMode::Squash));
        // A plain number without a crop means both sides.
        let mut older = vit();
        older["size"] = json!(224);
        assert_eq!(read(&older).unwrap(), read(&vit()).unwrap());
    }

    #[test]
    fn moments_may_be_left_out_or_be_grey() {
        let mut config = vit();
        config["do_normalize"] = json!(false);
        let preprocess = read(&config).unwrap();
        assert_eq!((preprocess.mean, preprocess.std), (vec![0.0; 3], vec![1.0; 3]));
        let mut config = vit();
        (config["image_mean"], config["image_std"]) = (json!([0.2860]), json!([0.3530]));
        assert_eq!(read(&config).unwrap().channels, 1);
        (config["image_mean"], config["image_std"]) = (json!(0.5), json!(0.25));
        assert_eq!(read(&config).unwrap().std, [0.25; 3]);
    }

    #[test]
    fn every_lie_is_named_by_its_key() {
        let lies = [
            ("size", json!(null)),
            ("size", json!(0)),
            ("size", json!(-3)),
            ("size", json!(1e9)),
            ("size", json!("224")),
            ("size", json!({ "height": 224, "width": 192 })),
            ("size", json!({ "height": 224 })),
            ("size.shortest_edge", json!({ "shortest_edge": 99999 })),
            ("do_center_crop", json!("yes")),
            ("do_resize", json!(false)),
            ("do_rescale", json!(false)),
            ("do_pad", json!(true)),
            ("rescale_factor", json!(1.0)),
            ("resample", json!(null)),
            ("resample", json!(1)),
            ("resample", json!("bicubic")),
            ("do_normalize", json!(1)),
            ("image_mean", json!(null)),
            ("image_mean", json!([0.5, 0.5])),
            ("image_mean", json!([0.5, "0.5", 0.5])),
            ("image_mean", json!([1e300, 0.5, 0.5])),
            ("image_std", json!([0.5])),
            ("image_std", json!([0.5, 0.0, 0.5])),
            ("image_std", json!([0.5, -0.5, 0.5])),
        ];
        for (key, lie) in lies {
            let mut config = vit();
            config[key.split('.').next().unwrap()] = lie;
            let error = read(&config).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
        }
        let crop = |key: &str, lie| {
            let mut config = clip();
            config[key] = lie;
            read(&config).unwrap_err().to_string()
        };
        assert!(crop("crop_size", json!(256)).contains("`crop_size`"));
        assert!(crop("crop_size", json!(null)).contains("`crop_size`"));
        assert!(crop("size", json!({ "shortest_edge": 200 })).contains("`crop_size`"));
        let mut config = clip();
        config["size"] = json!({ "shortest_edge": 224 });
        config["do_center_crop"] = json!(false);
        assert!(read(&config).unwrap_err().to_string().contains("`do_center_crop`"));
        for other in [json!(null), json!([]), json!("x")] {
            assert!(read(&other).is_err());
        }
    }

    fn any_preprocess() -> impl Strategy<Value = Preprocess> {
        let moments = |channels| {
            let mean = prop::collection::vec(-10.0f32..10.0, channels);
            (mean, prop::collection::vec(1e-5f32..100.0, channels))
        };
        let moments = prop_oneof![moments(1), moments(3)];
        let fit = prop_oneof![Just(FitMode::Crop), Just(FitMode::Squash)];
        let filter = prop_oneof![Just(Interpolation::Bilinear), Just(Interpolation::Bicubic)];
        let more = prop_oneof![Just(None), (1usize..1000).prop_map(Some)];
        (1..=MAX_IMG_SIZE, more, fit, filter, moments).prop_map(
            |(img_size, more, fit, interpolation, (mean, std))| {
                let resize = more.map(|more| img_size + more);
                Preprocess { img_size, channels: mean.len(), fit, resize, interpolation, mean, std }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(preprocess in any_preprocess()) {
            let text = write(&preprocess).to_string();
            prop_assert_eq!(read(&serde_json::from_str(&text).unwrap()).unwrap(), preprocess);
        }
    }
}
