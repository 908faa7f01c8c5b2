//! Speed of the inference kernels on this machine, one thread: `cargo bench -p smalti-kernels`.
//!
//! For each instruction set: thousand million multiply-adds a second of linear layers in floats and in bytes, and of
//! attention, and values a second of layer norms, at the sizes of the presets (the fastest of repeated runs).
//! `-- linear`, `-- conv`, `-- depthwise`, `-- attention` and `-- norm` run a part. A convolution stands next to the
//! linear layer of as many rows, inputs and outputs, and its rate in percent of that layer's in the last columns.

use std::hint::black_box;
use std::time::{Duration, Instant};

use smalti_kernels::attention::{Heads, ScoreMaps, Shape, attention};
use smalti_kernels::conv::ConvScratch;
use smalti_kernels::quant_linear::row_stride;
use smalti_kernels::{
    Activation, Conv, ConvSizes, Depthwise, Epilogue, Isa, Linear, MapView, Out, QuantConv, QuantDepthwise,
    QuantLinear, QuantParams, Windows, conv, depthwise, layer_norm, linear, quant_conv, quant_depthwise,
    quant_linear,
};

/// Rows, inputs, outputs of linear layers.
const LINEARS: [(usize, usize, usize); 6] =
    [(65, 128, 384), (65, 192, 576), (65, 192, 768), (65, 768, 192), (145, 256, 1024), (197, 768, 192)];
/// Tokens, heads, width of a head.
const ATTENTIONS: [(usize, usize, usize); 3] = [(65, 4, 32), (65, 3, 64), (197, 3, 64)];

/// Side of the map that is written, stride, side of the windows, channels in, channels out of convolutions: those of
/// stages in front of transformer blocks, and of ResNets.
const CONVS: [[usize; 5]; 10] = [
    [48, 2, 3, 3, 24],
    [24, 2, 3, 24, 48],
    [24, 1, 3, 48, 48],
    [12, 1, 3, 96, 96],
    [6, 1, 3, 128, 128],
    [56, 1, 3, 64, 64],
    [14, 1, 3, 256, 256],
    [7, 1, 3, 512, 512],
    [56, 1, 1, 24, 144],
    [14, 1, 1, 480, 112],
];
/// Side of the map that is written, stride, side of the windows, channels of depthwise convolutions.
const DEPTHWISE: [[usize; 4]; 5] =
    [[112, 1, 3, 32], [56, 2, 3, 96], [28, 1, 5, 240], [14, 1, 5, 480], [7, 1, 3, 1152]];

fn windows([side, stride, kernel]: [usize; 3]) -> Windows {
    Windows {
        input: [side * stride; 2],
        output: [side; 2],
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        padding: [kernel / 2; 2],
    }
}

/// The time of the fastest run: others may have had to share the core.
fn time(mut run: impl FnMut()) -> f64 {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_millis(150) || times.len() < 9 {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.into_iter().fold(f64::INFINITY, f64::min)
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
            let epilogue = Epilogue { activation, ..Epilogue::default() };
            let name = format!("f32 {rows}x{k}x{n} {activation:?}");
            let cell = std::cell::RefCell::new(&mut y);
            row(name, rows * k * n, &|isa| {
                time(|| linear(isa, &layer, black_box(&x), &epilogue, &mut Out::F32(&mut cell.borrow_mut())))
            });
        }
        let quantize = QuantParams::new(0.02, 120).unwrap();
        let (x, mut y) = (vec![99u8; rows * k], vec![0u8; rows * n]);
        for most in [32i8, 63, 127] {
            let at = |j: usize, i: usize| {
                ((i * 31 + j * 17) % 120) as i8 % most.min(63)
                    + if j == 0 && most > 32 { most - 62 } else { 0 }
            };
            let layer = |isa| QuantLinear::new(isa, [n, k], at, &vec![0.01; n], &bias, quantize).unwrap();
            for activation in [Activation::None, Activation::Gelu] {
                let epilogue = Epilogue { activation, ..Epilogue::default() };
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
    let beside = |name: String, work: usize, run: &dyn Fn(Isa) -> f64, other: &dyn Fn(Isa) -> f64| {
        let times: Vec<[f64; 2]> = isas.iter().map(|&isa| [run(isa), other(isa)]).collect();
        let rates =
            times.iter().map(|[time, _]| format!("{:9.1}", work as f64 / time / 1e9)).collect::<String>();
        let parts =
            times.iter().map(|[time, other]| format!("{:8.0}%", other / time * 100.0)).collect::<String>();
        println!("{name:44}{rates}{parts}");
    };
    for [side, stride, kernel, channels, n] in CONVS.into_iter().filter(|_| "conv".contains(&only)) {
        let windows = windows([side, stride, kernel]);
        let sizes = ConvSizes { groups: 1, channels, outputs: n };
        let (rows, k) = (windows.count(), windows.taps() * channels);
        let (bias, epilogue) =
            (vec![0.1; n], Epilogue { activation: Activation::RELU, ..Epilogue::default() });
        let name = |kind| format!("{kind} {kernel}x{kernel}/{stride} {channels} to {n}, {side}x{side}");
        let weight = |i: usize, j: usize| ((i * 31 + j * 17) % 60) as i8 - 30;
        let x = vec![0.5f32; rows.max(windows.input[0] * windows.input[1]) * k.max(channels)];
        let y = std::cell::RefCell::new(vec![0f32; rows * n]);
        let layer =
            Conv::new(windows, sizes, |j, tap, c| f32::from(weight(j, tap + c)) * 0.01, &bias).unwrap();
        let scratch = std::cell::RefCell::new(ConvScratch::new(Conv::scratch(&windows, &sizes)));
        let run = |isa| {
            time(|| {
                let (mut y, map) =
                    (y.borrow_mut(), MapView::of_rows(black_box(&x), windows.input[1], channels));
                conv(isa, &layer, &map, 0..rows, &mut scratch.borrow_mut(), &epilogue, &mut Out::F32(&mut y));
            })
        };
        let whole = Linear::new([n, k], |j, i| f32::from(weight(j, i)) * 0.01, &bias).unwrap();
        let other = |isa| {
            time(|| {
                linear(isa, &whole, black_box(&x[..rows * k]), &epilogue, &mut Out::F32(&mut y.borrow_mut()))
            })
        };
        beside(name("f32"), rows * k * n, &run, &other);
        let quantize = QuantParams::new(0.02, 120).unwrap();
        let x = vec![99u8; rows.max(windows.input[0] * windows.input[1]) * row_stride(k)];
        let y = std::cell::RefCell::new(vec![0u8; rows * row_stride(n)]);
        let scratch = std::cell::RefCell::new(ConvScratch::new(QuantConv::scratch(&windows, &sizes)));
        let scales = vec![0.01; n];
        let run = |isa| {
            let layer = QuantConv::new(
                isa,
                windows,
                sizes,
                |j, tap, c| weight(j, tap + c),
                (&scales, &bias),
                quantize,
            );
            let layer = layer.unwrap();
            time(|| {
                let mut y = y.borrow_mut();
                let out = &mut Out::U8(&mut y, quantize);
                quant_conv(isa, &layer, black_box(&x), 0..rows, &mut scratch.borrow_mut(), &epilogue, out);
            })
        };
        let other = |isa| {
            let layer = QuantLinear::new(isa, [n, k], weight, &scales, &bias, quantize).unwrap();
            time(|| {
                let out = &mut Out::U8(&mut y.borrow_mut(), quantize);
                quant_linear(&layer, black_box(&x[..rows * row_stride(k)]), &epilogue, out);
            })
        };
        beside(name("int8"), rows * k * n, &run, &other);
    }
    for [side, stride, kernel, channels] in DEPTHWISE.into_iter().filter(|_| "depthwise".contains(&only)) {
        let windows = windows([side, stride, kernel]);
        let (bias, epilogue) =
            (vec![0.1; channels], Epilogue { activation: Activation::RELU6, ..Epilogue::default() });
        let (rows, pixels) = (windows.count(), windows.input[0] * windows.input[1]);
        let work = rows * windows.taps() * channels;
        let name = |kind| format!("{kind} depthwise {kernel}x{kernel}/{stride} {channels}, {side}x{side}");
        let layer = Depthwise::new(windows, channels, |c, tap| (c + tap) as f32 * 1e-3, &bias).unwrap();
        let (x, y) = (vec![0.5f32; pixels * channels], std::cell::RefCell::new(vec![0f32; rows * channels]));
        row(name("f32"), work, &|isa| {
            time(|| {
                depthwise(isa, &layer, black_box(&x), 0..rows, &epilogue, &mut Out::F32(&mut y.borrow_mut()))
            })
        });
        let quantize = QuantParams::new(0.02, 120).unwrap();
        let scales = (&vec![0.01; channels][..], &bias[..]);
        let layer =
            QuantDepthwise::new(windows, channels, |c, tap| (c + tap) as i8 % 50, scales, quantize).unwrap();
        let (x, y) = (
            vec![99u8; pixels * row_stride(channels)],
            std::cell::RefCell::new(vec![0u8; rows * row_stride(channels)]),
        );
        row(name("int8"), work, &|isa| {
            time(|| {
                let out = &mut Out::U8(&mut y.borrow_mut(), quantize);
                quant_depthwise(isa, &layer, black_box(&x), 0..rows, &epilogue, out);
            })
        });
    }
    for (rows, n) in [(65, 128), (65, 192), (197, 192)].into_iter().filter(|_| "norm".contains(&only)) {
        let quantize = QuantParams::new(0.02, 120).unwrap();
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
