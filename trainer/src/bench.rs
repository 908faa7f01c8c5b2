//! Training throughput on this machine: the stages themselves, with their loaders, optimizers and defaults, watched for a
//! while and stopped.

use std::time::{Duration, Instant};

use serde::Serialize;
use smalti_models::Image;

use crate::clock::{self, Op};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::model::precision::Precision;
use crate::rng::Rng;
use crate::stages::finetune::{self, FinetuneSettings};
use crate::stages::pretrain::{self, PretrainSettings};
use crate::train::memory::Memory;
use crate::train::{ExecConfig, Observer, OptimConfig, Progress};

/// Classes of drawn images.
const CLASSES: usize = 10;
/// The exit code that stops a stage which was watched for long enough. It never leaves this module.
const ENOUGH: u8 = 1;

/// The stage that is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Pretraining.
    Pretrain(PretrainSettings),
    /// Fine-tuning, from scratch: the start makes no difference to the speed.
    Finetune(FinetuneSettings),
}

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The stage.
    pub stage: Stage,
    /// The images to train on.
    pub data: &'a Dataset,
    /// Threads.
    pub exec: ExecConfig,
    /// Steps before the measurement.
    pub warm_up: usize,
    /// Steps that are measured at least.
    pub min_steps: usize,
    /// How long to measure.
    pub time: Duration,
}

impl<'a> Settings<'a> {
    /// Five steps or more, for so long, after a warm-up of four.
    pub fn new(stage: Stage, data: &'a Dataset, exec: ExecConfig, time: Duration) -> Settings<'a> {
        Settings { stage, data, exec, warm_up: 4, min_steps: 5, time }
    }
}

/// What was measured. The keys are those that measuring scripts read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of these keys.
    pub schema_version: u32,
    /// Images trained on a second, median over steps.
    pub images_per_s: f64,
    /// Milliseconds a step, median.
    pub step_ms: f64,
    /// Arithmetic a second in 10⁹: 6 for each multiply-add of a forward pass.
    pub gflops: f64,
    /// Peak memory of the process in MB; absent where the system does not tell.
    pub peak_rss_mb: Option<f64>,
    /// What the buffers of training take, computed from the settings, in MB.
    pub buffers_mb: f64,
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// Arithmetic of the products.
    pub precision: Precision,
    /// Threads that compute.
    pub threads: usize,
    /// Arithmetic a second in 10⁹ that this machine's float kernels reach on these threads at most, on data in the nearest
    /// cache.
    pub peak_gflops: f64,
    /// [`Report::gflops`] over that.
    pub of_peak: f64,
    /// The share of the threads' time that each operation takes; `rest` is copies between them and waiting.
    pub shares: Vec<Share>,
}

/// An operation's part of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The operation.
    pub operation: &'static str,
    /// Its share of the time, 0 to 1.
    pub share: f64,
}

/// Trains for the time asked.
pub fn run(settings: &Settings<'_>) -> Result<Report> {
    let mut watch = Watch::new(settings);
    let ended = match &settings.stage {
        Stage::Pretrain(stage) => {
            let stage = PretrainSettings { optim: endless(&stage.optim), ..stage.clone() };
            pretrain::pretrain(&stage, &settings.exec, settings.data, None, &mut watch).err()
        }
        Stage::Finetune(stage) => {
            let stage = FinetuneSettings { optim: endless(&stage.optim), ..stage.clone() };
            let images = finetune::Images::labelled(settings.data);
            finetune::finetune(&stage, &settings.exec, &images, None, None, &mut watch).err()
        }
    };
    let spent = clock::spent();
    clock::switch(false);
    match ended {
        None | Some(Error::Interrupted { code: ENOUGH, .. }) => Ok(watch.report(settings, spent)),
        Some(error) => Err(error),
    }
}

/// The same schedule without an end that the measurement could reach.
fn endless(optim: &OptimConfig) -> OptimConfig {
    OptimConfig { epochs: 1_000_000, steps: None, repeat: 1, ..optim.clone() }
}

/// Random images with labels.
pub fn noise(count: usize, img_size: usize, channels: usize) -> Result<Dataset> {
    let mut rng = Rng::new(0, 0, []);
    let mut image = |i: usize| {
        let pixels = (0..img_size * img_size * channels).map(|_| rng.bits() as u8).collect();
        Ok((Image::new(img_size, img_size, channels, pixels)?, Some((i % CLASSES) as u32)))
    };
    let images = (0..count).map(&mut image).collect::<Result<Vec<_>>>()?;
    Dataset::from_images((0..CLASSES).map(|class| class.to_string()).collect(), images)
}

/// Times the steps of a stage, then looks where the time goes over as many steps again (looking costs time itself), then
/// stops the stage.
struct Watch {
    warm_up: usize,
    min_steps: usize,
    time: Duration,
    /// Steps seen.
    seen: usize,
    last: Instant,
    /// When measuring began.
    start: Instant,
    /// Seconds of each step that was measured.
    times: Vec<f64>,
    /// When looking began, and the steps since.
    looking: Option<(Instant, usize)>,
    /// Seconds of looking.
    looked: Option<f64>,
    images: usize,
}

impl Watch {
    fn new(settings: &Settings<'_>) -> Watch {
        let now = Instant::now();
        Watch {
            warm_up: settings.warm_up,
            min_steps: settings.min_steps.max(1),
            time: settings.time,
            seen: 0,
            last: now,
            start: now,
            times: Vec::new(),
            looking: None,
            looked: None,
            images: 0,
        }
    }

    fn report(&self, settings: &Settings<'_>, spent: [f64; Op::ALL.len()]) -> Report {
        let mut times = self.times.clone();
        times.sort_unstable_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
        let threads = settings.exec.threads;
        let (multiply_adds, memory, precision) = described(settings, self.images);
        let images_per_s = self.images as f64 / median;
        let gflops = images_per_s * 6.0 * multiply_adds as f64 / 1e9;
        let isa = smalti_kernels::Isa::best();
        // A multiply-add is two operations.
        let peak_gflops = 2.0 * smalti_kernels::peak::measure(isa).floats * threads as f64;
        Report {
            schema_version: 1,
            images_per_s,
            step_ms: median * 1e3,
            gflops,
            peak_rss_mb: peak_rss_mb(),
            buffers_mb: memory.bytes() as f64 / (1 << 20) as f64,
            isa: isa.name(),
            precision,
            threads,
            peak_gflops,
            of_peak: gflops / peak_gflops.max(1e-9),
            shares: shares(spent, self.looked.unwrap_or_default() * threads as f64),
        }
    }
}

impl Observer for Watch {
    fn step(&mut self, progress: &Progress) {
        let (now, lap) = (Instant::now(), self.last.elapsed().as_secs_f64());
        self.seen += 1;
        self.images = progress.images;
        if let Some((since, steps)) = &mut self.looking {
            *steps += 1;
            if *steps >= self.times.len().min(20) {
                self.looked = Some(since.elapsed().as_secs_f64());
            }
        } else if self.seen == self.warm_up {
            self.start = now;
        } else if self.seen > self.warm_up {
            self.times.push(lap);
            if self.times.len() >= self.min_steps && self.start.elapsed() >= self.time {
                clock::switch(true);
                self.looking = Some((Instant::now(), 0));
            }
        }
        self.last = Instant::now();
    }

    fn stop(&self) -> Option<u8> {
        self.looked.map(|_| ENOUGH)
    }
}

/// Multiply-adds of a forward pass of one image, the memory of training, and the arithmetic of the matrix products.
fn described(settings: &Settings<'_>, batch: usize) -> (u64, Memory, Precision) {
    let threads = settings.exec.threads;
    match &settings.stage {
        Stage::Pretrain(stage) => {
            let (config, visible) = (&stage.model, stage.model.visible(stage.mask_ratio));
            let memory = Memory::of_pretraining(config, visible, batch, threads);
            (config.multiply_adds(visible), memory, stage.optim.precision)
        }
        Stage::Finetune(stage) => {
            let (vit, classes) = (&stage.encoder, settings.data.classes().len());
            let memory = Memory::of_finetuning(vit, classes, batch, threads);
            (vit.multiply_adds(vit.patches()), memory, stage.optim.precision)
        }
    }
}

/// Each operation's fraction of `all` seconds.
fn shares(spent: [f64; Op::ALL.len()], all: f64) -> Vec<Share> {
    let share = |(op, spent): (&Op, f64)| Share { operation: op.name(), share: spent / all.max(1e-9) };
    let mut shares: Vec<Share> = Op::ALL.iter().zip(spent).map(share).collect();
    let rest = 1.0 - shares.iter().map(|share| share.share).sum::<f64>();
    shares.push(Share { operation: "rest", share: rest.max(0.0) });
    shares
}

/// The process's peak resident memory in MB, where `/proc` has it.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kb| kb / 1024.0)
}

#[cfg(test)]
mod tests {
    use smalti_models::{DecoderConfig, MaeConfig, Pooling, Preprocess, VitConfig};

    use super::*;
    use crate::data::{Augment, Mix};
    use crate::train::optim::{LrDecay, MatrixOptimizer};

    #[test]
    fn both_stages_are_measured() {
        let vit = VitConfig {
            img_size: 8,
            patch_size: 2,
            channels: 1,
            dim: 16,
            depth: 1,
            heads: 2,
            stem: Default::default(),
            variant: Default::default(),
        };
        let decoder = DecoderConfig { kind: Default::default(), dim: 8, depth: 1, heads: 2 };
        let preprocess = Preprocess {
            img_size: 8,
            channels: 1,
            fit: Default::default(),
            resize: None,
            interpolation: Default::default(),
            mean: vec![0.5],
            std: vec![0.25],
        };
        let optim = OptimConfig {
            epochs: 1,
            steps: None,
            repeat: 1,
            batch_size: 4,
            lr: 1e-3,
            betas: [0.9, 0.95],
            weight_decay: 0.05,
            layer_decay: 1.0,
            block_lr: 1.0,
            warmup_epochs: 1.0,
            schedule: LrDecay::Linear,
            clip_grad: Some(1.0),
            matrices: MatrixOptimizer::Muon(0.02),
            seed: 0,
            precision: Precision::Bf16,
        };
        let pretrain = PretrainSettings {
            model: MaeConfig { encoder: vit.clone(), decoder },
            preprocess: preprocess.clone(),
            optim: optim.clone(),
            mask_ratio: 0.75,
            predict_ratio: 1.0,
            norm_pix_loss: true,
            augment: Augment::default(),
        };
        let finetune = FinetuneSettings {
            encoder: vit,
            pool: Pooling::Mean,
            preprocess,
            optim,
            augment: Augment::default(),
            mix: Mix::default(),
            smoothing: 0.1,
            drop_path: 0.0,
            token_drop: 0.0,
            head: Default::default(),
            ema: 0.0,
            interpolate: 0.0,
        };
        let data = noise(12, 8, 1).unwrap();
        for stage in [Stage::Pretrain(pretrain), Stage::Finetune(finetune)] {
            let settings = Settings::new(stage, &data, ExecConfig::new(2), Duration::ZERO);
            let report = run(&settings).unwrap();
            assert!(report.images_per_s > 0.0 && report.gflops > 0.0 && report.threads == 2);
            assert!(report.peak_gflops > report.gflops);
            assert_eq!(report.shares.len(), Op::ALL.len() + 1);
            assert!(
                report.shares.iter().all(|share| share.share > 0.0 || share.operation == "rest"),
                "{report:?}"
            );
        }
    }
}
