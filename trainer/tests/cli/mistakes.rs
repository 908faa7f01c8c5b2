//! Everyday mistakes: each message says what was found and what to do about it, on one line.

use std::fs;

use crate::support::Folder;

/// A command line, its exit code, what its message has to say was found, and what to do.
type Mistake = (&'static str, i32, &'static [&'static str], &'static str);

const MISTAKES: &[Mistake] = &[
    // Commands and flags.
    ("trian data", 2, &["trian"], "'train'"),
    ("run model.onnx photo.jpg", 2, &["`run`"], "`smalti-run run`"),
    ("serve model.onnx", 2, &["`serve`"], "`smalti-run serve`"),
    ("distill --data data", 2, &["`distill`"], "`smalti distil`"),
    ("train --data data", 2, &["--data"], "`smalti train DIR`"),
    ("pretrain data", 2, &["'data'"], "`--data data`"),
    ("train data --ouput x", 2, &["--ouput"], "smalti train --help"),
    ("train data --model micor", 2, &["micor"], "'micro'"),
    ("train data --budget 10", 2, &["budget is `10`"], "10m"),
    ("train data --budget soon", 2, &["budget is `soon`"], "10m"),
    ("train data --labels 10%%", 2, &["10%%"], "10%"),
    ("train data --labels 1000", 5, &["1000 labels", "40"], "ask for fewer"),
    ("train data -t 0", 2, &["threads is 0"], "1 to 1024"),
    ("train data --seed 99999999999999999999999", 2, &["99999999999999999999999"], "--seed"),
    ("select flat --number 0", 2, &["number is 0"], "expected"),
    ("label data --port 99999", 2, &["99999"], "0..=65535"),
    (
        "finetune --data data --init scratch --out x --img-size 100 --patch-size 16",
        2,
        &["patch-size is 16", "100"],
        "divisor",
    ),
    ("pretrain --data data --out x --mask-ratio 75", 2, &["mask-ratio is 75"], "between 0 and 1"),
    (
        "pretrain --data data --out x --config settings.toml",
        2,
        &["settings.toml", "`epoch`"],
        "did you mean `epochs`?",
    ),
    ("pretrain --data data --out x --config nowhere.toml", 6, &["nowhere.toml"], "check the path"),
    // Paths and data sets.
    ("train dta", 6, &["dta"], "did you mean `data`?"),
    (r"train C:\Users\me\photos", 6, &["Windows path"], "/mnt/c/Users/me/photos"),
    ("train photo.jpg", 5, &["photo.jpg", "not a data set"], "folder of images"),
    ("train photos.zip", 5, &["photos.zip", "not a data set"], "unpack the archive"),
    ("train nothing", 5, &["nothing", "no images"], "a folder for each class"),
    ("train one", 5, &["1 class"], "two classes or more"),
    ("train deep", 5, &["1 class"], "two classes or more"),
    ("train flat", 5, &["flat", "no labels"], "smalti label"),
    ("data renamed --no-timing", 5, &["none of 6"], "the list above says why"),
    ("train columns.csv", 5, &["columns.csv", "`lable`"], "call it `label`"),
    ("train gone.csv", 5, &["gone.csv", "missing-1.png"], "looked for at"),
    ("train data --labels nowhere.csv", 6, &["nowhere.csv"], "check the path"),
    ("train data --labels gone.csv", 5, &["gone.csv", "missing-1.png"], "looked for at"),
    ("finetune --data flat --init scratch --out x", 5, &["flat", "no labels"], "class folders"),
    ("eval fine --data flat", 5, &["flat", "no labels"], "class folders"),
    // Where things go.
    ("pretrain --data data --out pre", 2, &["pre", "run"], "--overwrite"),
    ("train data --out pre", 2, &["pre"], "--out"),
    ("pretrain --data data --out photo.jpg", 6, &["photo.jpg"], "name a folder that is new"),
    ("pretrain --data data --out /dev/null/run", 6, &["/dev/null"], "name a folder"),
    ("pretrain --data data --out data", 2, &["--out", "data"], "name another folder"),
    ("pretrain --data data --out new --resume", 5, &["new", "is not a run"], "check the path"),
    ("finetune --out pre --resume", 2, &["`smalti pretrain`"], "--out"),
    ("embed pre --data data -o flat", 6, &["flat"], "name a file"),
    // Runs, weights and teachers.
    ("train data --start photo-nano", 2, &["photo-nano"], "did you mean `photos-nano`?"),
    ("finetune --data data --out x --init scrach", 2, &["scrach"], "did you mean `scratch`?"),
    (
        "finetune --data data --out x --init checkpoint.pth",
        5,
        &["checkpoint.pth", "zip archive"],
        "save_file",
    ),
    ("finetune --data data --out x --init lfs.safetensors", 5, &["Git LFS pointer"], "git lfs pull"),
    ("finetune --data data --out x --init page.safetensors", 5, &["web page"], "download"),
    ("finetune --data data --out x --init model.onnx", 5, &["model.onnx", "an ONNX model"], "--teacher"),
    ("import model.onnx -o x", 5, &["model.onnx", "an ONNX model"], "smalti-run"),
    ("import nothing -o x", 5, &["nothing", "model.safetensors"], "name a file"),
    ("distil --data data --out x --teacher photo.jpg", 3, &["photo.jpg", "an image"], ".onnx"),
    ("distil --data data --out x --teacher model.tflite", 3, &["TensorFlow Lite"], "to ONNX"),
    ("distil --data data --out x --teacher tracher.onnx", 6, &["tracher.onnx"], "check the path"),
    ("eval model.onnx --data data", 5, &["model.onnx", "an ONNX model"], "`smalti-run` runs it"),
    ("eval nothing --data data", 5, &["nothing", "is not a run"], "smalti"),
    ("eval pre --data data", 5, &["pre", "pretraining run"], "smalti finetune"),
    ("eval fien --data data", 5, &["fien"], "did you mean `fine`?"),
    ("export pre", 5, &["pre", "pretraining run"], "smalti finetune"),
    ("export deleted", 6, &["deleted", "`checkpoints`"], "check the path"),
    ("report nothing", 5, &["nothing"], "smalti"),
];

/// A folder with what people have lying around.
fn world() -> Folder {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    folder.tiny("finetune", &["--data=data", "--init=scratch", "--out=fine"]).ok();
    folder.tiny("finetune", &["--data=data", "--init=scratch", "--out=deleted"]).ok();
    fs::remove_dir_all(folder.path("deleted/checkpoints")).unwrap();
    let class = folder.path("data/train/rings");
    let images: Vec<_> = fs::read_dir(class).unwrap().map(|entry| entry.unwrap().path()).collect();
    for (place, image) in ["one/cat/1.png", "one/cat/2.png", "deep/a/b/c/1.png", "flat/1.png", "flat/2.png"]
        .iter()
        .zip(images.iter().cycle())
    {
        let place = folder.path(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(image, place).unwrap();
    }
    ["nothing", "renamed"].iter().for_each(|name| fs::create_dir(folder.path(name)).unwrap());
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    let zip = b"PK\x03\x04\0\0\0\0photos/1.jpg";
    let files: [(&str, &[u8]); 17] = [
        ("photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("photos.zip", zip),
        ("renamed/1.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\0"),
        ("renamed/2.jpg", b"GIF89a\x01\0\x01\0"),
        ("renamed/3.jpg", b"%PDF-1.7\n"),
        ("renamed/4.jpg", b""),
        ("renamed/5.jpg", lfs),
        ("renamed/6.jpg", b"<!doctype html>"),
        ("columns.csv", b"path,lable,who\nflat/1.png,cat,me\nflat/2.png,dog,me\n"),
        ("gone.csv", b"path,label\nmissing-1.png,cat\nmissing-2.png,dog\n"),
        ("settings.toml", b"epoch = 3\n"),
        ("checkpoint.pth", zip),
        ("lfs.safetensors", lfs),
        ("page.safetensors", b"<!doctype html>"),
        ("model.tflite", b"\x1c\0\0\0TFL3\x14\0\x20\0"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch"),
        ("labels.txt", b"1\n"),
    ];
    files.iter().for_each(|(name, bytes)| fs::write(folder.path(name), bytes).unwrap());
    folder
}

#[test]
fn messages_say_what_was_found_and_what_to_do() {
    let folder = world();
    let mut wrong = Vec::new();
    for (line, code, found, advice) in MISTAKES {
        let words: Vec<&str> = line.split(' ').collect();
        let ended = folder.run(&words);
        let errors: Vec<&str> =
            ended.err.lines().filter(|line| line.starts_with("smalti: error: ")).collect();
        let said = errors.first().copied().unwrap_or_default();
        let is_last = ended.err.lines().last() == Some(said) && errors.len() == 1;
        let is_said = found.iter().chain([advice]).all(|word| said.contains(word));
        if !is_last || ended.code != *code || !is_said {
            wrong.push(format!(
                "{line}\n  expected {code}, {found:?}, {advice:?}\n  {}: {}",
                ended.code, ended.err
            ));
        }
    }
    assert!(
        !folder.path("smalti-train").exists() && !folder.path("x").exists(),
        "mistakes leave nothing behind"
    );
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MISTAKES.len(), wrong.join("\n"));
}
