//! Speed of training on this machine: `cargo bench -p smalti-trainer`.
//!
//! Operations one by one, forward and backward, at the sizes of a micro-batch, on one thread; then loaders, on the thread
//! that asks. `-- linear`, `-- attention`, `-- norm`, `-- gelu`, `-- optimizer` and `-- loader` run one of them. `smalti
//! bench` measures whole steps.

use std::hint::black_box;
use std::time::{Duration, Instant};

use smalti_kernels::Real;
use smalti_models::image::Image;
use smalti_models::names::{self, Role, TensorSpec};
use smalti_models::preprocess::{FitMode, Preprocess};
use smalti_models::presets::Preset;
use smalti_models::resize::Interpolation;
use smalti_trainer::data::augment::Policy;
use smalti_trainer::data::{Augment, CropKind, Dataset, Loader, LoaderSettings};
use smalti_trainer::model::ops::attention::{Attention, Scratch, Tokens};
use smalti_trainer::model::ops::layer_norm::LayerNorm;
use smalti_trainer::model::ops::linear::Linear;
use smalti_trainer::model::params::Layout;
use smalti_trainer::model::precision::Precision;
use smalti_trainer::train::optim::{AdamW, Muon, Rates};
use smalti_trainer::train::step::micro_batch;

/// The median time of a run.
fn time(mut run: impl FnMut()) -> f64 {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_millis(200) || times.len() < 9 {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// One line: microseconds, and arithmetic or values a second.
fn row(name: &str, work: f64, unit: &str, run: impl FnMut()) {
    let seconds = time(run);
    println!("{name:44}{:11.1} µs{:9.2} {unit}", seconds * 1e6, work / seconds / 1e9);
}

fn layout(tensors: &[(&str, &[usize])]) -> Layout {
    let spec = |&(name, shape): &(&str, &[usize])| TensorSpec {
        name: name.into(),
        shape: shape.to_vec(),
        role: Role::Weight,
        layer: 0,
    };
    Layout::new(tensors.iter().map(spec).collect(), Precision::F32)
}

fn linear() {
    for (rows, k, n) in
        [(1040, 128, 384), (1040, 128, 512), (1040, 512, 128), (1040, 192, 768), (272, 128, 384)]
    {
        let layout = layout(&[("fc.weight", &[n, k]), ("fc.bias", &[n])]);
        let Ok(linear) = Linear::find(&layout, "fc") else { continue };
        let (params, mut grads) = (layout.init::<f32>(0), vec![0.0f32; layout.len()]);
        let (mut x, mut y) = (vec![0.5f32; rows * k], vec![0.5f32; rows * n]);
        let (name, work) = (format!("linear {rows}x{k}x{n}"), (2 * rows * k * n) as f64);
        row(&format!("{name}, forward"), work, "Gflop/s", || linear.forward(&params, black_box(&x), &mut y));
        row(&format!("{name}, to the weights"), work, "Gflop/s", || {
            linear.backward_params(&x, &y, &mut grads)
        });
        row(&format!("{name}, to the input"), work, "Gflop/s", || linear.backward_input(&params, &y, &mut x));
    }
}

/// `work` is the forward pass's arithmetic; `len` the values of queries, keys and values.
fn attention(name: &str, attention: Attention, batch: usize, tokens: Tokens, len: usize, work: usize) {
    let (qkv, mut dqkv) = (vec![0.1f32; len], vec![0.0f32; len]);
    let mut probs = vec![0.0f32; attention.probabilities(batch, tokens)];
    let (mut out, mut scratch) = (vec![0.0f32; len], Scratch::default());
    row(&format!("{name}, forward"), work as f64, "Gflop/s", || {
        attention.forward(tokens, black_box(&qkv), &mut probs, &mut out, &mut scratch);
    });
    row(&format!("{name}, backward"), 2.0 * work as f64, "Gflop/s", || {
        attention.backward(tokens, &qkv, &probs, black_box(&out), &mut dqkv, &mut scratch);
    });
}

fn attentions() {
    for (tokens, dim, heads) in [(17, 128, 4), (65, 128, 4), (65, 192, 3), (197, 192, 3)] {
        let batch = micro_batch(tokens);
        let (len, work) = (batch * tokens * 3 * dim, 4 * batch * tokens * tokens * dim);
        let name = format!("attention {batch}x{tokens}x{dim}, {heads} heads");
        attention(&name, Attention { dim, heads }, batch, Tokens::own(dim, tokens, 0..tokens), len, work);
    }
    let (batch, queries, keys, dim) = (16, 48, 17, 64);
    let (len, work) = (batch * (queries + 2 * keys) * dim, 4 * batch * queries * keys * dim);
    let name = format!("cross-attention {batch}x({queries} to {keys})x{dim}");
    let tokens = Tokens::cross(dim, batch, queries, keys);
    attention(&name, Attention { dim, heads: 2 }, batch, tokens, len, work);
}

fn norms() {
    let (rows, dim) = (1040, 128);
    let layout = layout(&[("norm.weight", &[dim]), ("norm.bias", &[dim])]);
    let Ok(norm) = LayerNorm::find(&layout, "norm") else { return };
    let (params, mut grads) = (layout.init::<f32>(0), vec![0.0f32; layout.len()]);
    let x: Vec<f32> = (0..rows * dim).map(|i| (i % 7) as f32).collect();
    let (mut y, mut dx, mut stats) = (x.clone(), x.clone(), vec![[0.0f32; 2]; rows]);
    row("layer norm 1040x128, forward", x.len() as f64, "G values/s", || {
        norm.forward(&params, black_box(&x), &mut y, &mut stats);
    });
    row("layer norm 1040x128, backward", x.len() as f64, "G values/s", || {
        norm.backward(&params, &x, &stats, black_box(&y), &mut dx, &mut grads);
    });
}

fn gelu() {
    let x: Vec<f32> = (0..1040 * 512).map(|i| (i % 13) as f32 * 0.5 - 3.0).collect();
    let mut y = x.clone();
    row("GELU 1040x512, forward", x.len() as f64, "G values/s", || f32::gelu(black_box(&x), &mut y));
    row("GELU 1040x512, backward", x.len() as f64, "G values/s", || {
        f32::gelu_backward(&x, black_box(&mut y))
    });
}

fn optimizers() {
    let layout = Layout::new(names::mae(&Preset::Nano.mae(32, 4, 3)), Precision::F32);
    let (mut params, grads) = (layout.init::<f32>(0), vec![1e-3f32; layout.len()]);
    let (mut adamw, muon) = (
        AdamW::new(&layout, [0.9, 0.95], 0.05, Rates::default()),
        Muon::new(&layout, 0.05, Rates::default()),
    );
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).build() else { return };
    let work = layout.len() as f64;
    row("AdamW, nano", work, "G values/s", || pool.install(|| adamw.update(1e-4, 1.0, &grads, &mut params)));
    let mut m = params.clone();
    row("Muon, the blocks of nano", work, "G values/s", || {
        pool.install(|| muon.update(1e-4, 1.0, &grads, &mut params, &mut m));
    });
}

/// Images a second that one thread of a loader makes out of decoded images.
fn loader(name: &str, side: usize, img_size: usize, augment: Augment) -> smalti_trainer::Result<()> {
    let pixels = |i: usize| (0..side * side * 3).map(|p| (p * (i + 3) % 251) as u8).collect();
    let image = |i: usize| Ok((Image::new(side, side, 3, pixels(i))?, None));
    let images = (0..512).map(image).collect::<smalti_trainer::Result<_>>()?;
    let (mean, std) = (vec![0.5; 3], vec![0.25; 3]);
    let (fit, interpolation) = (FitMode::Crop, Interpolation::Bilinear);
    let input = Preprocess { img_size, channels: 3, fit, resize: None, interpolation, mean, std };
    let settings = LoaderSettings { threads: 0, ..LoaderSettings::training(64, input, augment, 0) };
    let mut batches = Loader::new(Dataset::from_images(vec![], images)?, settings)?.stream(0);
    let seconds = time(|| _ = black_box(batches.next()));
    println!("{:44}{:14.0}", format!("{img_size} pixels, {name}"), 64.0 / seconds);
    Ok(())
}

fn loaders() {
    println!("\n{:44}{:>14}", "loaders, one thread", "images/s");
    let padded = Augment { crop: CropKind::Padded(4), flip: true, ..Augment::default() };
    let resized = Augment { crop: CropKind::random_resized(0.2), ..padded };
    let sizes = [("padded crop, flip", padded, 32, 32), ("resized crop, flip", resized, 256, 224)];
    let all = sizes.into_iter().flat_map(|(crop, plain, side, size)| {
        let with = |name: &str, augment| (format!("{crop}{name}"), side, size, augment);
        [
            with("", plain),
            with(", jitter", Augment { jitter: 0.2, ..plain }),
            with(", trivial", Augment { policy: Policy::Trivial, ..plain }),
            with(", rand:2,9", Augment { policy: Policy::RAND, ..plain }),
        ]
    });
    for (name, side, size, augment) in all {
        if let Err(e) = loader(&name, side, size, augment) {
            println!("{name}: {e}");
        }
    }
}

fn main() {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let parts: [(&str, fn()); 6] = [
        ("linear", linear),
        ("attention", attentions),
        ("norm", norms),
        ("gelu", gelu),
        ("optimizer", optimizers),
        ("loader", loaders),
    ];
    parts.iter().filter(|(name, _)| name.contains(&only)).for_each(|(_, run)| run());
}
