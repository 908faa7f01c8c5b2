//! The SIMD kernels of Smalti, for the trainer and the runtime.
//!
//! Each operation has a plain version in [`plain`], generic over f32 and f64, which is the reference, and a
//! fast f32 version whose body is written once in safe Rust and compiled for every instruction set by thin
//! wrappers ([`isa`]). [`Real`] joins both: code that is generic over [`Real`] runs the fast kernels in f32 and
//! the reference in f64.
//!
//! Conventions: matrices are row-major slices; a slice shorter than its shape asks for makes the operation stop
//! at the shorter one or panic in a debug build; callers own the shapes. Activation gradients overwrite,
//! parameter gradients and gradients on the residual stream accumulate.

pub mod adamw;
mod aligned;
#[cfg(any(test, target_arch = "x86_64"))]
mod amx;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bf16;
pub mod conv;
pub mod depthwise;
mod dot;
pub mod elementwise;
pub mod epilogue;
mod exponentials;
pub mod gelu;
pub mod isa;
pub mod layer_norm;
pub mod levels;
pub mod linear;
pub mod math;
pub mod matmul;
pub mod max_pool;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod peak;
pub mod plain;
pub mod pool;
pub mod quant_conv;
pub mod quant_depthwise;
pub mod quant_linear;
pub mod quantize;
pub mod real;
pub mod softmax;
#[cfg(target_arch = "x86_64")]
mod sse;
pub mod swiglu;
mod transpose;
pub mod windows;
pub mod winograd;
mod winograd_conv;

pub use aligned::Aligned;
pub use conv::{Conv, ConvSizes, conv};
pub use depthwise::{Depthwise, depthwise};
pub use epilogue::{Activation, Epilogue};
pub use isa::Isa;
pub use levels::LevelMap;
pub use linear::{Linear, linear};
pub use pool::ThreadPool;
pub use quant_conv::{QuantConv, quant_conv};
pub use quant_depthwise::{QuantDepthwise, quant_depthwise};
pub use quant_linear::{QuantLinear, quant_linear};
pub use quantize::{Out, QuantParams};
pub use real::Real;
pub use windows::{MapView, Windows};

#[cfg(test)]
mod test_support;
