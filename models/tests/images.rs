//! Small files of every kind against Pillow's pixels (`golden/make_images.py` wrote both), and what damage does.
#![cfg(feature = "decode")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use smalti_models::error::Error;
use smalti_models::image::{self, Image, Limits};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images")
}

/// Name and bytes of every file.
fn files() -> Vec<(String, Vec<u8>)> {
    let golden: Value = serde_json::from_str(include_str!("golden/images.json")).unwrap();
    let names =
        golden["files"].as_array().unwrap().iter().map(|entry| entry["file"].as_str().unwrap().to_owned());
    names.map(|name| (name.clone(), std::fs::read(folder().join(name)).unwrap())).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn images_are_pillows() {
    let golden: Value = serde_json::from_str(include_str!("golden/images.json")).unwrap();
    for entry in golden["files"].as_array().unwrap() {
        let name = entry["file"].as_str().unwrap();
        let number = |key: &str| entry[key].as_u64().unwrap() as usize;
        let image = image::open(&folder().join(name), &Limits::default()).unwrap();
        let shape = (image.width(), image.height(), image.channels());
        assert_eq!(shape, (number("width"), number("height"), number("channels")), "{name}");
        let expected = unhex(entry["pixels"].as_str().unwrap());
        assert!(image.data() == expected, "{name}");
    }
}

#[test]
fn a_file_without_its_end_is_an_error() {
    for (name, bytes) in files() {
        for length in 0..bytes.len() {
            let result = image::decode(&bytes[..length], &Limits::default());
            assert!(result.is_err(), "{name} with {length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn bytes_behind_the_end_are_tolerated() {
    for (name, mut bytes) in files() {
        let whole = image::decode(&bytes, &Limits::default()).unwrap();
        bytes.extend(b"\0\0padding and \xff\xd8 the like");
        assert_eq!(image::decode(&bytes, &Limits::default()).unwrap(), whole, "{name}");
    }
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    for (name, bytes) in files() {
        let tight = Limits { max_pixels: 56, ..Limits::default() };
        let error = image::decode(&bytes, &tight).unwrap_err();
        let pixels = if name.ends_with("webp") { 32 } else { 56 };
        assert!(matches!(error, Error::ImageTooLarge { limit, .. } if limit == pixels), "{name}: {error}");
        let short = Limits { max_bytes: bytes.len() as u64 - 1, ..Limits::default() };
        let error = image::open(&folder().join(&name), &short).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("limit"), "{error}");
    }
}

/// A bitmap's or a PNG's header that asks for gigabytes.
#[test]
fn a_small_file_cannot_ask_for_a_huge_image() {
    let mut png = std::fs::read(folder().join("rgb.png")).unwrap();
    png[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let checksum = crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    let mut bmp = std::fs::read(folder().join("rgb.bmp")).unwrap();
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
    let mut webp = std::fs::read(folder().join("rgb-lossy.webp")).unwrap();
    let size = webp.windows(3).position(|bytes| bytes == [0x9d, 1, 0x2a]).unwrap() + 3;
    webp[size..size + 4].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    let mut jpeg = std::fs::read(folder().join("rgb-444.jpg")).unwrap();
    let size = jpeg.windows(4).position(|bytes| bytes == [0xff, 0xc0, 0, 17]).unwrap() + 5;
    jpeg[size..size + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    for bytes in [png, bmp, webp, jpeg] {
        let error = image::decode(&bytes, &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
    }
}

/// PNG's checksum.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[test]
fn what_is_no_image_is_named() {
    let decode = |bytes: &[u8]| image::decode(bytes, &Limits::default()).unwrap_err().to_string();
    assert!(decode(b"").contains("empty"));
    assert!(decode(b"just some text, whatever the name says").contains("expected JPEG, PNG, WebP or BMP"));
    assert!(decode(b"GIF89a\x01\0\x01\0").contains("GIF"));
    let missing = image::open(Path::new("no/such/image.jpg"), &Limits::default()).unwrap_err();
    assert!(matches!(missing, Error::Read { .. }), "{missing}");
    assert!(missing.to_string().starts_with("no/such/image.jpg: "), "{missing}");
    let text = image::open(&folder().join("../make_images.py"), &Limits::default()).unwrap_err();
    assert!(matches!(text, Error::File { .. }) && text.to_string().contains("make_images.py: "), "{text}");
}

/// A frame of an animation that is larger than the frame announced.
#[test]
fn an_animation_that_lies_about_a_frame_is_refused() {
    let mut bytes = std::fs::read(folder().join("animated.webp")).unwrap();
    let frame = bytes.windows(4).position(|bytes| bytes == b"ANMF").unwrap();
    bytes[frame + 14] -= 1;
    let error = image::decode(&bytes, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("another size"), "{error}");
}

/// Decoding damaged bytes gives an image or an error, and no decoder panics on them.
fn survives(bytes: &[u8]) -> Result<Option<Image>, TestCaseError> {
    let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
    match image::decode(bytes, &limits) {
        Ok(image) => Ok(Some(image)),
        Err(error) => {
            prop_assert!(!error.to_string().contains("panicked"), "{error}");
            prop_assert!(!error.to_string().contains('\n'), "{error}");
            Ok(None)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_never_panics(
        file in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let files = files();
        let mut bytes = file.get(&files).1.clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        survives(&bytes)?;
    }
}
