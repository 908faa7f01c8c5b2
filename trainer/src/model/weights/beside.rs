//! What the files beside weights say that no tensor shows: `config.json` and `preprocessor_config.json` of Hugging Face,
//! `config.json` of timm.

use std::path::Path;

use serde_json::Value;
use smalti_models::preprocess::{FitMode, MAX_IMG_SIZE};
use smalti_models::resize::Interpolation;
use smalti_models::{Error as ModelError, Preprocess};

use super::file::unusable;
use crate::error::Result;
use crate::files;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 16 << 20;
const CONFIG: &str = "config.json";

/// What is said about the weights in a folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// Attention heads of a block.
    pub heads: Option<usize>,
    /// The epsilon of the layer norms.
    pub norm_eps: Option<f32>,
    /// How timm pools tokens: `token`, `avg`, ...
    pub global_pool: Option<String>,
    /// Names of the classes, in order.
    pub labels: Vec<String>,
    /// The model's input.
    pub preprocess: Option<Preprocess>,
    /// The share of the resized side that timm keeps.
    crop_pct: Option<f64>,
}

impl Beside {
    /// Reads what the files in a folder say about the network alone; nothing where there are no such files.
    ///
    /// # Errors
    /// A configuration of another network: an activation that is not the exact GELU.
    pub fn network(folder: &Path) -> Result<Beside> {
        Beside::of_config(folder).map(|(beside, _)| beside)
    }

    /// Reads what the files in a folder say about the network and its input.
    ///
    /// # Errors
    /// As [`Beside::network`], and preprocessing that we cannot do exactly.
    pub fn read(folder: &Path) -> Result<Beside> {
        let (mut beside, config) = Beside::of_config(folder)?;
        let wrong = |path: &Path, why: ModelError| {
            unusable(path, format!("states preprocessing that Smalti does not do exactly: {why}"))
        };
        let path = folder.join("preprocessor_config.json");
        if let Some(config) = json(&path)? {
            beside.preprocess = Some(Preprocess::from_json(&config).map_err(|why| wrong(&path, why))?);
            return Ok(beside);
        }
        // Files of 2022 have these keys at the top.
        let input = if config["pretrained_cfg"].is_object() { &config["pretrained_cfg"] } else { &config };
        if config["architecture"].is_string() && !input["input_size"].is_null() {
            let found = of_timm(input).map_err(|why| wrong(&folder.join(CONFIG), why))?;
            (beside.preprocess, beside.crop_pct) = (Some(found), input["crop_pct"].as_f64());
        }
        Ok(beside)
    }

    /// What `config.json` says about the network, and all of it.
    fn of_config(folder: &Path) -> Result<(Beside, Value)> {
        let path = folder.join(CONFIG);
        // Other programs write files of this name too.
        let config = json(&path)?.unwrap_or_default();
        let stated = [&config["num_attention_heads"], &config["model_args"]["num_heads"]];
        let heads = stated.into_iter().find_map(|heads| usize::try_from(heads.as_u64()?).ok());
        if let Some(activation) =
            config["hidden_act"].as_str().filter(|act| *act != "gelu" && heads.is_some())
        {
            let expected = "expected `gelu`, the only activation that Smalti computes";
            return Err(unusable(&path, format!("hidden_act is `{activation}`: {expected}")));
        }
        let is_timm = config["architecture"].is_string();
        let beside = Beside {
            heads,
            norm_eps: config["layer_norm_eps"].as_f64().map(|eps| eps as f32),
            global_pool: config["global_pool"].as_str().filter(|_| is_timm).map(str::to_owned),
            labels: labels(&config),
            ..Beside::default()
        };
        Ok((beside, config))
    }

    /// The model's input for images of that size, or of the size that is stated.
    pub fn preprocess(&self, img_size: Option<usize>) -> Option<Preprocess> {
        let found = self.preprocess.as_ref()?;
        let img_size = img_size.unwrap_or(found.img_size);
        let scaled = found.with_img_size(img_size);
        let resize = self.crop_pct.map_or(scaled.resize, |pct| resized(img_size, pct));
        Some(Preprocess { resize, ..scaled })
    }
}

/// A file's JSON; none where there is no such file, null where it holds something else.
fn json(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&files::read(path, LIMIT)?).unwrap_or_default()))
}

/// The side that timm resizes to before it crops, where that is larger.
fn resized(img_size: usize, crop_pct: f64) -> Option<usize> {
    let side = (img_size as f64 / crop_pct).floor();
    (side > img_size as f64 && side <= 1e6).then_some(side as usize)
}

/// The input that timm states in a `pretrained_cfg`.
fn of_timm(config: &Value) -> Result<Preprocess, ModelError> {
    let refuse = |key: &'static str, expected: &str| -> Result<Preprocess, ModelError> {
        let problem = format!("{}, expected {expected}", config[key]);
        Err(ModelError::Preprocessor { key, problem })
    };
    let sides = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let size: Option<Vec<usize>> =
        config["input_size"].as_array().and_then(|sides_of| sides_of.iter().map(sides).collect());
    let Some(&[channels, img_size, width]) = size.as_deref() else {
        return refuse("input_size", "channels, height and width");
    };
    if img_size != width || !(1..=MAX_IMG_SIZE).contains(&img_size) {
        return refuse("input_size", "a square of at most 1024 pixels");
    }
    let interpolation = match config["interpolation"].as_str() {
        Some("bicubic") => Interpolation::Bicubic,
        Some("bilinear") => Interpolation::Bilinear,
        _ => return refuse("interpolation", "bicubic or bilinear"),
    };
    let fit = match config["crop_mode"].as_str() {
        None | Some("center") => FitMode::Crop,
        Some("squash") => FitMode::Squash,
        Some(_) => return refuse("crop_mode", "center or squash"),
    };
    let pct = config["crop_pct"].as_f64().unwrap_or(1.0);
    if !(0.1..=1.0).contains(&pct) {
        return refuse("crop_pct", "0.1 to 1");
    }
    let numbers = |key: &str| -> Vec<f32> {
        config[key].as_array().into_iter().flatten().filter_map(Value::as_f64).map(|x| x as f32).collect()
    };
    let (resize, mean, std) = (resized(img_size, pct), numbers("mean"), numbers("std"));
    let preprocess = Preprocess { img_size, channels, fit, resize, interpolation, mean, std };
    preprocess.check()?;
    Ok(preprocess)
}

/// The names of the classes: Hugging Face's `id2label`, timm's `label_names`; none where they are not complete.
fn labels(config: &Value) -> Vec<String> {
    let text =
        |value: &Value| value.as_str().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let names: Option<Vec<String>> = match (&config["id2label"], &config["label_names"]) {
        (Value::Object(names), _) => {
            (0..names.len()).map(|id| names.get(&id.to_string()).and_then(text)).collect()
        }
        (_, Value::Array(names)) => names.iter().map(text).collect(),
        _ => None,
    };
    names.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(files: &[(&str, Value)]) -> Result<Beside> {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        Beside::read(folder.path())
    }

    #[test]
    fn hugging_face_states_heads_epsilon_labels_and_input() {
        let config = json!({
            "num_attention_heads": 6, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
            "id2label": {"1": "b\n c", "0": "a"}
        });
        let preprocessor = json!({
            "size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 224},
            "resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]
        });
        let found = read(&[("config.json", config), ("preprocessor_config.json", preprocessor)]).unwrap();
        assert_eq!((found.heads, found.norm_eps, found.labels.len()), (Some(6), Some(1e-12), 2));
        assert_eq!(found.labels, ["a", "b c"]);
        let sides = |img_size| found.preprocess(img_size).map(|input| (input.img_size, input.resize));
        assert_eq!((sides(None), sides(Some(126))), (Some((224, Some(256))), Some((126, Some(144)))));
        assert_eq!(read(&[]).unwrap(), Beside::default());
    }

    #[test]
    fn timm_states_pooling_and_input() {
        let cfg = json!({
            "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]
        });
        let config = |cfg: &Value| json!({"architecture": "deit_tiny_patch16_224", "global_pool": "token", "pretrained_cfg": cfg});
        let found = read(&[("config.json", config(&cfg))]).unwrap();
        assert_eq!(found.global_pool.as_deref(), Some("token"));
        let resize = |img_size| found.preprocess(img_size).unwrap().resize;
        assert_eq!((resize(None), resize(Some(126))), (Some(248), Some(140)));
        for (key, lie) in [
            ("input_size", json!([3, 224, 192])),
            ("input_size", json!([3, 9999, 9999])),
            ("interpolation", json!("lanczos")),
            ("crop_mode", json!("border")),
            ("crop_pct", json!(0)),
        ] {
            let mut cfg = cfg.clone();
            cfg[key] = lie;
            let error = read(&[("config.json", config(&cfg))]).unwrap_err();
            assert!(error.exit_code() == 5 && error.to_string().contains(key), "{error}");
        }
        let mut cfg = cfg.clone();
        cfg["std"] = json!([0.5]);
        assert!(read(&[("config.json", config(&cfg))]).unwrap_err().to_string().contains("std"));
    }
}
