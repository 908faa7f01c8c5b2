//! What follows a step moves into it: biases, scales, activations, residuals, quantization.

use smalti_kernels::Activation;

use super::lower::Lowered;
use super::step::{Buffer, Pointwise, Span, Step, Target};

/// Merges steps into the linear layers, norms and attentions before them, as long as no one else reads what lies
/// between.
pub(super) fn merge(lowered: &mut Lowered<'_>) {
    let mut steps: Vec<Option<Step<'_>>> = std::mem::take(&mut lowered.steps).into_iter().map(Some).collect();
    for i in 0..steps.len() {
        let Some(step) = steps[i].take() else { continue };
        let followed = Followed { steps: &mut steps, lowered, at: i };
        let left = followed.absorb(step);
        steps[i] = left;
    }
    lowered.steps = steps.into_iter().flatten().collect();
}

/// The steps around one that has been taken out.
struct Followed<'s, 'a> {
    steps: &'s mut Vec<Option<Step<'a>>>,
    lowered: &'s Lowered<'a>,
    at: usize,
}

impl<'a> Followed<'_, 'a> {
    /// Whether a span is all of its buffer.
    fn is_whole(&self, span: &Span) -> bool {
        let [rows, cols] = self.lowered.buffers[span.buffer];
        span.offset == 0 && (span.rows, span.cols) == (rows, cols)
    }

    /// The step that alone writes a buffer which no one reads but the step taken out.
    fn maker(&self, buffer: Buffer) -> Option<usize> {
        let kept = || self.steps.iter().flatten();
        let read = kept().flat_map(Step::reads).any(|read| read == buffer)
            || self.lowered.outputs.iter().any(|output| output.buffer == buffer);
        let mut makers = self
            .steps
            .iter()
            .enumerate()
            .filter_map(|(i, step)| (step.as_ref()?.writes() == buffer).then_some(i));
        let maker = makers.next().filter(|&i| i < self.at)?;
        (!read && makers.next().is_none()).then_some(maker)
    }

    /// Puts the step into an earlier one, or gives it back.
    fn absorb(mut self, step: Step<'a>) -> Option<Step<'a>> {
        let done = match &step {
            Step::Constant { a, values, multiply, out } if self.is_whole(a) && values.len() == a.cols => {
                self.row(a.buffer, values, *multiply, *out)
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

    /// A bias or a scale.
    fn row(&mut self, buffer: Buffer, values: &[f32], multiply: bool, to: Buffer) -> bool {
        let Some(maker) = self.maker(buffer) else { return false };
        let Some(Step::Linear { bias, scale, activation: Activation::None, residual: None, out, .. }) =
            &mut self.steps[maker]
        else {
            return false;
        };
        if multiply {
            let scale = scale.get_or_insert_with(|| vec![1.0; values.len()]);
            scale.iter_mut().zip(values).for_each(|(scale, value)| *scale *= value);
            bias.iter_mut().zip(values).for_each(|(bias, value)| *bias *= value);
        } else {
            bias.iter_mut().zip(values).for_each(|(bias, value)| *bias += value);
        }
        out.buffer = to;
        true
    }

    fn activation(&mut self, buffer: Buffer, function: Activation, to: Buffer) -> bool {
        let Some(maker) = self.maker(buffer) else { return false };
        let Some(Step::Linear { activation, residual: None, out, .. }) = &mut self.steps[maker] else {
            return false;
        };
        if *activation != Activation::None {
            return false;
        }
        *activation = function;
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
            | Step::Norm { out, .. }
            | Step::Attention { out, .. },
        ) = &mut self.steps[maker]
        else {
            return false;
        };
        *out = target;
        true
    }
}
