//! Folders as they are found in the world: files that are no images, and images of every kind.

use std::path::PathBuf;

use crate::support::{Folder, read};

/// An image file of the shared test set.
fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/tests/golden/images");
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn a_damaged_folder_trains_and_names_each_bad_file_once() {
    let folder = Folder::with_data();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path("data/train/rings").join(name), bytes);
    let whole = fixture("rgb-420.jpg");
    put("truncated.jpg", &whole[..whole.len() / 2]).unwrap();
    put("text.jpg", b"this is no image").unwrap();
    put("empty.png", b"").unwrap();
    let good = ["cmyk.jpg", "deep-rgb.png", "exif-6.jpg"];
    good.iter().for_each(|name| put(name, &fixture(name)).unwrap());

    let args = ["--data=data", "--out=run", "--epochs=3", "--img-size=16", "--channels=3"];
    folder.tiny("pretrain", &args).fails(5, &["--max-bad"]);
    let done = folder.tiny("pretrain", &[&args[..], &["--overwrite", "--max-bad=10%"]].concat()).ok();
    for name in ["truncated.jpg", "text.jpg", "empty.png"] {
        assert_eq!(done.err.matches(name).count(), 1, "{name}: {}", done.err);
        assert!(read(&folder.path("run/train.log")).contains(name));
    }
    good.iter().for_each(|name| assert!(!done.err.contains(name), "{}", done.err));

    let found = folder.run(&["data", "data", "--no-timing", "--json"]).json(&["unusable"]);
    assert_eq!(found["unusable"]["count"], 3);
    let quiet = folder.tiny("pretrain", &["--data=data", "--out=quiet", "--max-bad=0.1", "--quiet"]).ok();
    assert_eq!(quiet.err, "");
}
