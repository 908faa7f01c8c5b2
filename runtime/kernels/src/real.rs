//! f32 with the fast kernels and f64 with the reference, behind one trait.

use std::fmt::{Debug, Display};
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::adamw::Step;
use crate::bf16::{Buffers, Matrix};
use crate::isa::Isa;
use crate::matmul::Shape;
use crate::winograd::Tiles;
use crate::{adamw, bf16, elementwise, gelu, layer_norm, matmul, plain, softmax, swiglu, winograd};

/// A floating-point type that training can run in. The operations are those of the modules of the same names.
#[allow(missing_docs)]
pub trait Real:
    Copy
    + Default
    + Debug
    + Display
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    /// The nearest value of this type.
    fn of(x: f64) -> Self;
    /// The value in f64.
    fn wide(self) -> f64;
    fn sqrt(self) -> Self {
        Self::of(self.wide().sqrt())
    }
    fn exp(self) -> Self {
        Self::of(self.wide().exp())
    }
    fn ln(self) -> Self {
        Self::of(self.wide().ln())
    }
    fn erf(self) -> Self {
        Self::of(libm::erf(self.wide()))
    }
    fn gelu_scalar(x: Self) -> Self {
        let half = Self::of(0.5);
        x * (half + half * (x * Self::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
    }

    fn gelu(x: &[Self], y: &mut [Self]) {
        plain::gelu(x, y);
    }
    fn gelu_backward(x: &[Self], dy: &mut [Self]) {
        plain::gelu_backward(x, dy);
    }
    fn swiglu(x: &[Self], width: usize, y: &mut [Self]) {
        plain::swiglu(x, width, y);
    }
    fn swiglu_backward(x: &[Self], width: usize, dy: &[Self], dx: &mut [Self]) {
        plain::swiglu_backward(x, width, dy, dx);
    }
    fn softmax(x: &mut [Self], cols: usize, stride: usize) {
        plain::softmax(x, cols, stride);
    }
    fn softmax_backward(p: &[Self], dp: &mut [Self], stride: usize) {
        plain::softmax_backward(p, dp, stride);
    }
    fn layer_norm(
        x: &[Self],
        scale: &[Self],
        shift: &[Self],
        eps: Self,
        y: &mut [Self],
        stats: &mut [[Self; 2]],
    ) {
        plain::layer_norm(x, scale, shift, eps, y, stats);
    }
    fn layer_norm_backward(
        x: &[Self],
        scale: &[Self],
        stats: &[[Self; 2]],
        dy: &[Self],
        dx: &mut [Self],
        dscale: &mut [Self],
        dshift: &mut [Self],
    ) {
        plain::layer_norm_backward(x, scale, stats, dy, dx, dscale, dshift);
    }
    fn axpy(a: Self, x: &[Self], y: &mut [Self]) {
        plain::axpy(a, x, y);
    }
    fn column_sums(x: &[Self], sums: &mut [Self]) {
        plain::column_sums(x, sums);
    }
    fn add_rows(x: &[Self], row: &[Self], y: &mut [Self]) {
        plain::add_rows(x, row, y);
    }
    fn sum_squares(x: &[Self]) -> f64 {
        x.iter().map(|x| x.wide() * x.wide()).sum()
    }
    fn adamw(s: Step<Self>, gradient: &[Self], weight: &mut [Self], m: &mut [Self], v: &mut [Self]) {
        plain::adamw(s, gradient, weight, m, v);
    }
    fn product(s: Shape, alpha: Self, a: &[Self], b: &[Self], c: &mut [Self]) {
        plain::product(s, alpha, a, b, c);
    }
    fn rounded_product(
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        accumulate: bool,
        c: &mut [Self],
        _buffers: &mut Buffers,
    ) {
        plain::rounded_product(a, b, accumulate, c);
    }
    fn winograd_inputs(t: Tiles, x: &[Self], planes: &mut [Self]) {
        plain::winograd_inputs(t, x, planes);
    }
    fn winograd_gradients(t: Tiles, dy: &[Self], planes: &mut [Self]) {
        plain::winograd_gradients(t, dy, planes);
    }
    fn winograd_outputs(t: Tiles, planes: &[Self], y: &mut [Self]) {
        plain::winograd_outputs(t, planes, y);
    }
    fn transpose(x: &[Self], x_row: usize, rows: usize, cols: usize, y: &mut [Self], y_row: usize) {
        plain::transpose(x, x_row, rows, cols, y, y_row);
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    fn of(x: f64) -> f64 {
        x
    }
    fn wide(self) -> f64 {
        self
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn gelu(x: &[f32], y: &mut [f32]) {
        gelu::forward(Isa::best(), x, y);
    }
    fn gelu_backward(x: &[f32], dy: &mut [f32]) {
        gelu::backward(Isa::best(), x, dy);
    }
    fn swiglu(x: &[f32], width: usize, y: &mut [f32]) {
        swiglu::forward(Isa::best(), x, width, y);
    }
    fn swiglu_backward(x: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) {
        swiglu::backward(Isa::best(), x, width, dy, dx);
    }
    fn softmax(x: &mut [f32], cols: usize, stride: usize) {
        softmax::forward(Isa::best(), x, cols, stride);
    }
    fn softmax_backward(p: &[f32], dp: &mut [f32], stride: usize) {
        softmax::backward(Isa::best(), p, dp, stride);
    }
    fn layer_norm(x: &[f32], scale: &[f32], shift: &[f32], eps: f32, y: &mut [f32], stats: &mut [[f32; 2]]) {
        layer_norm::forward(Isa::best(), x, scale, shift, eps, y, stats);
    }
    fn layer_norm_backward(
        x: &[f32],
        scale: &[f32],
        stats: &[[f32; 2]],
        dy: &[f32],
        dx: &mut [f32],
        dscale: &mut [f32],
        dshift: &mut [f32],
    ) {
        layer_norm::backward(Isa::best(), x, scale, stats, dy, dx, dscale, dshift);
    }
    fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
        elementwise::axpy(Isa::best(), a, x, y);
    }
    fn column_sums(x: &[f32], sums: &mut [f32]) {
        elementwise::column_sums(Isa::best(), x, sums);
    }
    fn add_rows(x: &[f32], row: &[f32], y: &mut [f32]) {
        elementwise::add_rows(Isa::best(), x, row, y);
    }
    fn sum_squares(x: &[f32]) -> f64 {
        elementwise::sum_squares(Isa::best(), x)
    }
    fn adamw(s: Step<f32>, gradient: &[f32], weight: &mut [f32], m: &mut [f32], v: &mut [f32]) {
        adamw::step(Isa::best(), s, gradient, weight, m, v);
    }
    fn product(s: Shape, alpha: f32, a: &[f32], b: &[f32], c: &mut [f32]) {
        matmul::product(Isa::best(), s, alpha, a, b, c);
    }
    fn rounded_product(a: Matrix<'_>, b: Matrix<'_>, accumulate: bool, c: &mut [f32], buffers: &mut Buffers) {
        bf16::product(Isa::best(), a, b, accumulate, c, buffers);
    }
    fn winograd_inputs(t: Tiles, x: &[f32], planes: &mut [f32]) {
        winograd::inputs(Isa::best(), t, x, planes);
    }
    fn winograd_gradients(t: Tiles, dy: &[f32], planes: &mut [f32]) {
        winograd::gradients(Isa::best(), t, dy, planes);
    }
    fn winograd_outputs(t: Tiles, planes: &[f32], y: &mut [f32]) {
        winograd::outputs(Isa::best(), t, planes, y);
    }
    fn transpose(x: &[f32], x_row: usize, rows: usize, cols: usize, y: &mut [f32], y_row: usize) {
        matmul::transpose(Isa::best(), x, x_row, rows, cols, y, y_row);
    }
}
