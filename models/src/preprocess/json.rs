//! `preprocessor_config.json` in Hugging Face's keys.

use serde_json::{Value, json};

use super::{Fit, MAX_IMG_SIZE, Preprocess};
use crate::error::{Error, Result};
use crate::resize::Interpolation;

/// The longest list of means or deviations that is looked at.
const RESCALE: f64 = 1.0 / 255.0;

pub(super) fn write(preprocess: &Preprocess) -> Value {
    let side = preprocess.img_size;
    let square = json!({ "height": side, "width": side });
    let mut config = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": square.clone(),
        "resample": resample_of(preprocess.interpolation),
        "do_rescale": true,
        "rescale_factor": RESCALE,
        "do_normalize": true,
        "image_mean": numbers(&preprocess.mean),
        "image_std": numbers(&preprocess.std),
    });
    if preprocess.fit == Fit::Crop {
        // The slow ViTImageProcessor knows no crop; this one has the same keys and the crop.
        config["image_processor_type"] = json!("CLIPImageProcessor");
        config["size"] = json!({ "shortest_edge": side });
        config["do_center_crop"] = json!(true);
        config["crop_size"] = square;
    }
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
    let factor = &config["rescale_factor"];
    if !factor.is_null() && !factor.as_f64().is_some_and(|factor| (factor - RESCALE).abs() < 1e-6) {
        return refuse("rescale_factor", factor, "1/255");
    }
    let interpolation = match config["resample"].as_u64() {
        Some(2) => Interpolation::Bilinear,
        Some(3) => Interpolation::Bicubic,
        _ => return refuse("resample", &config["resample"], "2 (bilinear) or 3 (bicubic)"),
    };
    let (img_size, fit) = read_size(config)?;
    let (mean, std) = read_moments(config)?;
    let preprocess = Preprocess { img_size, channels: mean.len(), fit, interpolation, mean, std };
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

/// One side in pixels.
fn side(key: &'static str, value: &Value) -> Result<usize> {
    match value.as_u64() {
        Some(side) if (1..=MAX_IMG_SIZE as u64).contains(&side) => Ok(side as usize),
        _ => refuse(key, value, "1 to 1024 pixels"),
    }
}

/// `{"height": N, "width": N}` with both the same.
fn square(key: &'static str, value: &Value) -> Result<usize> {
    let height = side(key, &value["height"])?;
    if side(key, &value["width"])? != height {
        return refuse(key, value, "a square");
    }
    Ok(height)
}

/// The input side and how pictures get there.
fn read_size(config: &Value) -> Result<(usize, Fit)> {
    let size = &config["size"];
    let crop = flag(config, "do_center_crop", false)?;
    // A plain number is the short side where a crop follows, else both sides.
    let (img_size, fit) = match size {
        Value::Number(_) => (side("size", size)?, if crop { Fit::Crop } else { Fit::Squash }),
        Value::Object(keys) if keys.contains_key("shortest_edge") => {
            (side("size.shortest_edge", &size["shortest_edge"])?, Fit::Crop)
        }
        Value::Object(_) => (square("size", size)?, Fit::Squash),
        other => return refuse("size", other, "a number, height and width, or shortest_edge"),
    };
    if fit == Fit::Crop && !crop {
        return refuse("do_center_crop", &config["do_center_crop"], "true with size.shortest_edge");
    }
    if crop {
        let value = &config["crop_size"];
        let found = if value.is_object() { square("crop_size", value)? } else { side("crop_size", value)? };
        if found != img_size {
            return refuse("crop_size", value, &format!("the resized side, {img_size}"));
        }
    }
    Ok((img_size, fit))
}

/// Mean and deviation; without normalisation 0 and 1.
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
