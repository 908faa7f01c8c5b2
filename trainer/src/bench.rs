//! Training throughput on this machine: whole steps (masks, forward, backward, AdamW) on random images.

use std::time::{Duration, Instant};

use serde::Serialize;
use smalti_models::{MaeConfig, Pool, VitConfig};

use crate::clock::{self, Op};
use crate::error::Result;
use crate::model::precision::Precision;
use crate::model::{Classifier, Mae, classifier, mae};
use crate::objective::{CrossEntropy, Mask, PixelLoss};
use crate::rng::Rng;
use crate::train::memory::Memory;
use crate::train::optim::{AdamW, adamw};
use crate::train::step::{BatchPlan, GradLanes, micro_batch};

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Masked-autoencoder pretraining with 75 % of the patches hidden.
    Pretrain(MaeConfig),
    /// Supervised fine-tuning on ten classes, every patch seen.
    Finetune(VitConfig),
}

/// How it is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model and what is done with it.
    pub task: Task,
    /// Images a step.
    pub batch_size: usize,
    /// Threads that compute.
    pub threads: usize,
    /// How long to measure, after a warm-up.
    pub time: Duration,
    /// What layers multiply in.
    pub precision: Precision,
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

/// Trains on random images for the time asked.
pub fn run(settings: &Settings) -> Result<Report> {
    let ((median, shares), multiply_adds) = match &settings.task {
        Task::Pretrain(config) => (pretrain(config, settings)?, config.multiply_adds(config.visible(0.75))),
        Task::Finetune(vit) => (finetune(vit, settings)?, vit.multiply_adds(vit.patches())),
    };
    let (batch, threads) = (settings.batch_size, settings.threads);
    let memory = match &settings.task {
        Task::Pretrain(config) => Memory::of_pretraining(config, config.visible(0.75), batch, threads),
        Task::Finetune(vit) => Memory::of_finetuning(vit, 10, batch, threads),
    };
    let images_per_s = settings.batch_size as f64 / median;
    let gflops = images_per_s * 6.0 * multiply_adds as f64 / 1e9;
    let isa = smalti_kernels::Isa::best();
    // A multiply-add is two.
    let peak_gflops = 2.0 * smalti_kernels::peak::measure(isa).floats * settings.threads as f64;
    Ok(Report {
        schema_version: 1,
        images_per_s,
        step_ms: median * 1e3,
        gflops,
        peak_rss_mb: peak_rss_mb(),
        buffers_mb: memory.bytes() as f64 / (1 << 20) as f64,
        isa: isa.name(),
        precision: settings.precision,
        threads: settings.threads,
        peak_gflops,
        of_peak: gflops / peak_gflops.max(1e-9),
        shares,
    })
}

/// Standard normal images.
fn images(vit: &VitConfig, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(0, 0, []);
    (0..count * vit.channels * vit.img_size * vit.img_size).map(|_| rng.normal() as f32).collect()
}

fn pretrain(config: &MaeConfig, settings: &Settings) -> Result<(f64, Vec<Share>)> {
    let (model, batch) = (Mae::with_precision(config, settings.precision)?, settings.batch_size);
    let (vit, visible) = (&config.encoder, config.visible(0.75));
    let pixels = images(vit, batch);
    let ids: Vec<u32> = (0..batch as u32).collect();
    let mut params = model.layout().init::<f32>(0);
    let mut adamw = AdamW::new(model.layout(), [0.9, 0.95], 0.05, 1.0);
    let mut lanes = GradLanes::<mae::Activations<f32>>::new(settings.threads, params.len())?;
    let weight = 1.0 / (batch * (vit.patches() - visible)) as f64;
    let objective = PixelLoss { normalise: true, weight };
    let micro = micro_batch(vit.tokens());
    measure(settings, |step| {
        let timer = clock::time(Op::Patches);
        let mask = Mask::draw(0, step, &ids, vit.patches(), visible);
        drop(timer);
        let input = mask.input(&pixels, batch);
        lanes.sum(BatchPlan::new(batch, micro), |images, acts, grads| {
            objective.gradient(&model, &params, input.slice(images.start, images.end), acts, grads)
        })?;
        update(&mut lanes, &mut adamw, &mut params);
        Ok(())
    })
}

fn finetune(vit: &VitConfig, settings: &Settings) -> Result<(f64, Vec<Share>)> {
    let (model, batch, classes) =
        (Classifier::with_precision(vit, 10, Pool::Mean, settings.precision)?, settings.batch_size, 10);
    let pixels = images(vit, batch);
    let mut targets = vec![0.0; batch * classes];
    targets.chunks_exact_mut(classes).enumerate().for_each(|(i, row)| row[i % classes] = 1.0);
    let visible = Mask::none(batch, vit.patches()).visible;
    let mut params = model.layout().init::<f32>(0);
    let mut adamw = AdamW::new(model.layout(), [0.9, 0.999], 0.05, 1.0);
    let mut lanes = GradLanes::<classifier::Activations<f32>>::new(settings.threads, params.len())?;
    let micro = micro_batch(vit.tokens());
    let input = classifier::Input { pixels: &pixels, visible: &visible, drop: None, batch };
    measure(settings, |_| {
        lanes.sum(BatchPlan::new(batch, micro), |images, acts, grads| {
            let targets = &targets[images.start * classes..images.end * classes];
            let objective = CrossEntropy { targets, weight: 1.0 / batch as f64 };
            objective.gradient(&model, &params, input.slice(images.start, images.end), acts, grads)
        })?;
        update(&mut lanes, &mut adamw, &mut params);
        Ok(())
    })
}

fn update<W: Default + Send>(lanes: &mut GradLanes<W>, optimizer: &mut AdamW, params: &mut [f32]) {
    let start = Instant::now();
    lanes.finish(|_, grads| {
        optimizer.update(1e-4, adamw::clip_factor(adamw::norm(grads), None), grads, params)
    });
    // On all threads at once.
    clock::spend(Op::Optimizer, start.elapsed().as_secs_f64() * lanes.pool().current_num_threads() as f64);
}

/// Median seconds of a step, after a warm-up of four, and where the time goes, over as many steps again: looking costs
/// time itself.
fn measure(settings: &Settings, mut step: impl FnMut(u64) -> Result<()>) -> Result<(f64, Vec<Share>)> {
    (0..4).try_for_each(&mut step)?;
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 5 || start.elapsed() < settings.time {
        let before = Instant::now();
        step(4 + times.len() as u64)?;
        times.push(before.elapsed().as_secs_f64());
    }
    clock::switch(true);
    let (steps, start) = (times.len() as u64, Instant::now());
    let looked = (0..steps.min(20)).try_for_each(|i| step(4 + steps + i));
    let (all, spent) = (start.elapsed().as_secs_f64() * settings.threads as f64, clock::spent());
    clock::switch(false);
    looked?;
    let mut shares: Vec<Share> = Op::ALL
        .iter()
        .zip(spent)
        .map(|(op, spent)| Share { operation: op.name(), share: spent / all })
        .collect();
    let rest = 1.0 - shares.iter().map(|share| share.share).sum::<f64>();
    shares.push(Share { operation: "rest", share: rest.max(0.0) });
    times.sort_unstable_by(f64::total_cmp);
    Ok((times[times.len() / 2], shares))
}

/// The process's peak resident memory in MB, where `/proc` has it.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kb| kb / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::DecoderConfig;

    #[test]
    fn both_tasks_are_measured() {
        let vit = VitConfig { img_size: 8, patch_size: 2, channels: 1, dim: 16, depth: 1, heads: 2 };
        let decoder = DecoderConfig { kind: Default::default(), dim: 8, depth: 1, heads: 2 };
        let config = MaeConfig { encoder: vit.clone(), decoder };
        for task in [Task::Pretrain(config), Task::Finetune(vit)] {
            let settings = Settings {
                task,
                batch_size: 4,
                threads: 2,
                time: Duration::ZERO,
                precision: Precision::Bf16,
            };
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
