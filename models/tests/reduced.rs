//! JPEGs decoded for a model, which wants few of their pixels.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use smalti_models::error::Error;
use smalti_models::image::{self, Image, Limits};

/// Files with golden pixels, of 74 pixels or fewer on the short side.
const FILES: [&str; 5] = ["444", "422", "420-restarts", "440", "grey"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reduced")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn whole(bytes: &[u8]) -> Image {
    image::decode(bytes, &Limits::default()).unwrap()
}

/// The image at that reduction: for the largest side that leaves it.
fn reduced(bytes: &[u8], by: usize) -> Image {
    let image = whole(bytes);
    let side = image.width().min(image.height()) / by / 2;
    image::decode_for(bytes, &Limits::default(), side).unwrap()
}

/// The largest difference and the mean one.
fn apart(a: &Image, b: &Image) -> (u8, f64) {
    assert_eq!((a.width(), a.height(), a.channels()), (b.width(), b.height(), b.channels()));
    let apart: Vec<u8> = a.data().iter().zip(b.data()).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = apart.iter().map(|apart| f64::from(*apart)).sum::<f64>() / apart.len() as f64;
    (apart.into_iter().max().unwrap(), mean)
}

#[test]
fn reduced_pixels_are_libjpeg_s() {
    for name in FILES {
        let bytes = read(&format!("{name}.jpg"));
        for by in [2, 4, 8] {
            let golden = whole(&read(&format!("{name}-{by}.png")));
            assert_eq!(apart(&reduced(&bytes, by), &golden).0, 0, "{name} at 1/{by}");
        }
    }
}

#[test]
fn a_progressive_file_gives_nearly_the_same_pixels() {
    let (baseline, progressive) = (read("444.jpg"), read("progressive.jpg"));
    assert_eq!(apart(&whole(&baseline), &whole(&progressive)), (0, 0.0));
    for by in [2, 4, 8] {
        let (most, mean) = apart(&reduced(&baseline, by), &reduced(&progressive, by));
        println!("1/{by}: at most {most}, on average {mean:.2} levels off");
        assert!(most <= 20 && mean <= 0.75, "1/{by}: at most {most}, on average {mean} levels off");
    }
}

#[test]
fn the_short_side_stays_twice_the_side_that_is_wanted() {
    let bytes = read("444.jpg");
    for (side, size) in [
        (1, [12, 10]),
        (4, [12, 10]),
        (5, [24, 19]),
        (9, [24, 19]),
        (10, [47, 37]),
        (18, [47, 37]),
        (19, [93, 74]),
        (99, [93, 74]),
    ] {
        let image = image::decode_for(&bytes, &Limits::default(), side).unwrap();
        assert_eq!([image.width(), image.height()], size, "{side}");
    }
    // Nothing changes where it is not much larger, nor in other formats.
    assert_eq!(image::decode_for(&bytes, &Limits::default(), 19).unwrap(), whole(&bytes));
    let png = read("444-2.png");
    assert_eq!(image::decode_for(&png, &Limits::default(), 1).unwrap(), whole(&png));
    let path = folder().join("444.jpg");
    assert_eq!(image::open_for(&path, &Limits::default(), 5).unwrap(), reduced(&bytes, 4));
}

#[test]
fn a_reduced_image_is_turned() {
    let path = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name);
    let [one, six] = ["exif-1.jpg", "exif-6.jpg"].map(|name| std::fs::read(path(name)).unwrap());
    let [one, six] = [one, six].map(|bytes| image::decode_for(&bytes, &Limits::default(), 2).unwrap());
    assert_eq!([one.width(), one.height(), six.width(), six.height()], [6, 4, 4, 6]);
    let pixel = |image: &Image, x: usize, y: usize| image.data()[(y * image.width() + x) * 3..][..3].to_vec();
    assert_eq!(pixel(&one, 0, 0), pixel(&six, 3, 0));
}

#[test]
fn limits_hold_for_the_whole_image() {
    for name in FILES.iter().copied().chain(["progressive"]) {
        let bytes = read(&format!("{name}.jpg"));
        let tight = Limits { max_pixels: 3000, ..Limits::default() };
        let error = image::decode_for(&bytes, &tight, 1).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { limit: 3000, .. }), "{name}: {error}");
    }
}

#[test]
fn a_file_without_its_end_is_an_error() {
    for name in FILES {
        let bytes = read(&format!("{name}.jpg"));
        for length in 0..bytes.len() {
            assert!(image::decode_for(&bytes[..length], &Limits::default(), 1).is_err(), "{name} {length}");
        }
    }
}

/// Codes that end early: the decoder of whole images says what is made of them.
#[test]
fn a_scan_with_less_or_more_than_its_blocks_is_decoded_whole() {
    let bytes = read("444.jpg");
    let scan = bytes.windows(2).position(|bytes| bytes == [0xff, 0xda]).unwrap() + 14;
    let end = bytes.len() - 2;
    let less = [&bytes[..scan + (end - scan) / 2], &bytes[end..]].concat();
    let more = [&bytes[..end], &[0x12, 0x34], &bytes[end..]].concat();
    for bytes in [less, more] {
        let means = |image: &Image| {
            let pixel = |x: usize, y: usize| image.data()[(y * image.width() + x) * 3];
            (0..72)
                .step_by(8)
                .map(|y| (0..64).map(|i| u32::from(pixel(i % 8, y + i / 8))).sum::<u32>())
                .collect()
        };
        let Ok(full) = image::decode(&bytes, &Limits::default()) else {
            assert!(image::decode_for(&bytes, &Limits::default(), 1).is_err());
            continue;
        };
        let means: Vec<u32> = means(&full);
        let found = image::decode_for(&bytes, &Limits::default(), 1).unwrap();
        let column: Vec<u32> = found.data().chunks(3 * found.width()).map(|row| row[0].into()).collect();
        assert_eq!(column[..9], means.iter().map(|sum| (sum + 32) / 64).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_is_met_as_in_whole_images(
        file in 0..FILES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
        side in 1usize..20,
    ) {
        let mut bytes = read(&format!("{}.jpg", FILES[file]));
        let range = if in_header { bytes.len().min(640) } else { bytes.len() };
        for (at, value) in edits {
            bytes[at.index(range)] = value;
        }
        let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
        match (image::decode(&bytes, &limits), image::decode_for(&bytes, &limits, side)) {
            (Err(_), Ok(_)) => prop_assert!(false, "damage that is found in the whole image is not found"),
            (Ok(whole), Ok(image)) => {
                let by = [8, 4, 2].into_iter().find(|by| whole.width().min(whole.height()) / by >= 2 * side);
                let size = [whole.width(), whole.height()].map(|side| side.div_ceil(by.unwrap_or(1)));
                prop_assert_eq!([image.width(), image.height()], size);
            }
            (whole, Err(error)) => {
                prop_assert!(whole.is_err(), "{}", error);
                prop_assert!(!error.to_string().contains("panicked"), "{}", error);
            }
        }
    }
}
