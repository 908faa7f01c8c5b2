//! A third stage in one file, to hold the skeleton to its promise: latent regression with an averaged teacher (in the
//! manner of BYOL, arXiv 2006.07733). The student sees some of an image's patches and predicts the embedding that the
//! teacher, a moving average of the student, has of all of them. No file of the other stages knows of it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use smalti_models::{Pooling, Preprocess, VitConfig};
use smalti_trainer::data::{Batch, Dataset, LoaderSettings, synthetic};
use smalti_trainer::model::params::Layout;
use smalti_trainer::model::precision::Precision;
use smalti_trainer::model::weights::save_model;
use smalti_trainer::model::{Classifier, classifier};
use smalti_trainer::objective::Mask;
use smalti_trainer::run::{Create, ModelConfig, ModelFiles, RunDir};
use smalti_trainer::train::optim::{LrDecay, MatrixOptimizer};
use smalti_trainer::train::step::{BatchPlan, GradLanes};
use smalti_trainer::train::{ExecConfig, Observer, OptimConfig, Planner, Progress, Task, TaskData, train};
use smalti_trainer::{Error, Result};

const SIZE: usize = 16;
const MOMENTUM: f32 = 0.9;
struct LatentRegression {
    model: Classifier,
    optim: OptimConfig,
    data: Dataset,
    teacher: Vec<f32>,
    /// Steps done, and those (from 1) whose loss is no number.
    steps: u64,
    spoiled: &'static [u64],
}
type Buffers = classifier::Activations<f32>;

impl Task for LatentRegression {
    type Buffers = Buffers;
    fn name(&self) -> &'static str {
        "regress"
    }
    fn settings(&self) -> Result<Value> {
        Ok(json!({"optim": self.optim, "momentum": MOMENTUM}))
    }
    fn settings_file(&self) -> Result<String> {
        Ok(format!("seed = {}\n", self.optim.seed))
    }
    fn optim(&self) -> &OptimConfig {
        &self.optim
    }
    fn data(&self) -> TaskData {
        let loader =
            LoaderSettings { shuffle: true, ..LoaderSettings::new(self.optim.batch_size, preprocess()) };
        TaskData { train: self.data.clone(), loader, mixes: false, others: Vec::new() }
    }
    fn plan(&self) -> Planner {
        Arc::new(|_, images| BatchPlan::new(images, 4))
    }
    fn layout(&self) -> &Layout {
        self.model.layout()
    }
    fn init(&mut self, _: bool) -> Result<Vec<f32>> {
        self.teacher = self.model.layout().init(self.optim.seed + 1);
        Ok(self.model.layout().init(self.optim.seed))
    }
    fn gradient(
        &mut self,
        lanes: &mut GradLanes<Buffers>,
        params: &[f32],
        batch: Batch,
        plan: BatchPlan,
    ) -> Result<()> {
        self.steps += 1;
        let factor = if self.spoiled.contains(&self.steps) { f64::NAN } else { 1.0 };
        let count = batch.len();
        let seen = Mask::draw(self.optim.seed, batch.epoch, &batch.ids, 16, 8).visible;
        let all = Mask::none(count, 16).visible;
        let input = |visible| classifier::Input {
            pixels: batch.pixels(),
            visible,
            drop: None,
            batch: count,
            batch_weight: None,
        };
        let weight = 1.0 / (batch.total * self.model.vit().dim) as f32;
        lanes.sum(plan, |images, acts, grads| {
            let images = batch.places(images);
            self.model.embed(&self.teacher, input(&all).slice(images.start, images.end), acts);
            let target = acts.embeddings.clone();
            let student = input(&seen).slice(images.start, images.end);
            self.model.embed(params, student, acts);
            let errors = acts.embeddings.iter().zip(&target).map(|(x, t)| x - t);
            acts.dembeddings = errors.map(|error| 2.0 * weight * error).collect();
            let squares = acts.embeddings.iter().zip(&target).map(|(x, t)| f64::from((x - t) * (x - t)));
            let loss = squares.sum::<f64>() * f64::from(weight);
            self.model.embed_backward(params, student, acts, grads);
            factor * loss
        })
    }
    fn model_files(&self) -> ModelFiles {
        let (model_type, encoder) = ("vit".into(), self.model.vit().clone());
        let config = ModelConfig {
            model_type,
            encoder,
            decoder: None,
            pool: Some(Pooling::Mean),
            norm_pix_loss: None,
        };
        ModelFiles { config, preprocess: preprocess(), labels: Vec::new() }
    }
    fn save(&self, path: &Path, params: &[f32]) -> Result<()> {
        save_model(path, self.model.layout(), params, &self.settings()?)
    }
    fn after_step(&mut self, params: &mut [f32], _: u64) {
        self.teacher.iter_mut().zip(params).for_each(|(t, p)| *t = MOMENTUM * *t + (1.0 - MOMENTUM) * *p);
    }
    fn vectors(&self) -> Vec<(&'static str, &[f32])> {
        vec![("teacher", &self.teacher)]
    }
    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        vec![("teacher", &mut self.teacher)]
    }
}

fn preprocess() -> Preprocess {
    let (fit, interpolation) = (Default::default(), Default::default());
    Preprocess {
        img_size: SIZE,
        channels: 3,
        fit,
        resize: None,
        interpolation,
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
    }
}
fn task() -> LatentRegression {
    let vit = VitConfig {
        img_size: SIZE,
        patch_size: 4,
        channels: 3,
        dim: 24,
        depth: 2,
        heads: 2,
        stem: Default::default(),
        variant: Default::default(),
    };
    let (model, data) =
        (Classifier::new(&vit, 1, Pooling::Mean).unwrap(), synthetic::dataset(1, 0, 40, SIZE));
    let (schedule, matrices, clip_grad) = (LrDecay::Linear, MatrixOptimizer::Muon(0.02), Some(1.0));
    let (betas, precision) = ([0.9, 0.95], Precision::F32);
    let (epochs, batch_size, lr, seed, weight_decay) = (8, 20, 2e-3, 3, 0.0);
    let (layer_decay, block_lr, warmup_epochs) = (1.0, 1.0, 0.0);
    #[rustfmt::skip]
    let optim = OptimConfig { epochs, steps: None, repeat: 1, batch_size, lr, betas, weight_decay, layer_decay, block_lr, warmup_epochs, schedule, clip_grad, matrices, seed, precision };
    LatentRegression { model, optim, data: data.unwrap(), teacher: Vec::new(), steps: 0, spoiled: &[] }
}
#[derive(Default)]
struct Watch(Vec<f64>, Option<usize>);
impl Observer for Watch {
    fn step(&mut self, progress: &Progress) {
        self.0.push(progress.loss);
    }
    fn stop(&self) -> Option<u8> {
        self.1.filter(|&steps| self.0.len() >= steps).map(|_| 130)
    }
}

/// The learning rates of a run with such steps, and how it ended.
fn rates(
    spoiled: &'static [u64],
    run: Option<&RunDir>,
) -> (Vec<f64>, Result<smalti_trainer::train::Outcome>) {
    struct Rates(Vec<f64>);
    impl Observer for Rates {
        fn step(&mut self, progress: &Progress) {
            self.0.push(progress.lr);
        }
    }
    let mut rates = Rates(Vec::new());
    let found = train(&mut LatentRegression { spoiled, ..task() }, &ExecConfig::new(1), run, &mut rates);
    (rates.0, found)
}

#[test]
fn a_step_that_is_no_number_is_left_out_and_halves_the_rate() {
    let (whole, _) = rates(&[], None);
    let (found, outcome) = rates(&[4, 10], None);
    let factors: Vec<f64> = whole.iter().zip(&found).map(|(whole, found)| found / whole).collect();
    let wanted = |step: usize| [1.0, 0.5, 0.25][usize::from(step >= 4) + usize::from(step >= 10)];
    assert!(factors.iter().enumerate().all(|(step, factor)| *factor == wanted(step)), "{factors:?}");
    assert!(outcome.unwrap().params.iter().all(|x| x.is_finite()));
}

#[test]
fn the_third_such_step_ends_the_run_and_the_checkpoint_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let run = RunDir::create(&path, "regress", &Create::default()).unwrap();
    let exec = ExecConfig { checkpoint_every: std::time::Duration::ZERO, ..ExecConfig::new(1) };
    let spoiled = &mut LatentRegression { spoiled: &[4, 5, 6], ..task() };
    let error = train(spoiled, &exec, Some(&run), &mut ()).unwrap_err();
    assert!(matches!(error, Error::Diverged(_)) && error.to_string().starts_with("step 6: "), "{error}");
    let (_, state) = run.load_state().unwrap();
    assert_eq!((state.about.step, state.about.setbacks), (5, 2));
    assert!(state.vectors["params"].iter().all(|x| x.is_finite()));
}

#[test]
fn a_run_goes_on_while_checkpoints_cannot_be_written() {
    /// Has a file in the place of the folder of checkpoints for some steps.
    struct Obstacle(std::path::PathBuf);
    impl Observer for Obstacle {
        fn step(&mut self, progress: &Progress) {
            let (folder, aside) = (self.0.join("checkpoints"), self.0.join("aside"));
            match progress.step {
                3 => {
                    std::fs::rename(&folder, aside).unwrap();
                    std::fs::write(folder, "").unwrap();
                }
                9 => {
                    std::fs::remove_file(&folder).unwrap();
                    std::fs::rename(aside, folder).unwrap();
                }
                _ => {}
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let run = RunDir::create(&path, "regress", &Create::default()).unwrap();
    let exec = ExecConfig { checkpoint_every: std::time::Duration::ZERO, ..ExecConfig::new(1) };
    let found = train(&mut task(), &exec, Some(&run), &mut Obstacle(path.clone())).unwrap();
    let whole = train(&mut task(), &ExecConfig::new(1), None, &mut ()).unwrap();
    assert!(found.params == whole.params && run.load_state().unwrap().1.about.ended);
}

#[test]
fn a_third_stage_learns_and_resumes_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = Watch::default();
    let found = train(&mut task(), &ExecConfig::new(2), None, &mut whole).unwrap();
    assert!(whole.0[15] < 0.5 * whole.0[0], "{:?}", whole.0);

    let path = folder.path().join("run");
    let run = RunDir::create(&path, "regress", &Create::default()).unwrap();
    let stopped = train(&mut task(), &ExecConfig::new(1), Some(&run), &mut Watch(Vec::new(), Some(7)));
    assert!(matches!(stopped, Err(Error::Interrupted { step: 7, .. })));
    drop(run);
    let run = RunDir::resume(&path, "regress").unwrap();
    let resumed = train(&mut task(), &ExecConfig::new(1), Some(&run), &mut ()).unwrap();
    assert!(resumed.params == found.params && resumed.steps == 16);
}
