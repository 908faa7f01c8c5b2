//! Every command ends with what to type next; programs and quiet people are not told.

use crate::support::{Folder, TINY};

/// Commands in the order in which each leaves what later ones need, with what they say is next.
const COMMANDS: [(&str, &str); 12] = [
    ("doctor --no-timing", "smalti data DIR"),
    ("data data --no-timing", "smalti train data"),
    ("data flat --no-timing", "smalti select flat --number"),
    ("pretrain --data=data --out=pre --dec-dim=8", "smalti finetune --data DIR --init pre --out RUN"),
    ("finetune --data=data --init=pre --out=fine --epochs=1", "smalti export fine -o model.onnx"),
    ("eval fine --data=data", "smalti report fine"),
    ("eval pre --data=data --probe=knn", "smalti finetune --data data --init pre --out RUN"),
    ("embed pre --data=data -o e.safetensors", "smalti eval pre --data data --probe knn"),
    ("reconstruct pre --data=data -o r.png", "smalti finetune --data DIR --init pre --out RUN"),
    ("export fine", "smalti-run run fine/model.onnx IMAGES"),
    (
        "report fine",
        "open fine/report.html in a browser, then smalti-run quantize fine/model.onnx --calib DIR",
    ),
    ("bench --img-size=8 --patch-size=4 --dim=12 --depth=1 --heads=3 --seconds=0", "smalti data DIR"),
];

#[test]
fn every_command_ends_with_what_to_type_next() {
    let folder = Folder::with_data();
    std::fs::create_dir(folder.path("flat")).unwrap();
    let image = std::fs::read_dir(folder.path("data/train/rings")).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(image, folder.path("flat/1.png")).unwrap();
    for (line, next) in COMMANDS {
        let words: Vec<&str> = line.split(' ').collect();
        let args = match words[0] {
            "pretrain" => [&words[..1], &TINY[..], &words[1..]].concat(),
            _ => words,
        };
        let again = if ["pretrain", "finetune"].contains(&args[0]) { &["--overwrite"][..] } else { &[] };
        let told = folder.run(&args).ok();
        assert!(!told.out.contains("next: "), "{line}: {}", told.out);
        let last = told.err.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("next: {next}")), "{line}: {last}");
        let quiet = folder.run(&[&args[..], again, &["--quiet"]].concat()).ok();
        assert_eq!((quiet.out.contains("next: "), quiet.err.as_str()), (false, ""), "{line}");
        let program = folder.run(&[&args[..], again, &["--json"]].concat());
        assert!(!program.err.contains("next: "), "{line}: {}", program.err);
        program.json(&[]);
    }
}
