//! Whole runs of the library on small models: the same bits from the same seed, over threads, and after a stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use smalti_models::{DecoderConfig, DecoderKind, MaeConfig, Pooling, Preprocess, Stem, VitConfig};
use smalti_trainer::data::{Augment, CropKind, Dataset, Mix, synthetic};
use smalti_trainer::error::Error;
use smalti_trainer::evaluate::probe;
use smalti_trainer::model::precision::Precision;
use smalti_trainer::run::{Create, RunDir};
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Images, finetune, finetune_from};
use smalti_trainer::stages::pretrain::{self, PretrainSettings, pretrain};
use smalti_trainer::train::optim::{LrDecay, MatrixOptimizer};
use smalti_trainer::train::ranks::Ranks;
use smalti_trainer::train::{ExecConfig, Observer, OptimConfig, Progress};

const SIZE: usize = 16;

fn data() -> Dataset {
    synthetic::dataset(3, 0, 48, SIZE).unwrap()
}

fn encoder() -> VitConfig {
    VitConfig {
        img_size: SIZE,
        patch_size: 4,
        channels: 3,
        dim: 32,
        depth: 2,
        heads: 2,
        stem: Default::default(),
        variant: Default::default(),
    }
}

fn preprocess() -> Preprocess {
    Preprocess {
        img_size: SIZE,
        channels: 3,
        fit: Default::default(),
        resize: None,
        interpolation: Default::default(),
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
    }
}

fn optim(epochs: u64) -> OptimConfig {
    OptimConfig {
        epochs,
        steps: None,
        repeat: 1,
        batch_size: 20,
        lr: 2e-3,
        betas: [0.9, 0.95],
        weight_decay: 0.05,
        layer_decay: 1.0,
        block_lr: 1.0,
        warmup_epochs: 1.0,
        schedule: LrDecay::Cosine,
        clip_grad: Some(1.0),
        matrices: MatrixOptimizer::AdamW,
        seed: 7,
        precision: Precision::F32,
    }
}

/// The same with products of bf16.
fn in_bf16(settings: PretrainSettings) -> PretrainSettings {
    let optim = OptimConfig { precision: Precision::Bf16, ..settings.optim.clone() };
    PretrainSettings { optim, ..settings }
}

fn augment() -> Augment {
    Augment { crop: CropKind::Padded(2), flip: true, jitter: 0.2, erasing: 0.25, ..Augment::default() }
}

fn pretraining(epochs: u64) -> PretrainSettings {
    let decoder = DecoderConfig { kind: Default::default(), dim: 16, depth: 1, heads: 2 };
    PretrainSettings {
        model: MaeConfig { encoder: encoder(), decoder },
        preprocess: preprocess(),
        optim: optim(epochs),
        mask_ratio: 0.75,
        predict_ratio: 1.0,
        norm_pix_loss: true,
        augment: augment(),
    }
}

/// Everything that draws random numbers is switched on.
fn finetuning(epochs: u64) -> FinetuneSettings {
    FinetuneSettings {
        encoder: encoder(),
        pool: Pooling::Mean,
        preprocess: preprocess(),
        optim: OptimConfig { layer_decay: 0.75, ..optim(epochs) },
        augment: augment(),
        mix: Mix { mixup: 0.8, cutmix: 1.0 },
        smoothing: 0.1,
        drop_path: 0.2,
        token_drop: 0.5,
        head: Default::default(),
        ema: 0.0,
        interpolate: 0.0,
    }
}

/// The smallest with a stem of convolutions: the images are enlarged for it.
fn hybrid() -> (VitConfig, Preprocess) {
    let vit = VitConfig { img_size: 32, patch_size: 16, stem: Stem::Convolutions, ..encoder() };
    (vit, Preprocess { img_size: 32, ..preprocess() })
}

fn hybrid_pretraining(epochs: u64) -> PretrainSettings {
    let ((encoder, preprocess), plain) = (hybrid(), pretraining(epochs));
    PretrainSettings { model: MaeConfig { encoder, ..plain.model }, preprocess, ..plain }
}

fn hybrid_finetuning(epochs: u64) -> FinetuneSettings {
    let (encoder, preprocess) = hybrid();
    FinetuneSettings { encoder, preprocess, ..finetuning(epochs) }
}

/// Collects losses; stops after a number of steps.
#[derive(Default)]
struct Watch {
    losses: Vec<f64>,
    stop_after: Option<usize>,
}

impl Observer for Watch {
    fn step(&mut self, progress: &Progress) {
        self.losses.push(progress.loss);
    }
    fn stop(&self) -> Option<u8> {
        self.stop_after.filter(|&n| self.losses.len() >= n).map(|_| 130)
    }
}

fn exec(threads: usize) -> ExecConfig {
    let checkpoint_every = Duration::ZERO;
    ExecConfig { loader_threads: threads, checkpoint_every, ..ExecConfig::new(threads) }
}

fn resume(path: &Path) -> RunDir {
    RunDir::resume(path, "test").unwrap()
}

fn create(path: &Path) -> RunDir {
    RunDir::create(path, "test", &Create::default()).unwrap()
}

#[test]
fn pretraining_gives_the_same_bits_from_the_same_seed_over_any_threads() {
    let run = |settings: &PretrainSettings, threads| {
        let mut watch = Watch::default();
        let found = pretrain(settings, &exec(threads), &data(), None, &mut watch).unwrap().0;
        (found.params, watch.losses)
    };
    let [one, rounded] = [pretraining(3), in_bf16(pretraining(3))].map(|settings| {
        let one = run(&settings, 1);
        assert_eq!(one, run(&settings, 1));
        assert_eq!(one, run(&settings, 3));
        assert_eq!(one.1.len(), 3 * 2);
        one
    });
    for (loss, rounded) in one.1.iter().zip(&rounded.1) {
        assert!(loss != rounded && (loss - rounded).abs() < 0.01 * loss, "{loss}, in bf16 {rounded}");
    }
    let other = PretrainSettings { optim: OptimConfig { seed: 8, ..optim(3) }, ..pretraining(3) };
    assert_ne!(pretrain(&other, &exec(1), &data(), None, &mut ()).unwrap().0.params, one.0);
}

#[test]
fn pretraining_learns() {
    let mut watch = Watch::default();
    let settings = PretrainSettings { augment: Augment::default(), ..pretraining(40) };
    pretrain(&settings, &exec(2), &data(), None, &mut watch).unwrap();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&watch.losses[..4]), mean(&watch.losses[watch.losses.len() - 4..]));
    assert!(last < 0.8 * first, "{first} to {last}");
}

/// Runs to the end in one go and in pieces; returns both final parameters.
fn in_pieces(
    mut run: impl FnMut(&RunDir, &ExecConfig, &mut dyn Observer) -> Result<Vec<f32>, Error>,
) -> [Vec<f32>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let whole = create(&folder.path().join("whole"));
    let whole_params = run(&whole, &exec(2), &mut ()).unwrap();
    let path = folder.path().join("pieces");
    for (i, stop) in [3, 2].into_iter().enumerate() {
        let mut watch = Watch { stop_after: Some(stop), ..Watch::default() };
        let pieces = if i == 0 { create(&path) } else { resume(&path) };
        let error = run(&pieces, &exec(1 + i), &mut watch).unwrap_err();
        assert!(matches!(error, Error::Interrupted { code: 130, .. }), "{error}");
    }
    let pieces = resume(&path);
    let params = run(&pieces, &exec(1), &mut ()).unwrap();
    assert_eq!(losses(&whole), losses(&pieces));
    assert_eq!(std::fs::read(whole.model("last")).unwrap(), std::fs::read(pieces.model("last")).unwrap());
    [whole_params, params]
}

/// Step and loss of each line of a run's metrics.
fn losses(run: &RunDir) -> Vec<(serde_json::Value, serde_json::Value)> {
    let text = std::fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
    let of = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["step"].clone(), line["loss"].clone())
    };
    text.lines().map(of).collect()
}

#[test]
fn an_interrupted_pretraining_ends_with_the_same_bits() {
    let [whole, pieces] = in_pieces(|run, exec, observer| {
        Ok(pretrain(&pretraining(5), exec, &data(), Some(run), observer)?.0.params)
    });
    assert_eq!(whole, pieces);
    let [rounded, pieces] = in_pieces(|run, exec, observer| {
        Ok(pretrain(&in_bf16(pretraining(5)), exec, &data(), Some(run), observer)?.0.params)
    });
    assert_eq!(rounded, pieces);
    assert_ne!(rounded, whole);
}

#[test]
fn an_interrupted_finetuning_ends_with_the_same_bits() {
    let data = data();
    let [whole, pieces] = in_pieces(|run, exec, observer| {
        let images = Images { train: &data, val: Some(&data), targets: None };
        Ok(finetune(&finetuning(4), exec, &images, None, Some(run), observer)?.0.params)
    });
    assert_eq!(whole, pieces);
}

/// The cross decoder on half of the hidden patches, moved by Muon.
fn other_pretraining(epochs: u64) -> PretrainSettings {
    let decoder = DecoderConfig { kind: DecoderKind::Cross, dim: 16, depth: 2, heads: 2 };
    PretrainSettings {
        model: MaeConfig { encoder: encoder(), decoder },
        optim: OptimConfig { matrices: MatrixOptimizer::Muon(0.02), ..optim(epochs) },
        predict_ratio: 0.5,
        ..pretraining(epochs)
    }
}

#[test]
fn an_interrupted_pretraining_by_muon_ends_with_the_same_bits() {
    let [whole, pieces] = in_pieces(|run, exec, observer| {
        Ok(pretrain(&other_pretraining(5), exec, &data(), Some(run), observer)?.0.params)
    });
    assert_eq!(whole, pieces);
}

#[test]
fn the_cross_decoder_and_muon_learn_and_come_back_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(&folder.path().join("run"));
    let settings = PretrainSettings { augment: Augment::default(), ..other_pretraining(40) };
    let mut watch = Watch::default();
    let found = pretrain(&settings, &exec(2), &data(), Some(&run), &mut watch).unwrap().0;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&watch.losses[..4]), mean(&watch.losses[watch.losses.len() - 4..]));
    assert!(last < 0.8 * first, "{first} to {last}");
    let loaded = pretrain::load(run.path()).unwrap();
    assert_eq!((loaded.params, loaded.model.config()), (found.params, found.model.config()));
    assert!(run.path().join("recon/step-80.png").is_file());

    let (data, init) = (data(), run.model("last"));
    let images = Images::labelled(&data);
    finetune(&finetuning(1), &exec(1), &images, Some(&init), None, &mut ()).unwrap();
    let all = PretrainSettings { predict_ratio: 0.5, ..pretraining(1) };
    let error = pretrain(&all, &exec(1), &data, None, &mut ()).unwrap_err();
    assert!(error.to_string().contains("--decoder cross"), "{error}");
}

/// What `size` ranks within this process give, the first of which has the run's folder.
fn ranks<T: Send>(size: usize, work: impl Fn(&ExecConfig, bool) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads = Ranks::threads(size).into_iter().map(|ranks| {
            let (first, work) = (ranks.rank() == 0, &work);
            let exec = ExecConfig { ranks: Some(Arc::new(ranks)), ..exec(2) };
            scope.spawn(move || work(&exec, first))
        });
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn ranks_pretrain_to_the_bits_of_one_process() {
    for settings in [pretraining(3), other_pretraining(2)] {
        let mut watch = Watch::default();
        let alone = pretrain(&settings, &exec(1), &data(), None, &mut watch).unwrap().0;
        for size in [2, 3] {
            let found = ranks(size, |exec, _| {
                let mut watch = Watch::default();
                let found = pretrain(&settings, exec, &data(), None, &mut watch).unwrap().0;
                (found.params, watch.losses)
            });
            assert!(found.iter().all(|found| *found == (alone.params.clone(), watch.losses.clone())));
        }
    }
}

#[test]
fn ranks_finetune_to_the_bits_of_one_process_and_go_on_with_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = data();
    let images = || Images { train: &data, val: Some(&data), targets: None };
    let mut watch = Watch::default();
    let alone = finetune(&finetuning(4), &exec(1), &images(), None, None, &mut watch).unwrap().0;
    let found =
        ranks(3, |exec, _| finetune(&finetuning(4), exec, &images(), None, None, &mut ()).unwrap().0.params);
    assert!(found.iter().all(|params| *params == alone.params));

    // Begun by one process, resumed by two.
    let run = create(&folder.path().join("run"));
    let mut stopped = Watch { stop_after: Some(4), ..Watch::default() };
    finetune(&finetuning(4), &exec(1), &images(), None, Some(&run), &mut stopped).unwrap_err();
    drop(run);
    let run = resume(&folder.path().join("run"));
    let found = ranks(2, |exec, first| {
        let run = first.then_some(&run);
        finetune(&finetuning(4), exec, &images(), None, run, &mut ()).unwrap().0.params
    });
    assert!(found.iter().all(|params| *params == alone.params));
    let losses: Vec<f64> = losses(&run).iter().filter_map(|(_, loss)| loss.as_f64()).collect();
    assert_eq!(losses, watch.losses);
}

#[test]
fn a_hybrid_gives_the_same_bits_over_threads_ranks_and_stops() {
    let data = data();
    let images = || Images { train: &data, val: Some(&data), targets: None };
    let pretrained = |exec: &ExecConfig, run: Option<&RunDir>, observer: &mut dyn Observer| {
        Ok(pretrain(&hybrid_pretraining(3), exec, &data, run, observer)?.0.params)
    };
    let finetuned = |exec: &ExecConfig, run: Option<&RunDir>, observer: &mut dyn Observer| {
        Ok(finetune(&hybrid_finetuning(4), exec, &images(), None, run, observer)?.0.params)
    };
    let [alone, pieces] = in_pieces(|run, exec, observer| pretrained(exec, Some(run), observer));
    assert_eq!(alone, pieces);
    assert!(ranks(2, |exec, _| pretrained(exec, None, &mut ()).unwrap()).iter().all(|found| *found == alone));
    let [alone, pieces] = in_pieces(|run, exec, observer| finetuned(exec, Some(run), observer));
    assert_eq!(alone, pieces);
    assert!(ranks(2, |exec, _| finetuned(exec, None, &mut ()).unwrap()).iter().all(|found| *found == alone));
}

#[test]
fn a_pretrained_hybrid_goes_into_a_classifier_and_back_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let data = data();
    let (images, first) = (Images::labelled(&data), create(&folder.path().join("pre")));
    let pretrained = pretrain(&hybrid_pretraining(1), &exec(1), &data, Some(&first), &mut ()).unwrap().0;
    assert_eq!(pretrain::load(first.path()).unwrap().params, pretrained.params);
    assert_eq!(probe::load(first.path()).unwrap().model.layout().slot("norm.weight").ok(), None);

    let still = OptimConfig { lr: 0.0, ..optim(1) };
    let still = FinetuneSettings { optim: still, ..hybrid_finetuning(1) };
    let (second, init) = (create(&folder.path().join("fine")), first.model("last"));
    let tuned = finetune(&still, &exec(1), &images, Some(&init), Some(&second), &mut ()).unwrap().0;
    for (spec, slot) in tuned.model.layout().iter().filter(|(spec, _)| !spec.name.starts_with("head.")) {
        let source = pretrained.model.layout().slot(&spec.name).unwrap().of(&pretrained.params);
        // Statistics follow the images, whatever the learning rate.
        assert_eq!(slot.of(&tuned.params) != source, spec.role.is_statistic(), "{}", spec.name);
    }
    let mut loaded = finetune::load(second.path()).unwrap();
    assert_eq!((&loaded.params, &loaded.labels), (&tuned.params, &tuned.labels));
    loaded.divide_logits(2.0);
    for (spec, slot) in tuned.model.layout().iter() {
        let factor = if ["head.weight", "head.bias"].contains(&spec.name.as_str()) { 0.5 } else { 1.0 };
        let pairs = slot.of(&loaded.params).iter().zip(slot.of(&tuned.params));
        assert!(pairs.into_iter().all(|(got, was)| *got == factor * was), "{}", spec.name);
    }

    // A larger image has more positions, which are resampled.
    let (encoder, preprocess) = hybrid();
    let larger = FinetuneSettings {
        encoder: VitConfig { img_size: 64, ..encoder },
        preprocess: Preprocess { img_size: 64, ..preprocess },
        ..hybrid_finetuning(1)
    };
    assert_eq!(finetune::check_init(&larger, &init).unwrap().resampled, Some([2, 4]));
}

#[test]
fn a_pretrained_encoder_goes_into_a_classifier_and_back_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let data = data();
    let first = create(&folder.path().join("pre"));
    let pretrained = pretrain(&pretraining(1), &exec(1), &data, Some(&first), &mut ()).unwrap().0;
    assert_eq!(pretrain::load(first.path()).unwrap().params, pretrained.params);
    assert!(finetune::load(first.path()).unwrap_err().to_string().contains("pretraining run"));

    // A learning rate of zero shows what the start was.
    let still = FinetuneSettings { optim: OptimConfig { lr: 0.0, ..optim(1) }, ..finetuning(1) };
    let second = create(&folder.path().join("fine"));
    let (images, init) = (Images::labelled(&data), first.model("last"));
    let tuned = finetune(&still, &exec(1), &images, Some(&init), Some(&second), &mut ()).unwrap().0;
    for (spec, slot) in tuned.model.layout().iter() {
        if spec.name.starts_with("blocks.") || spec.name.starts_with("patch_embed.") {
            let source = pretrained.model.layout().slot(&spec.name).unwrap().of(&pretrained.params);
            assert_eq!(slot.of(&tuned.params), source, "{}", spec.name);
        }
    }
    let loaded = finetune::load(second.path()).unwrap();
    assert_eq!((loaded.params, loaded.labels), (tuned.params, tuned.labels));

    let encoder = VitConfig { dim: 16, ..encoder() };
    let small = FinetuneSettings { encoder, ..finetuning(1) };
    let error = finetune(&small, &exec(1), &images, Some(&init), None, &mut ()).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
}

#[test]
fn a_resumed_run_must_have_the_same_settings() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(&folder.path().join("run"));
    let mut watch = Watch { stop_after: Some(1), ..Watch::default() };
    pretrain(&pretraining(2), &exec(1), &data(), Some(&run), &mut watch).unwrap_err();
    drop(run);
    let run = resume(&folder.path().join("run"));
    let other = PretrainSettings { mask_ratio: 0.5, ..pretraining(2) };
    for (other, name) in [(other, "mask-ratio"), (in_bf16(pretraining(2)), "precision")] {
        let error = pretrain(&other, &exec(1), &data(), Some(&run), &mut ()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(&folder.path().join("run"));
    let wild =
        OptimConfig { lr: 100.0, weight_decay: 1e6, clip_grad: None, warmup_epochs: 0.0, ..optim(200) };
    let wild = PretrainSettings { optim: wild, ..pretraining(200) };
    let error = pretrain(&wild, &exec(1), &data(), Some(&run), &mut ()).unwrap_err();
    assert!(matches!(error, Error::Diverged(_)) && error.exit_code() == 1, "{error}");
    assert!(error.to_string().contains("--lr"), "{error}");
    assert!(pretrain::load(run.path()).unwrap().params.iter().all(|x| x.is_finite()));
}

#[test]
fn soft_labels_that_are_the_labels_give_the_same_bits() {
    let data = data();
    let settings = FinetuneSettings { smoothing: 0.0, ..finetuning(3) };
    let of =
        |images: Images<'_>| finetune(&settings, &exec(2), &images, None, None, &mut ()).unwrap().0.params;
    let classes = data.classes().len();
    let mut targets = vec![0f32; data.len() * classes];
    data.labels()
        .unwrap()
        .iter()
        .enumerate()
        .for_each(|(i, label)| targets[i * classes + *label as usize] = 1.0);
    let unlabelled = data.without_labels();
    let soft = |targets| Images { train: &unlabelled, val: None, targets: Some(targets) };
    assert_eq!(of(Images::labelled(&data)), of(soft(&targets)));
    let error = finetune(&settings, &exec(1), &soft(&targets[1..]), None, None, &mut ()).unwrap_err();
    assert!(error.to_string().contains("soft labels"), "{error}");
}

#[test]
fn a_given_start_is_where_finetuning_begins() {
    let (data, settings) = (data(), finetuning(1));
    let images = Images::labelled(&data);
    let begin = finetune::start(&settings, data.classes(), None).unwrap().params;
    let still = FinetuneSettings { interpolate: 1.0, ..settings };
    let found = finetune_from(&begin, &still, &exec(1), &images, None, &mut ()).unwrap().0;
    assert!(found.params.iter().zip(&begin).all(|(x, begin)| (x - begin).abs() < 1e-6));
    assert!(finetune_from(&begin[1..], &still, &exec(1), &images, None, &mut ()).is_err());
}

#[test]
fn labels_are_given_to_the_images_that_have_them() {
    let data = data();
    let some = data.select(&[5, 0, 7]);
    let all = data.without_labels().with_labels_of(&some);
    assert_eq!((all.len(), all.labelled().len(), all.classes()), (data.len(), 3, data.classes()));
    assert!([0, 5, 7].iter().all(|i| all.label(*i) == data.label(*i)));
}
