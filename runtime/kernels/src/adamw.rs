//! AdamW (arXiv 1711.05101): Adam's step with weight decay taken off the weights directly.

use crate::isa::dispatch;
use crate::math::madd;

/// One step's scalars, the same for every value of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step<R> {
    /// Learning rate.
    pub lr: R,
    /// Decay of the first moment.
    pub beta1: R,
    /// Decay of the second moment.
    pub beta2: R,
    /// `1 - beta1^t`.
    pub correction1: R,
    /// `1 - beta2^t`.
    pub correction2: R,
    /// Added to the root of the second moment.
    pub eps: R,
    /// Weight decay.
    pub decay: R,
    /// Factor on the gradient (clipping).
    pub scale: R,
}

#[inline(always)]
fn step_body<const FMA: bool, const WIDE: bool>(
    s: Step<f32>,
    gradient: &[f32],
    weight: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let keep = 1.0 - s.lr * s.decay;
    let rate = s.lr / s.correction1;
    let root = 1.0 / s.correction2.sqrt();
    for (((w, m), v), &g) in weight.iter_mut().zip(m).zip(v).zip(gradient) {
        let g = g * s.scale;
        *m = madd::<FMA>(s.beta1, *m, (1.0 - s.beta1) * g);
        *v = madd::<FMA>(s.beta2, *v, (1.0 - s.beta2) * g * g);
        *w = *w * keep - rate * *m / madd::<FMA>(v.sqrt(), root, s.eps);
    }
}

dispatch! {
    /// One AdamW step over a tensor.
    pub fn step(s: Step<f32>, gradient: &[f32], weight: &mut [f32], m: &mut [f32], v: &mut [f32]) = step_body
}

#[cfg(test)]
mod tests {
    use super::Step;
    use crate::plain;
    use crate::test_support::{close, each_isa, values, widen};

    #[test]
    fn every_isa_agrees_with_the_reference() {
        let s = Step {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.95,
            correction1: 0.19,
            correction2: 0.0975,
            eps: 1e-8,
            decay: 0.05,
            scale: 0.7,
        };
        for n in [1, 16, 37] {
            let (g, w, m) = (values(n, 1), values(n, 2), values(n, 3));
            let v: Vec<f32> = values(n, 4).iter().map(|x| x * x).collect();
            let wide = Step {
                lr: s.lr.into(),
                beta1: s.beta1.into(),
                beta2: s.beta2.into(),
                correction1: s.correction1.into(),
                correction2: s.correction2.into(),
                eps: s.eps.into(),
                decay: s.decay.into(),
                scale: s.scale.into(),
            };
            let (mut want, mut want_m, mut want_v) = (widen(&w), widen(&m), widen(&v));
            plain::adamw(wide, &widen(&g), &mut want, &mut want_m, &mut want_v);
            each_isa(|isa| {
                let (mut w, mut m, mut v) = (w.clone(), m.clone(), v.clone());
                super::step(isa, s, &g, &mut w, &mut m, &mut v);
                close(&w, &want, 1e-5);
                close(&m, &want_m, 1e-6);
                close(&v, &want_v, 1e-6);
            });
        }
    }
}
