//! `smalti curve`: what more labels bring.

use crate::support::{Folder, read};

const KEYS: [&str; 2] = ["budget", "points"];

fn curve(folder: &Folder, args: &[&str]) -> crate::support::Outcome {
    let all =
        ["curve", "data", "--labels=1,all", "--starts=scratch", "--seeds=2", "--budget=1s", "-t2", "--json"];
    folder.run(&[&all[..], &["--out=out"], args].concat())
}

#[test]
fn a_curve_has_a_point_for_each_number_of_labels() {
    let folder = Folder::with_data();
    let found = curve(&folder, &[]).json(&KEYS);
    let points = found["points"].as_array().unwrap();
    let draws = |i: usize| points[i]["accuracies"].as_array().unwrap().len();
    assert_eq!((points.len(), draws(0), draws(1)), (2, 2, 1), "{found}");
    assert_eq!(points[1]["labels"].as_u64(), Some(40));
    assert!(read(&folder.path("out/curve.svg")).starts_with("<svg"));
    let first = folder.path("out/scratch-1-0");
    folder.run(&["eval", first.join("finetune").to_str().unwrap(), "--data=data"]).ok();
    // What is there is not trained again.
    std::fs::remove_dir_all(folder.path("out/scratch-1-1")).unwrap();
    let again = folder.run(&["curve", "data", "--out=out", "--resume", "--json"]);
    assert_eq!(again.err.matches("learning from").count(), 1, "{}", again.err);
    let again = again.json(&KEYS);
    assert_eq!(again["points"][0]["accuracies"][0], found["points"][0]["accuracies"][0]);
    curve(&folder, &[]).fails(2, &["--overwrite"]);
    curve(&folder, &["--overwrite"]).json(&KEYS);
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let folder = Folder::with_data();
    curve(&folder, &["--labels=0"]).fails(2, &["labels has `0`"]);
    curve(&folder, &["--starts=scratch,runs/scratch"]).fails(2, &["two starts"]);
    curve(&folder, &["--seeds=0"]).fails(2, &["seeds is 0"]);
    std::fs::remove_dir_all(folder.path("data/test")).unwrap();
    curve(&folder, &[]).fails(5, &["no test/"]);
    assert!(!folder.path("out").exists());
}
