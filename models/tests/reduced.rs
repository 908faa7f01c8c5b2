//! JPEGs of many forms, whole and decoded for a model, which wants few of their pixels (`golden/make_reduced.py` wrote them
//! and libjpeg-turbo's pixels).

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use smalti_models::error::Error;
use smalti_models::image::{self, Image, Limits};

/// Files with golden pixels.
const FILES: [&str; 14] = [
    "444",
    "422",
    "420-restarts",
    "440",
    "grey",
    "411",
    "separate-scans",
    "bit-by-bit",
    "16-bit-tables",
    "rgb",
    "cmyk",
    "ycck",
    "late-tables",
    "tiny",
];

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

fn refusal(bytes: &[u8]) -> String {
    let error = image::decode(bytes, &Limits::default()).unwrap_err().to_string();
    assert_eq!(image::decode_for(bytes, &Limits::default(), 1).unwrap_err().to_string(), error);
    error
}

#[test]
fn pixels_are_libjpeg_s() {
    for name in FILES {
        let bytes = read(&format!("{name}.jpg"));
        for by in [1, 2, 4, 8] {
            let golden = whole(&read(&format!("{name}-{by}.png")));
            let short = whole(&bytes).width().min(whole(&bytes).height());
            if short >= 2 * by {
                assert!(reduced(&bytes, by) == golden, "{name} at 1/{by}");
            }
        }
    }
}

#[test]
fn a_progressive_file_gives_the_same_pixels() {
    let (baseline, progressive) = (read("444.jpg"), read("progressive.jpg"));
    for by in [1, 2, 4, 8] {
        assert!(reduced(&baseline, by) == reduced(&progressive, by), "1/{by}");
    }
}

/// Where a marker stands among those before the data.
fn find(bytes: &[u8], marker: u8) -> usize {
    bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap()
}

/// As Motion JPEG's frames are.
#[test]
fn the_standard_s_huffman_tables_take_the_place_of_none() {
    for name in ["444", "grey", "420-restarts"] {
        let mut bytes = read(&format!("{name}.jpg"));
        let pixels = [1, 2, 8].map(|by| reduced(&bytes, by));
        while let Some(at) = bytes.windows(2).position(|pair| pair == [0xff, 0xc4]) {
            let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            bytes.drain(at..at + 2 + length);
        }
        assert!([1, 2, 8].map(|by| reduced(&bytes, by)) == pixels, "{name}");
    }
}

#[test]
fn what_is_no_ordinary_jpeg_is_named() {
    let bytes = read("444.jpg");
    let frame = find(&bytes, 0xc0);
    for (at, value, words) in [
        (frame + 1, 0xc3, "unsupported JPEG: lossless"),
        (frame + 1, 0xc9, "arithmetic coding"),
        (frame + 1, 0xca, "arithmetic coding"),
        (frame + 1, 0xc5, "hierarchical"),
        (frame + 4, 12, "12 bits a sample"),
        (frame + 11, 0x51, "damaged"),
        (frame + 11, 0x32, "fractions"),
        (find(&bytes, 0xdb) + 1, 0xdc, "tables are missing"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        if value == 0x32 {
            bytes[frame + 14] = 0x21;
        }
        let error = refusal(&bytes);
        assert!(error.contains(words) && !error.contains('\n'), "{error}: expected {words}");
    }
    let mut flat = bytes;
    flat[frame + 5..frame + 7].fill(0);
    assert!(refusal(&flat).contains("93 x 0 pixels"));
}

#[test]
fn data_that_are_missing_are_never_made_up() {
    // A hole in the data, whose end is there: of a scan, and of the last one.
    for name in ["444", "420-restarts", "grey", "progressive", "separate-scans"] {
        let bytes = read(&format!("{name}.jpg"));
        let scan = find(&bytes, 0xda) + 14;
        for share in [2, 3, 10] {
            let from = scan + (bytes.len() - scan) / share;
            let hole = [&bytes[..from], &[0xff, 0xd9]].concat();
            let error = refusal(&hole);
            let reasons = ["end early", "scans are missing", "too short"];
            assert!(reasons.iter().any(|reason| error.contains(reason)), "{name}: {error}");
        }
    }
    // Whole scans.
    let bytes = read("bit-by-bit.jpg");
    let scans: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&[0xff, 0xda])).collect();
    for &at in &scans {
        let tables = bytes[..at].windows(2).rposition(|pair| pair == [0xff, 0xc4]).unwrap();
        let error = refusal(&[&bytes[..tables.min(at)], &[0xff, 0xd9]].concat());
        assert!(error.contains("scans are missing") || error.contains("too short"), "{error}");
    }
    // Restarts.
    let bytes = read("420-restarts.jpg");
    let restart = find(&bytes, 0xd1);
    let mut wrong = bytes.clone();
    wrong[restart + 1] = 0xd3;
    assert!(refusal(&wrong).contains("damaged JPEG"));
    wrong.drain(restart..restart + 2);
    assert!(refusal(&wrong).contains("damaged JPEG"));
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
        let tight = Limits { max_pixels: 5, ..Limits::default() };
        let error = image::decode_for(&bytes, &tight, 1).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { limit: 5, .. }), "{name}: {error}");
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

/// Some cameras fill the data up.
#[test]
fn a_few_bytes_behind_the_last_block_do_no_harm() {
    let bytes = read("444.jpg");
    let end = bytes.len() - 2;
    let with = |more: usize| [&bytes[..end], &vec![0; more], &bytes[end..]].concat();
    assert_eq!(whole(&with(16)), whole(&bytes));
    assert_eq!(reduced(&with(16), 8), reduced(&bytes, 8));
    let restart = [&bytes[..end], &[0xff, 0xff, 0xd0], &bytes[end..]].concat();
    assert_eq!(whole(&restart), whole(&bytes));
    let more = [&bytes[..end], &[0xff, 0xd0], &[0; 1000], &bytes[end..]].concat();
    for bytes in [with(1000), more] {
        assert!(refusal(&bytes).contains("damaged JPEG"));
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
            (Ok(whole), Ok(image)) => {
                let by = [8, 4, 2].into_iter().find(|by| whole.width().min(whole.height()) / by >= 2 * side);
                let size = [whole.width(), whole.height()].map(|side| side.div_ceil(by.unwrap_or(1)));
                prop_assert_eq!([image.width(), image.height()], size);
            }
            (Err(whole), Err(image)) => {
                prop_assert_eq!(whole.to_string(), image.to_string());
                prop_assert!(!image.to_string().contains("panicked"), "{}", image);
            }
            (whole, image) => prop_assert!(false, "whole {:?}, reduced {:?}", whole, image),
        }
    }
}

/// A segment with its marker and length.
fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
    [&[0xff, marker][..], &(body.len() as u16 + 2).to_be_bytes(), body].concat()
}

/// The head of a progressive file in grey, whose codes of one bit say "no difference" and "2^14 blocks end here".
fn grey_progressive(side: u16) -> Vec<u8> {
    let [high, low] = side.to_be_bytes();
    let table = |class: u8, symbol: u8| [&[class, 1][..], &[0; 15], &[symbol]].concat();
    [
        &[0xff, 0xd8][..],
        &segment(0xdb, &[&[0][..], &[1; 64]].concat()),
        &segment(0xc2, &[8, high, low, high, low, 1, 1, 0x11, 0]),
        &segment(0xc4, &table(0x00, 0)),
        &segment(0xc4, &table(0x10, 0xe0)),
    ]
    .concat()
}

/// A scan of these coefficients and bits; all its codes are zeros.
fn scan(start: u8, end: u8, bits: u8, bytes: usize) -> Vec<u8> {
    [segment(0xda, &[1, 1, 0, start, end, bits]), vec![0; bytes]].concat()
}

#[test]
fn a_short_file_does_not_ask_for_many_pixels() {
    for (bytes, marker) in [(read("444.jpg"), 0xc0), (read("progressive.jpg"), 0xc2)] {
        let mut bytes = bytes;
        let frame = bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0x1f, 0xff, 0x1f, 0xff]);
        let error = image::decode(&bytes, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("too short for 8191 x 8191 pixels"), "{error}");
    }
}

#[test]
fn scans_that_bring_nothing_come_to_an_end() {
    // A mean and 63 other coefficients from their 14th bit on, each in a scan of its own: 896 scans.
    let blocks = |side: u16| usize::from(side).div_ceil(8).pow(2);
    let file = |side: u16, scans: u8| {
        let mut bytes = grey_progressive(side);
        bytes.extend(scan(0, 0, 0, blocks(side).div_ceil(8)));
        for coefficient in 1..=scans {
            let runs = (blocks(side).div_ceil(1 << 14) * 15).div_ceil(8);
            bytes.extend(scan(coefficient, coefficient, 13, runs));
            for low in (0..13).rev() {
                bytes.extend(scan(coefficient, coefficient, (low + 1) << 4 | low, runs));
            }
        }
        [&bytes[..], &[0xff, 0xd9]].concat()
    };
    let small = image::decode(&file(512, 63), &Limits::default()).unwrap();
    assert_eq!((small.width(), small.data()[0]), (512, 128));
    let error = image::decode(&file(8191, 63), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("more scans"), "{error}");
}
