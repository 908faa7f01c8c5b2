//! What each command gives: the keys that scripts read, the files that it leaves.

use serde_json::Value;

use crate::support::{Folder, read};

#[test]
fn from_images_to_a_model_file() {
    let folder = Folder::with_data();
    let found = folder.tiny("pretrain", &["--data=data", "--out=pre", "--dec-dim=8", "--json"]);
    let found = found.json(&["run", "steps", "loss", "images_per_s", "seconds"]);
    assert_eq!((&found["steps"], &found["images"]), (&5.into(), &40.into()));
    // A line a step, and one of the validation by neighbours.
    assert_eq!(read(&folder.path("pre/metrics.jsonl")).lines().count(), 6);
    assert!(folder.path("pre/recon/step-5.png").is_file() && folder.path("pre/train.log").is_file());

    // Sizes and preprocessing come from the run.
    let args = ["finetune", "--data=data", "--init=pre", "--out=fine", "--labels=20", "--epochs=2", "--json"];
    let found =
        folder.run(&args).json(&["accuracy", "balanced_accuracy", "interval", "n", "labels", "steps"]);
    assert_eq!((&found["n"], &found["labels"], &found["split"]), (&20.into(), &20.into(), &"test".into()));
    assert_eq!(folder.settings("fine")["dim"].as_integer(), Some(16));
    let accuracy = &found["accuracy"];

    let eval = |args: &[&str]| folder.run(&[&["eval"], args, &["--data=data", "--json"]].concat());
    let found = eval(&["fine"]).json(&["accuracy", "balanced_accuracy", "n", "per_class", "confusion"]);
    assert_eq!((&found["accuracy"], found["confusion"].as_array().unwrap().len()), (accuracy, 10));
    for probe in ["knn", "linear"] {
        for run in ["pre", "fine"] {
            let found = eval(&[run, "--probe", probe]).json(&["accuracy", "n"]);
            assert_eq!((&found["n"], &found["labels"]), (&20.into(), &40.into()));
        }
    }
    eval(&["pre"]).fails(5, &["pretraining run"]);
    let text = folder.run(&["eval", "fine", "--data=data", "--split=train"]).ok().out;
    assert!(text.contains("on 40 train images") && text.contains("stripes-flat"), "{text}");

    let found =
        folder.run(&["export", "fine", "-o", "m.onnx", "--json"]).json(&["file", "bytes", "selftest"]);
    let model = smalti_runtime::Model::open(folder.path("m.onnx")).unwrap();
    assert_eq!((model.labels().len(), found["classes"].as_u64()), (10, Some(10)));
    assert_eq!(found["bytes"].as_u64(), Some(std::fs::metadata(folder.path("m.onnx")).unwrap().len()));
    folder.run(&["export", "fine", "--input=f32-nchw"]).ok();
    assert!(folder.path("fine/model.onnx").is_file());
    folder.run(&["export", "pre"]).fails(5, &["pretraining run", "expected a classifier"]);

    let found = folder.run(&["embed", "pre", "--data=data", "-o", "e.safetensors", "--json"]).json(&["file"]);
    assert_eq!((&found["n"], &found["dim"]), (&60.into(), &16.into()));
    let (tensors, about) = smalti_trainer::model::weights::file::load(&folder.path("e.safetensors")).unwrap();
    assert_eq!(
        (&tensors["embeddings"].shape, about["places"].as_array().unwrap().len()),
        (&vec![60, 16], 60)
    );

    folder.run(&["reconstruct", "pre", "--data=data", "-o", "r.png", "--count=3"]).ok();
    let image = smalti_models::image::open(&folder.path("r.png"), &Default::default()).unwrap();
    assert!(image.width() > 3 * 16 && image.height() > 3 * 16);
    folder.run(&["reconstruct", "fine", "--data=data", "-o", "r.png"]).fails(5, &["classifier"]);
}

#[test]
fn validation_images_choose_and_are_not_learned_from() {
    let folder = Folder::with_data();
    let finetune = |out: &str, args: &[&str]| {
        let out = format!("--out={out}");
        folder.tiny("finetune", &[&["--data=data", "--init=scratch", "--json", &out], args].concat())
    };
    let found = finetune("a", &["--val=25%", "--epochs=2"]).json(&["best_epoch"]);
    assert_eq!((&found["labels"], found["best_epoch"].is_u64()), (&30.into(), true));
    assert!(folder.path("a/checkpoints/best.safetensors").is_file());
    std::fs::write(folder.path("val.txt"), "0\n7\n39\n").unwrap();
    assert_eq!(finetune("b", &["--val=val.txt"]).json(&[])["labels"], 37);
    assert_eq!(finetune("c", &["--val=data/test"]).json(&[])["labels"], 40);
    assert!(finetune("d", &["--val=none"]).json(&[])["best_epoch"].is_null());
    finetune("e", &["--labels=7"]).fails(2 + 3, &["7 labels are asked for"]);
    finetune("f", &["--labels=some.txt"]).fails(6, &["some.txt"]);
}

#[test]
fn a_run_is_what_it_was_trained_as() {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    let finetune = |args: &[&str]| folder.run(&[&["finetune", "--data=data", "--out=x"], args].concat());
    finetune(&["--init=pre", "--patch-size=8"]).fails(2, &["patch-size is 8", "4"]);
    finetune(&["--init=pre", "--fit=squash"]).fails(2, &["fit"]);
    finetune(&["--init=nowhere"]).fails(6, &["nowhere"]);
    finetune(&["--init=pre/checkpoints/last.safetensors", "--epochs=1"]).ok();
}

#[test]
fn speed_is_measured() {
    let folder = Folder::with_data();
    let keys = ["images_per_s", "peak_rss_mb", "step_ms", "gflops", "isa", "precision", "threads"];
    let bench = |args: &[&str]| folder.run(&[&["bench", "--json", "--seconds=0", "-t", "2"], args].concat());
    let size = ["--img-size=8", "--channels=1", "--patch-size=2", "--dim=12", "--depth=1", "--heads=3"];
    let found =
        bench(&[&size[..], &["--dec-dim=12", "--dec-heads=3", "--batch-size=4"]].concat()).json(&keys);
    assert!(found["images_per_s"].as_f64().unwrap() > 0.0 && found["threads"] == 2);
    // A measuring script passes zeros where there is no decoder.
    let none = ["--task=finetune", "--dec-dim=0", "--dec-depth=0", "--dec-heads=0", "--batch-size=4"];
    bench(&[&size[..], &none].concat()).json(&keys);
    bench(&["--batch-size=0"]).fails(2, &["batch-size is 0"]);

    let found =
        folder.run(&["data", "data", "--no-timing", "--json"]).json(&["splits", "duplicates", "unusable"]);
    assert_eq!(found["splits"][0]["images"], 40);
    assert!(folder.run(&["data", "data", "--no-timing"]).ok().out.contains("rings"));
}

#[test]
fn a_quickstart_does_the_whole_job() {
    let folder = Folder::empty();
    let args = ["quickstart", "--quick", "--minutes=0.05", "--json", "--out"];
    let keys = [
        "accuracy",
        "balanced_accuracy",
        "scratch_accuracy",
        "start",
        "runtime_agreement",
        "latency_ms",
        "seconds",
        "model",
    ];
    let found = folder.run(&[&args[..], &["q"]].concat()).json(&keys);
    assert!(found["runtime_agreement"].as_f64().unwrap() > 0.98, "{found}");
    assert!(found["largest_logit_difference"].as_f64().unwrap() < 1e-4, "{found}");
    assert_eq!(found["start"].as_str(), Some("photos-nano"));
    for left in ["q/data/train/potato", "q/scratch/finetune", "q/train/model.onnx", "q/report.json"] {
        assert!(folder.path(left).exists(), "{left}");
    }
    // Which run made the model, a fine-tuning or self-training, is chosen by held-out images.
    let train: Value = serde_json::from_str(&read(&folder.path("q/train/report.json"))).unwrap();
    let made_by = folder.path(train["run"].as_str().unwrap());
    assert!(made_by.join("checkpoints/last.safetensors").is_file(), "{train}");
    // All of it is Smalti's own.
    folder.run(&[&args[..], &["q", "--overwrite"]].concat()).json(&keys);
    folder.run(&[&args[..], &["q"]].concat()).fails(2, &["--overwrite", "--out"]);

    std::fs::rename(folder.path("q/data/test/potato"), folder.path("flat")).unwrap();
    folder.run(&[&args[..], &["u", "--data=flat"]].concat()).fails(5, &["no labels", "class folders"]);
}
