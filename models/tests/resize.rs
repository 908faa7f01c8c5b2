//! The resize against Pillow's, bit for bit, at many sizes (`golden/make_resize.py` wrote the results).

use serde_json::Value;
use sha2::{Digest, Sha256};
use smalti_models::image::Image;
use smalti_models::preprocess::{FitMode, Preprocess};
use smalti_models::resize::{self, Interpolation};

/// The noise of `make_resize.py`.
fn noise(width: usize, height: usize, channels: usize, kind: &str) -> Image {
    let mut state = (width * 7919 + height * 31 + channels) as u32;
    let draw = |_| {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        let byte = (state >> 24) as u8;
        match kind {
            "full" => byte,
            "hard" => 255 * (byte >> 7),
            "soft" => 96 + byte / 4,
            other => panic!("no kind of noise: {other}"),
        }
    };
    let data = (0..width * height * channels).map(draw).collect();
    Image::new(width, height, channels, data).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn source(case: &Value) -> Image {
    let source = &case["source"];
    noise(number(&source[0]), number(&source[1]), number(&source[2]), source[3].as_str().unwrap())
}

fn filter(case: &Value) -> Interpolation {
    serde_json::from_value(case["how"].clone()).unwrap()
}

/// The lists of `resize.json`.
fn golden(list: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("golden/resize.json")).unwrap();
    golden[list].as_array().unwrap().clone()
}

/// Compares with the pixels, or with their digest.
fn compare(found: &Image, size: [usize; 2], case: &Value) {
    assert_eq!([found.width(), found.height()], size);
    let (found, expected) = match case.get("pixels") {
        Some(pixels) => (hex(found.data()), pixels),
        None => (hex(&Sha256::digest(found.data())), &case["sha256"]),
    };
    assert_eq!(found, expected.as_str().unwrap(), "{case}");
}

#[test]
fn resizes_are_pillows() {
    let cases = golden("cases");
    assert!(cases.len() > 200, "{}", cases.len());
    for case in &cases {
        let size = [0, 1].map(|i| number(&case["size"][i]));
        let found = match case.get("region") {
            None => resize::resize(&source(case), size[0], size[1], filter(case)),
            Some(region) => {
                let region = [0, 1, 2, 3].map(|i| region[i].as_f64().unwrap());
                resize::resize_region(&source(case), region, size[0], size[1], filter(case))
            }
        };
        compare(&found.unwrap(), size, case);
    }
}

#[test]
fn crops_are_torchvisions() {
    let cases = golden("crops");
    assert!(cases.len() > 50, "{}", cases.len());
    for case in &cases {
        let image = source(case);
        let channels = image.channels();
        let preprocess = Preprocess {
            img_size: number(&case["img_size"]),
            channels,
            fit: FitMode::Crop,
            resize: None,
            interpolation: filter(case),
            mean: vec![0.5; channels],
            std: vec![0.5; channels],
        };
        compare(&preprocess.apply(&image).unwrap(), [preprocess.img_size; 2], case);
    }
}

#[test]
fn what_cannot_be_resized_is_refused() {
    let image = noise(8, 6, 3, "full");
    let how = Interpolation::Bilinear;
    for (width, height) in [(0, 5), (5, 0), ((1 << 20) + 1, 1), (1 << 20, 1 << 20), (usize::MAX, usize::MAX)]
    {
        assert!(resize::resize(&image, width, height, how).is_err(), "{width} x {height}");
    }
    let nan = f64::NAN;
    for region in [
        [-0.5, 0.0, 4.0, 4.0],
        [0.0, 0.0, 8.5, 4.0],
        [0.0, 0.0, 4.0, 6.1],
        [3.0, 0.0, 3.0, 4.0],
        [4.0, 0.0, 3.0, 4.0],
        [nan, 0.0, 4.0, 4.0],
        [0.0, 0.0, nan, 4.0],
        [0.0, 0.0, 4.0, f64::INFINITY],
    ] {
        let error = resize::resize_region(&image, region, 2, 2, how).unwrap_err().to_string();
        assert!(error.contains("does not lie in"), "{error}");
    }
}

/// Both images here are small, but one as wide as the one and as high as the other is not.
#[test]
fn what_lies_between_the_passes_is_bounded() {
    let tall = Image::new(1, 1 << 20, 1, vec![7; 1 << 20]).unwrap();
    let error = resize::resize(&tall, 1 << 20, 2, Interpolation::Bilinear).unwrap_err().to_string();
    assert!(error.contains("memory"), "{error}");
    let small = resize::resize(&tall, 32, 32, Interpolation::Bicubic).unwrap();
    assert!(small.data().iter().all(|&value| value == 7));
}
