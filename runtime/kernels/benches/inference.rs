//! Speed of the inference kernels on this machine, one thread: `cargo bench -p smalti-kernels`.
//!
//! For each instruction set: thousand million multiply-adds a second of linear layers in floats and in bytes, and of
//! attention, and values a second of layer norms, at the sizes of the presets (median of repeated runs).
//! `-- linear`, `-- attention` and `-- norm` run a part.

use std::hint::black_box;
use std::time::{Duration, Instant};

use smalti_kernels::attention::{Heads, ScoreMaps, Shape, attention};
use smalti_kernels::{
    Activation, Epilogue, Isa, Linear, Out, QuantLinear, Quantize, layer_norm, linear, quant_linear,
};

/// Rows, inputs, outputs of linear layers.
const LINEARS: [(usize, usize, usize); 6] =
    [(65, 128, 384), (65, 192, 576), (65, 192, 768), (65, 768, 192), (145, 256, 1024), (197, 768, 192)];
/// Tokens, heads, width of a head.
const ATTENTIONS: [(usize, usize, usize); 3] = [(65, 4, 32), (65, 3, 64), (197, 3, 64)];

/// The median time of a run.
fn time(mut run: impl FnMut()) -> f64 {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_millis(150) || times.len() < 9 {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let names = |isas: &[Isa]| isas.iter().map(|isa| format!("{:>9}", isa.name())).collect::<String>();
    let isas: Vec<Isa> = Isa::available().into_iter().filter(|&isa| isa != Isa::SCALAR).collect();
    println!("{:44}{}", "G multiply-adds/s", names(&isas));
    let row = |name: String, work: usize, run: &dyn Fn(Isa) -> f64| {
        let rates = isas.iter().map(|&isa| format!("{:9.1}", work as f64 / run(isa) / 1e9));
        println!("{name:44}{}", rates.collect::<String>());
    };
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for (rows, k, n) in LINEARS.into_iter().filter(|_| "linear".contains(&only)) {
        let bias = vec![0.1; n];
        let (x, mut y) = (vec![0.5f32; rows * k], vec![0f32; rows * n]);
        let layer = Linear::new([n, k], |j, i| ((i + j) % 7) as f32 * 0.1, &bias).unwrap();
        for activation in [Activation::None, Activation::Gelu] {
            let epilogue = Epilogue { activation, residual: None };
            let name = format!("f32 {rows}x{k}x{n} {activation:?}");
            let cell = std::cell::RefCell::new(&mut y);
            row(name, rows * k * n, &|isa| {
                time(|| linear(isa, &layer, black_box(&x), &epilogue, &mut Out::F32(&mut cell.borrow_mut())))
            });
        }
        let quantize = Quantize::new(0.02, 120).unwrap();
        let (x, mut y) = (vec![99u8; rows * k], vec![0u8; rows * n]);
        for most in [32i8, 63, 127] {
            let at = |j: usize, i: usize| {
                ((i * 31 + j * 17) % 120) as i8 % most.min(63)
                    + if j == 0 && most > 32 { most - 62 } else { 0 }
            };
            let layer = |isa| QuantLinear::new(isa, [n, k], at, &vec![0.01; n], &bias, quantize).unwrap();
            for activation in [Activation::None, Activation::Gelu] {
                let epilogue = Epilogue { activation, residual: None };
                let name = format!("int8 {rows}x{k}x{n} {activation:?}, weights to {most}");
                let cell = std::cell::RefCell::new(&mut y);
                row(name, rows * k * n, &|isa| {
                    let layer = layer(isa);
                    time(|| {
                        let out = &mut Out::U8(&mut cell.borrow_mut(), quantize);
                        quant_linear(&layer, black_box(&x), &epilogue, out);
                    })
                });
            }
        }
    }
    for (rows, n) in [(65, 128), (65, 192), (197, 192)].into_iter().filter(|_| "norm".contains(&only)) {
        let quantize = Quantize::new(0.02, 120).unwrap();
        let (x, scale, shift) = (vec![0.5f32; rows * n], vec![1.1f32; n], vec![0.1f32; n]);
        let y = std::cell::RefCell::new(vec![0u8; rows * n]);
        row(format!("layer norm to int8 {rows}x{n} (G values/s)"), rows * n, &|isa| {
            let mut y = y.borrow_mut();
            time(|| {
                layer_norm::rows(isa, black_box(&x), &scale, &shift, 1e-6, &mut Out::U8(&mut y, quantize))
            })
        });
    }
    for (tokens, heads, width) in ATTENTIONS.into_iter().filter(|_| "attention".contains(&only)) {
        let shape = Shape { heads, tokens, key: width, value: width, scale: 0.125 };
        let qkv = vec![0.1f32; tokens * heads * width * 3];
        let part = |i: usize| Heads { data: &qkv[i * heads * width..], head: width, row: 3 * heads * width };
        let buffers =
            std::cell::RefCell::new((vec![0f32; tokens * heads * width], vec![0f32; shape.scratch()]));
        row(format!("attention {heads}x{tokens}x{width}"), 2 * tokens * tokens * heads * width, &|isa| {
            time(|| {
                let (y, scratch) = &mut *buffers.borrow_mut();
                attention(
                    isa,
                    &shape,
                    black_box([part(0), part(1), part(2)]),
                    ScoreMaps::default(),
                    tokens,
                    scratch,
                    &mut Out::F32(y),
                );
            })
        });
    }
}
