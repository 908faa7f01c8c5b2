//! Data sets as people lay them out: splits, tables, images without labels, folders of other programs.

use std::path::Path;

use crate::support::{Folder, Outcome, read};

/// A grey image whose pixels depend on its seed; `size` pixels a side.
fn draw(path: &Path, size: u32, seed: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| image::Luma([((x * 37 + y * 11 + seed * 53) % 251) as u8]);
    image::GrayImage::from_fn(size, size, pixel).save(path).unwrap();
}

/// A folder with images of 16 pixels in these places, `n` in each folder.
fn images(folders: &[(&str, u32)]) -> Folder {
    let folder = Folder::empty();
    let mut seed = 0;
    for (name, n) in folders {
        for i in 0..*n {
            seed += 1;
            draw(&folder.path(&format!("data/{name}/{i}.png")), 16, seed);
        }
    }
    folder
}

const LABELLED: [(&str, u32); 2] = [("train/cat", 6), ("train/dog", 6)];

fn finetune(folder: &Folder, args: &[&str]) -> Outcome {
    folder.tiny("finetune", &[&["--init=scratch", "--out=run", "--data=data"], args].concat())
}

/// The position of a text in what was said, which must be there.
fn said(outcome: &Outcome, text: &str) -> usize {
    outcome.err.find(text).unwrap_or_else(|| panic!("`{text}` is not in {}", outcome.err))
}

#[test]
fn images_without_labels_are_named_before_training() {
    let folder = images(&[&LABELLED[..], &[("test", 3), ("val", 2)]].concat());
    let outcome = finetune(&folder, &["--json"]);
    let begins = said(&outcome, "fine-tuning on 12 labelled images");
    assert!(said(&outcome, "the test split of data holds 3 images without labels") < begins);
    assert!(said(&outcome, "the val split of data holds 2 images without labels") < begins);
    let found = outcome.json(&["accuracy", "split"]);
    assert!(
        found["accuracy"].is_null() && found["split"].is_null() && found["best_epoch"].is_null(),
        "{found}"
    );
    let eval = |args: &[&str]| folder.run(&[&["eval", "run", "--data=data"], args].concat());
    eval(&[]).fails(5, &["no image of the test split has a label"]);
    eval(&["--split=val"]).fails(5, &["no image of the val split has a label"]);
    eval(&["--split=train"]).ok();
    finetune(&folder, &["--out=other", "--val=data/test"]).fails(5, &["data/test", "no image has a label"]);

    // The val split stands in where the test split has no labels.
    draw(&folder.path("data/val/cat/9.png"), 16, 99);
    let found = finetune(&folder, &["--out=second", "--json"]).json(&[]);
    assert_eq!((&found["split"], &found["n"]), (&"val".into(), &1.into()));
    assert!(found["best_epoch"].is_u64(), "{found}");
    assert_eq!(folder.run(&["eval", "second", "--data=data", "--json"]).json(&[])["split"], "val");
}

#[test]
fn a_class_of_the_test_split_alone_is_no_class() {
    let folder = images(&[&LABELLED[..], &[("test/cat", 2), ("test/unknown", 3)]].concat());
    let outcome = finetune(&folder, &["--json"]);
    assert!(
        said(&outcome, "data/test/unknown is no class of the train split") < said(&outcome, "fine-tuning on")
    );
    let found = outcome.json(&[]);
    assert_eq!((&found["n"], &found["classes"], &found["split"]), (&2.into(), &2.into(), &"test".into()));
    assert_eq!(read(&folder.path("run/checkpoints/labels.txt")), "cat\ndog\n");
}

#[test]
fn splits_are_found_under_all_their_names() {
    for [train, test] in [["train_set", "test_set"], ["Training", "Testing"], ["seg_train", "seg_test"]] {
        let at = |split: &str, class: &str| format!("{split}/{class}");
        let [a, b, c, d] = [at(train, "cat"), at(train, "dog"), at(test, "cat"), at(test, "dog")];
        let folder = images(&[(&a, 4), (&b, 4), (&c, 2), (&d, 2)]);
        let found = folder.run(&["data", "data", "--no-timing", "--json"]).json(&["splits"]);
        let splits = found["splits"].as_array().unwrap();
        let counts: Vec<_> =
            splits.iter().map(|s| (s["split"].as_str().unwrap(), s["images"].as_u64().unwrap())).collect();
        assert_eq!(counts, [("train", 8), ("test", 4)], "{train}");
    }
    let folder = images(&[("cat/train", 4), ("cat/test", 2), ("dog/train", 4), ("dog/test", 2)]);
    let found = folder.run(&["data", "data", "--no-timing", "--json"]).json(&["splits", "advice"]);
    assert_eq!((&found["splits"][0]["images"], &found["splits"][1]["images"]), (&8.into(), &4.into()));
    assert!(found["advice"].to_string().contains("inside the class folders"), "{found}");
    let folder = images(&[("cat/train", 4), ("cat/test", 2), ("dog", 4)]);
    folder.run(&["data", "data", "--no-timing"]).fails(5, &["`cat`", "`train`", "`test`", "`dog`"]);
}

#[test]
fn tables_train_whatever_their_header_and_separator() {
    for (header, separator) in
        [("image_id,label\n", ","), ("", ";"), ("id;breed\n", ";"), ("img\tclass_name\n", "\t")]
    {
        let folder = images(&[("", 30)]);
        let row = |i: usize| format!("{i}.png{separator}{}\n", ["cat", "dog", "eel"][i % 3]);
        std::fs::write(
            folder.path("data/t.csv"),
            format!("{header}{}", (0..30).map(row).collect::<String>()),
        )
        .unwrap();
        let found = finetune(&folder, &["--data=data/t.csv", "--val=none", "--json"]).json(&[]);
        assert_eq!((&found["labels"], &found["classes"]), (&30.into(), &3.into()), "{header}");
        assert_eq!(read(&folder.path("run/checkpoints/labels.txt")), "cat\ndog\neel\n");
    }
    let folder = images(&[("", 2)]);
    std::fs::write(folder.path("data/t.csv"), "gone.png,cat\nlost.png,dog\n0.png,cat\n").unwrap();
    finetune(&folder, &["--data=data/t.csv"]).fails(5, &["2 of 3 files in column 1", "gone.png"]);
    assert!(!folder.path("run").exists());
    // Next to images without class folders a table is pointed out.
    let outcome = folder.run(&["data", "data", "--no-timing"]).ok();
    assert!(outcome.out.contains("data/t.csv"), "{}", outcome.out);
}

#[test]
fn a_table_may_be_the_validation_set() {
    let folder = images(&[&LABELLED[..], &[("held", 4)]].concat());
    std::fs::write(folder.path("data/held/set.csv"), "0.png,cat\n1.png,dog\n2.png,cat\n3.png,\n").unwrap();
    let outcome = finetune(&folder, &["--val=data/held/set.csv", "--json"]);
    said(&outcome, "1 of 4 images of data/held/set.csv have no label");
    let found = outcome.json(&[]);
    assert_eq!((&found["n"], &found["split"], &found["labels"]), (&3.into(), &"val".into(), &12.into()));
    std::fs::write(folder.path("data/held/set.csv"), "0.png,cow\n").unwrap();
    finetune(&folder, &["--val=data/held/set.csv", "--out=b"]).fails(5, &["`cow`"]);
}

#[cfg(unix)]
#[test]
fn class_names_that_no_model_can_hold_are_refused_before_training() {
    let folder = images(&[("train/dog", 2), ("train/ca\nt", 2)]);
    finetune(&folder, &[]).fails(5, &[r#""ca\nt""#, "line break"]);
    assert!(!folder.path("run").exists());
    let outcome = folder.run(&["data", "data", "--no-timing"]).ok();
    assert!(outcome.out.contains(r#"note: the class name "ca\nt""#), "{}", outcome.out);
    // Pretraining does not look at labels.
    folder.tiny("pretrain", &["--data=data", "--out=pre", "--dec-dim=8"]).ok();
}

#[test]
fn nothing_usable_is_a_report_and_an_error() {
    let folder = Folder::empty();
    std::fs::create_dir_all(folder.path("data/cat")).unwrap();
    std::fs::write(folder.path("data/cat/a.jpg"), "no image").unwrap();
    let outcome = folder.run(&["data", "data", "--json"]);
    assert_eq!(outcome.code, 5, "{}", outcome.err);
    said(&outcome, "none of 1 images looked at can be used");
    let report: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(report["unusable"]["count"], 1);
}

#[test]
fn a_report_does_not_need_a_train_split() {
    let folder = images(&[("test/cat", 2), ("test/dog", 2)]);
    let found = folder.run(&["data", "data", "--json"]).json(&["epoch_seconds", "advice"]);
    assert!(found["advice"].to_string().contains("no train split"), "{found}");
    assert!(found["epoch_seconds"]["nano"].is_number(), "{found}");
    finetune(&folder, &[]).fails(5, &["no `train` split", "only test"]);
}

#[test]
fn formats_that_are_not_read_are_counted() {
    let folder = images(&LABELLED);
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path(&format!("data/train/cat/{name}")), bytes).unwrap()
    };
    let heic = [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".as_slice(), &[7; 400]].concat();
    ["x.heic", "y.HEIC", "scan.tiff"].iter().for_each(|name| put(name, &heic));
    let outcome = folder.tiny("pretrain", &["--data=data", "--out=run", "--dec-dim=8"]).ok();
    assert_eq!(
        outcome.err.matches("2 HEIC files and 1 TIFF file are left out").count(),
        1,
        "{}",
        outcome.err
    );
    put("photo.jpg", &heic);
    let found = folder.run(&["data", "data", "--no-timing", "--json"]).json(&["unusable"]);
    let first = found["unusable"]["first"][0].as_str().unwrap();
    assert!(first.contains("photo.jpg") && first.contains("a HEIC image"), "{first}");
}

#[test]
fn what_smalti_wrote_is_not_read_again() {
    let folder = images(&[("cat", 3), ("dog", 3), ("runs/a/recon", 2)]);
    std::fs::write(folder.path("data/runs/a/smalti-files.txt"), "recon/0.png\n").unwrap();
    let outcome = folder.tiny("pretrain", &["--data=data", "--out=run", "--dec-dim=8", "--json"]);
    assert_eq!(outcome.err.matches("smalti-files.txt").count(), 1, "{}", outcome.err);
    assert_eq!(outcome.json(&[])["images"], 6);
}

#[test]
fn small_images_have_patches_of_more_than_a_pixel() {
    let folder = Folder::empty();
    (0..8).for_each(|i| draw(&folder.path(&format!("data/{i}.png")), 8, i));
    let size = ["--dim=16", "--depth=1", "--heads=2", "--batch-size=8", "--epochs=1", "--dec-dim=8"];
    let pretrain =
        |args: &[&str]| folder.run(&[&["pretrain", "--data=data", "--out=run"], &size[..], args].concat());
    pretrain(&["--patch-size=8"]).fails(2, &["1 patches", "at least 4"]);
    pretrain(&[]).ok();
    assert_eq!(folder.settings("run")["patch-size"].as_integer(), Some(2));
}
