//! Holds every operation to Pillow's pixels (`tests/golden/make_augment.py` wrote the digests).

use serde_json::Value;
use sha2::{Digest, Sha256};
use smalti_models::image::Image;

use super::{Canvas, Op, Policy, Sampling};

const FILL: [u8; 3] = [37, 99, 201];

pub(super) fn read() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/augment.json")).unwrap()
}

/// The noise of `make_augment.py`.
fn noise(width: usize, height: usize, channels: usize, kind: &str) -> Image {
    let mut state = (width * 7919 + height * 31 + channels) as u32;
    let draw = |i| {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        let byte = (state >> 24) as u8;
        match kind {
            "full" => byte,
            "hard" => 255 * (byte >> 7),
            "soft" => 96 + byte / 4,
            "few" => 40 + 50 * (byte >> 6),
            "flat" => 60 + 50 * (i % channels) as u8,
            other => panic!("no kind of noise: {other}"),
        }
    };
    Image::new(width, height, channels, (0..width * height * channels).map(draw).collect()).unwrap()
}

fn source(case: &Value) -> Image {
    let size = |i: usize| case["source"][i].as_u64().unwrap() as usize;
    noise(size(0), size(1), size(2), case["source"][3].as_str().unwrap())
}

/// The magnitudes of a case, as `make_augment.py` lists them.
fn magnitudes(case: &Value, op: Op, image: &Image) -> Vec<f64> {
    let policy = match case["policy"].as_str() {
        Some("trivial") => Policy::Trivial,
        Some(_) => Policy::RAND,
        None if op == Op::Rotate => return vec![0.0, 90.0, 180.0, 270.0, 360.0, 45.0, -405.0, 1e-9],
        None => return vec![0.0],
    };
    if matches!(op, Op::Identity | Op::AutoContrast | Op::Equalize) {
        return vec![0.0];
    }
    let signs: &[f64] = if op.is_signed() { &[1.0, -1.0] } else { &[1.0] };
    let signed =
        |sign| (0..=30).map(move |step| sign * policy.magnitude(op, step, image.width(), image.height()));
    signs.iter().flat_map(|&sign| signed(sign)).collect()
}

#[test]
fn operations_are_pillows() {
    let golden = read();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let op: Op = serde_json::from_value(case["op"].clone()).unwrap();
        let sampling = match case["sampling"].as_str().unwrap() {
            "nearest" => Sampling::Nearest,
            _ => Sampling::Bilinear,
        };
        let image = source(case);
        let expected = case["sha256"].as_str().unwrap();
        let magnitudes = magnitudes(case, op, &image);
        assert_eq!(expected.len(), 8 * magnitudes.len(), "{op:?}");
        for (i, magnitude) in magnitudes.into_iter().enumerate() {
            let found = op.apply(image.clone(), magnitude, Canvas { sampling, fill: FILL }).unwrap();
            let digest =
                Sha256::digest(found.data()).iter().take(4).map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!(
                digest,
                expected[8 * i..8 * i + 8],
                "{op:?} {magnitude} {sampling:?} of {}",
                case["source"]
            );
            compared += 1;
        }
    }
    assert!(compared > 9000, "{compared}");
}
