//! What follows a step moves into it: biases, scales, activations, residuals, quantization.

use smalti_kernels::Activation;

use super::lower::Lowered;
use super::step::{Buffer, Pointwise, Span, Step, Target};

/// Merges steps into the linear layers, norms and attentions before them, as long as no one else reads what lies
/// between.
pub(super) fn merge(lowered: &mut Lowered) {
    let mut steps: Vec<Option<Step>> = std::mem::take(&mut lowered.steps).into_iter().map(Some).collect();
    for i in 0..steps.len() {
        let Some(step) = steps[i].take() else { continue };
        let followed = Followed { steps: &mut steps, lowered, at: i };
        let left = followed.absorb(step);
        steps[i] = left;
    }
    lowered.steps = steps.into_iter().flatten().collect();
}

/// The steps around one that has been taken out.
struct Followed<'a> {
    steps: &'a mut Vec<Option<Step>>,
    lowered: &'a Lowered,
    at: usize,
}

impl Followed<'_> {
    /// Whether a span is all of its buffer.
    fn is_whole(&self, span: &Span) -> bool {
        let [rows, cols] = self.lowered.buffers[span.buffer];
        span.offset == 0 && (span.rows, span.cols) == (rows, cols)
    }

    /// The step that alone writes a buffer which no one reads but the step taken out.
    fn maker(&self, buffer: Buffer) -> Option<usize> {
        let kept = || self.steps.iter().flatten();
        let read = kept().flat_map(Step::reads).any(|read| read == buffer)
            || self.lowered.outputs.iter().any(|output| output.buffer == buffer)
            || self.lowered.taps.iter().any(|tap| tap.buffer() == Some(buffer));
        let mut makers = self
            .steps
            .iter()
            .enumerate()
            .filter_map(|(i, step)| (step.as_ref()?.writes() == buffer).then_some(i));
        let maker = makers.next().filter(|&i| i < self.at)?;
        (!read && makers.next().is_none()).then_some(maker)
    }

    /// Puts the step into an earlier one, or gives it back.
    fn absorb(mut self, step: Step) -> Option<Step> {
        let done = match &step {
            Step::AddConstant { a, values, out } if self.is_whole(a) && values.len() == a.cols => {
                self.bias(a.buffer, values, *out)
            }
            Step::MulConstant { a, values, out } if self.is_whole(a) && values.len() == a.cols => {
                self.scale(a.buffer, values, *out)
            }
            Step::Affine { a, scale, shift, out } if self.is_whole(a) => {
                self.affine(a.buffer, scale, shift, *out)
            }
            Step::Pointwise { x, function: Pointwise::Activation(f), out } => self.activation(*x, *f, *out),
            Step::Add { a, b, out } if self.is_whole(a) && self.is_whole(b) => {
                self.residual(b.buffer, a.buffer, *out) || self.residual(a.buffer, b.buffer, *out)
            }
            Step::Quantize { x, quantize, out } if self.is_whole(x) => {
                let target = Target { buffer: *out, quantize: Some(*quantize) };
                self.quantize(x.buffer, target)
            }
            _ => false,
        };
        (!done).then_some(step)
    }

    /// Bias and scale of the linear layer that makes a buffer and has nothing after its product yet; its result goes to
    /// another buffer.
    fn layer(&mut self, buffer: Buffer, to: Buffer) -> Option<(&mut [f64], &mut Option<Vec<f64>>)> {
        let maker = self.maker(buffer)?;
        let Some(Step::Linear { bias, scale, activation: Activation::None, residual: None, out, .. }) =
            &mut self.steps[maker]
        else {
            return None;
        };
        out.buffer = to;
        Some((bias, scale))
    }

    /// Scale and shift of the layer norm that makes a buffer; its result goes to another buffer.
    fn norm(&mut self, buffer: Buffer, to: Buffer) -> Option<[&mut [f32]; 2]> {
        let maker = self.maker(buffer)?;
        let Some(Step::LayerNorm { scale, shift, out, .. }) = &mut self.steps[maker] else { return None };
        out.buffer = to;
        Some([scale, shift])
    }

    fn bias(&mut self, buffer: Buffer, values: &[f32], to: Buffer) -> bool {
        if let Some([_, shift]) = self.norm(buffer, to) {
            shift.iter_mut().zip(values).for_each(|(shift, value)| *shift += value);
            return true;
        }
        let Some((bias, _)) = self.layer(buffer, to) else { return false };
        bias.iter_mut().zip(values).for_each(|(bias, value)| *bias += f64::from(*value));
        true
    }

    fn scale(&mut self, buffer: Buffer, values: &[f32], to: Buffer) -> bool {
        if let Some([scale, shift]) = self.norm(buffer, to) {
            for ((scale, shift), value) in scale.iter_mut().zip(shift).zip(values) {
                *scale *= value;
                *shift *= value;
            }
            return true;
        }
        let Some((bias, scale)) = self.layer(buffer, to) else { return false };
        let scale = scale.get_or_insert_with(|| vec![1.0; bias.len()]);
        for ((bias, scale), value) in bias.iter_mut().zip(scale).zip(values) {
            *bias *= f64::from(*value);
            *scale *= f64::from(*value);
        }
        true
    }

    /// A batch norm.
    fn affine(&mut self, buffer: Buffer, factors: &[f64], shifts: &[f64], to: Buffer) -> bool {
        let Some((bias, scale)) = self.layer(buffer, to) else { return false };
        let scale = scale.get_or_insert_with(|| vec![1.0; bias.len()]);
        for ((bias, scale), (factor, shift)) in bias.iter_mut().zip(scale).zip(factors.iter().zip(shifts)) {
            *bias = *bias * factor + shift;
            *scale *= factor;
        }
        true
    }

    fn activation(&mut self, buffer: Buffer, function: Activation, to: Buffer) -> bool {
        let Some(maker) = self.maker(buffer) else { return false };
        let Some(Step::Linear { activation, residual, activate_sum, out, .. }) = &mut self.steps[maker]
        else {
            return false;
        };
        if *activation != Activation::None {
            return false;
        }
        *activation = function;
        *activate_sum = residual.is_some();
        out.buffer = to;
        true
    }

    fn residual(&mut self, buffer: Buffer, other: Buffer, to: Buffer) -> bool {
        let Some(maker) = self.maker(buffer) else { return false };
        // The other side must be there before.
        if self.steps[maker..].iter().flatten().any(|step| step.writes() == other) {
            return false;
        }
        let Some(Step::Linear { residual: residual @ None, out, .. }) = &mut self.steps[maker] else {
            return false;
        };
        *residual = Some(other);
        out.buffer = to;
        true
    }

    fn quantize(&mut self, buffer: Buffer, target: Target) -> bool {
        let Some(maker) = self.maker(buffer) else { return false };
        let Some(
            Step::Patches { out, .. }
            | Step::Linear { out, .. }
            | Step::LayerNorm { out, .. }
            | Step::MaxPool { out, .. }
            | Step::Attention { out, .. },
        ) = &mut self.steps[maker]
        else {
            return false;
        };
        *out = target;
        true
    }
}

#[cfg(test)]
mod tests {
    use smalti_kernels::QuantParams;

    use super::super::constant::Constant;
    use super::super::step::Weight;
    use super::super::tap::{Source, Tap};
    use super::super::view::View;
    use super::*;

    fn span(buffer: Buffer) -> Span {
        Span { buffer, offset: 0, rows: 2, cols: 2 }
    }

    /// A layer without bias.
    fn layer(x: Buffer, out: Buffer) -> Step {
        Step::Linear {
            name: format!("layer{out}"),
            x: span(x),
            conv: None,
            weight: Box::new(Weight::Floats(Constant::owned(vec![1.0, 2.0, 3.0, 4.0], &[2, 2]))),
            bias: vec![0.0, 1.0],
            scale: None,
            activation: Activation::None,
            residual: None,
            activate_sum: false,
            out: Target::floats(out),
        }
    }

    fn added(a: Buffer, values: [f32; 2], out: Buffer) -> Step {
        Step::AddConstant { a: span(a), values: values.to_vec(), out }
    }

    fn scaled(a: Buffer, values: [f32; 2], out: Buffer) -> Step {
        Step::MulConstant { a: span(a), values: values.to_vec(), out }
    }

    fn gelu(x: Buffer, out: Buffer) -> Step {
        Step::Pointwise { x, function: Pointwise::Activation(Activation::Gelu), out }
    }

    fn sum(a: Buffer, b: Buffer, out: Buffer) -> Step {
        Step::Add { a: span(a), b: span(b), out }
    }

    /// Merges steps on buffers of two rows of two; those named are outputs.
    fn merged(steps: Vec<Step>, outputs: &[Buffer]) -> Vec<Step> {
        let outputs = outputs.iter().map(|&buffer| span(buffer)).collect();
        let mut lowered = Lowered { steps, buffers: vec![[2, 2]; 10], outputs, taps: vec![] };
        merge(&mut lowered);
        lowered.steps
    }

    #[test]
    fn rows_of_constants_become_bias_and_scale() {
        let steps = merged(vec![layer(1, 2), added(2, [5.0, 6.0], 3), scaled(3, [2.0, 3.0], 4)], &[4]);
        let [Step::Linear { bias, scale, out, .. }] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((&bias[..], scale.as_deref()), (&[10.0, 21.0][..], Some(&[2.0, 3.0][..])));
        assert_eq!(out.buffer, 4);
    }

    #[test]
    fn a_norm_takes_rows_of_constants_in() {
        let (scale, shift, out) = (vec![2.0; 2], vec![1.0, 0.0], Target::floats(2));
        let norm = Step::LayerNorm { x: span(1), is_centred: false, scale, shift, eps: 1e-6, out };
        let steps = merged(vec![norm, scaled(2, [3.0, 5.0], 3), added(3, [7.0, 8.0], 4)], &[4]);
        let [Step::LayerNorm { scale, shift, is_centred: false, out, .. }] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!((&scale[..], &shift[..], out.buffer), (&[6.0, 10.0][..], &[10.0, 8.0][..], 4));
    }

    #[test]
    fn an_activation_comes_before_a_residual_or_after_it_and_never_twice() {
        let steps = merged(vec![layer(1, 2), gelu(2, 3), sum(3, 1, 4)], &[4]);
        let of = |steps: &[Step]| match steps {
            [Step::Linear { activation, residual, activate_sum, out, .. }] => {
                Some((*activation, *residual, *activate_sum, out.buffer))
            }
            _ => None,
        };
        assert_eq!(of(&steps), Some((Activation::Gelu, Some(1), false, 4)));
        let steps = merged(vec![layer(1, 2), sum(2, 1, 3), gelu(3, 4)], &[4]);
        assert_eq!(of(&steps), Some((Activation::Gelu, Some(1), true, 4)));
        // A second activation, a bias behind an activation: steps of their own.
        assert_eq!(merged(vec![layer(1, 2), gelu(2, 3), gelu(3, 4)], &[4]).len(), 2);
        assert_eq!(merged(vec![layer(1, 2), gelu(2, 3), added(3, [1.0; 2], 4)], &[4]).len(), 2);
    }

    #[test]
    fn a_batch_norm_goes_into_scale_and_bias() {
        let norm = |a, out| Step::Affine { a: span(a), scale: vec![0.1, 3.0], shift: vec![-1.0, 7.0], out };
        let steps = merged(vec![layer(1, 2), norm(2, 3), gelu(3, 4)], &[4]);
        let [Step::Linear { bias, scale, .. }] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((&bias[..], scale.as_deref()), (&[-1.0, 10.0][..], Some(&[0.1, 3.0][..])));
        assert_eq!(merged(vec![layer(1, 2), gelu(2, 3), norm(3, 4)], &[4]).len(), 2);
    }

    #[test]
    fn what_someone_else_reads_stays() {
        // An output of the model, and a value that another step reads.
        assert_eq!(merged(vec![layer(1, 2), gelu(2, 3)], &[2, 3]).len(), 2);
        assert_eq!(merged(vec![layer(1, 2), gelu(2, 3), sum(2, 1, 4)], &[3, 4]).len(), 3);
        // A value that is shown.
        let (source, view) = (Source::Buffer(2), View::whole(&[2, 2]));
        let taps = vec![Tap { index: 0, source, view, pads: [0; 4] }];
        let (steps, outputs) = (vec![layer(1, 2), gelu(2, 3)], vec![span(3)]);
        let mut lowered = Lowered { steps, buffers: vec![[2, 2]; 10], outputs, taps };
        merge(&mut lowered);
        assert_eq!(lowered.steps.len(), 2);
    }

    #[test]
    fn a_residual_is_there_before_its_layer_runs() {
        // The first layer runs before the second, whose result therefore cannot be its residual; the other way can.
        let steps = merged(vec![layer(1, 2), layer(1, 3), sum(2, 3, 4)], &[4]);
        let [_, Step::Linear { name, residual, .. }] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((&**name, *residual), ("layer3", Some(2)));
        // Where the later layer's result is read again, nothing moves.
        assert_eq!(merged(vec![layer(1, 2), layer(1, 3), sum(2, 3, 4), gelu(3, 5)], &[4, 5]).len(), 4);
    }

    #[test]
    fn results_are_stored_as_bytes_by_whoever_computes_them() {
        let to_bytes = QuantParams::new(0.5, 3).unwrap();
        let quantize = |x, out| Step::Quantize { x: span(x), out, quantize: to_bytes };
        let norm = Step::LayerNorm {
            x: span(1),
            is_centred: true,
            scale: vec![1.0; 2],
            shift: vec![0.0; 2],
            eps: 1e-6,
            out: Target::floats(2),
        };
        for step in [layer(1, 2), norm] {
            let steps = merged(vec![step, quantize(2, 3)], &[]);
            let target = steps.first().map(Step::target);
            assert_eq!((steps.len(), target), (1, Some(Target { buffer: 3, quantize: Some(to_bytes) })));
        }
        // Others have no such epilogue, and a part of a buffer is not its step's result.
        assert_eq!(merged(vec![sum(1, 1, 2), quantize(2, 3)], &[]).len(), 2);
        let part = Step::Quantize { x: Span { rows: 1, ..span(2) }, out: 3, quantize: to_bytes };
        assert_eq!(merged(vec![layer(1, 2), part], &[]).len(), 2);
    }
}
