//! The resize against Pillow's, bit for bit, at many sizes (`golden/make_resize.py` wrote the results).

use serde_json::Value;
use sha2::{Digest, Sha256};
use smalti_models::picture::Picture;
use smalti_models::resize::{self, Interpolation};

/// The noise of `make_resize.py`.
fn noise(width: usize, height: usize, channels: usize, kind: &str) -> Picture {
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
    Picture::new(width, height, channels, data).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(case: &Value) {
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let source = &case["source"];
    let sides = [0, 1, 2].map(|i| number(&source[i]));
    let picture = noise(sides[0], sides[1], sides[2], source[3].as_str().unwrap());
    let (width, height) = (number(&case["size"][0]), number(&case["size"][1]));
    let how: Interpolation = serde_json::from_value(case["how"].clone()).unwrap();
    let resized = match case.get("region") {
        None => resize::resize(&picture, width, height, how),
        Some(region) => {
            let region = [0, 1, 2, 3].map(|i| region[i].as_f64().unwrap());
            resize::resize_region(&picture, region, width, height, how)
        }
    };
    let resized = resized.unwrap();
    assert_eq!((resized.width(), resized.height(), resized.channels()), (width, height, sides[2]));
    let (found, expected) = match case.get("pixels") {
        Some(pixels) => (hex(resized.data()), pixels),
        None => (hex(&Sha256::digest(resized.data())), &case["sha256"]),
    };
    assert_eq!(
        found,
        expected.as_str().unwrap(),
        "{source} to {width} x {height}, {how:?}, {}",
        case["region"]
    );
}

#[test]
fn resizes_are_pillows() {
    let golden: Value = serde_json::from_str(include_str!("golden/resize.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 200, "{}", cases.len());
    cases.iter().for_each(check);
}
