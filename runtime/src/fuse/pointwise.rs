//! Functions of single values, known by what they make of sample points.
//!
//! Exporters write GELU as five to eight nodes, in several orders. Instead of listing the orders, each value
//! `f(x)` carries `f` at fixed points; `f` is then compared with what kernels exist for.

use smalti_kernels::Activation;

/// Where functions are sampled.
const POINTS: [f64; 24] = [
    -9.0, -6.3, -4.9, -3.7, -2.9, -2.3, -1.83, -1.41, -1.07, -0.77, -0.5, -0.29, -0.11, 0.0, 0.13, 0.37,
    0.61, 0.93, 1.31, 1.79, 2.47, 3.41, 5.3, 8.7,
];

/// A function of one value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Function([f64; POINTS.len()]);

/// A function that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    /// `factor · x`, `factor` not 0.
    Scale(f64),
    /// GELU, in one of its forms.
    Activation(Activation),
}

impl Function {
    /// `x` itself.
    pub(super) const IDENTITY: Function = Function(POINTS);

    /// The same number everywhere.
    pub(super) fn constant(value: f64) -> Function {
        Function([value; POINTS.len()])
    }

    /// The function behind one more operator of one input; none if it is not known.
    pub(super) fn then(&self, op: &str) -> Option<Function> {
        let map: fn(f64) -> f64 = match op {
            "Abs" => f64::abs,
            "Erf" => |x| libm::erf(x),
            "Exp" => f64::exp,
            "Neg" => |x| -x,
            "Reciprocal" => f64::recip,
            "Relu" => |x| x.max(0.0),
            "Sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
            "Sqrt" => f64::sqrt,
            "Tanh" => f64::tanh,
            _ => return None,
        };
        Some(Function(self.0.map(map)))
    }

    /// Two functions of the same value behind an operator of two inputs; none if it is not known.
    pub(super) fn with(&self, op: &str, other: &Function) -> Option<Function> {
        let map: fn(f64, f64) -> f64 = match op {
            "Add" => |a, b| a + b,
            "Sub" => |a, b| a - b,
            "Mul" => |a, b| a * b,
            "Div" => |a, b| a / b,
            "Pow" => f64::powf,
            _ => return None,
        };
        Some(Function(std::array::from_fn(|i| map(self.0[i], other.0[i]))))
    }

    /// The value of a constant function.
    pub(super) fn at_any(&self) -> Option<f64> {
        self.0.first().copied().filter(|value| value.is_finite())
    }

    /// Whether this is, but for rounding of constants, `wanted`.
    fn is(&self, wanted: impl Fn(f64) -> f64) -> bool {
        let close = |(&x, &found): (&f64, &f64)| (found - wanted(x)).abs() <= 2e-7 * (1.0 + x.abs());
        POINTS.iter().zip(&self.0).all(close)
    }

    /// Which function this is.
    pub(super) fn known(&self) -> Option<Known> {
        let factor = self.0.last()? / POINTS.last()?;
        if factor != 0.0 && factor.is_finite() && self.is(|x| factor * x) {
            return Some(Known::Scale(factor));
        }
        let gelu = |x: f64| x * 0.5 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
        let gelu_tanh = |x: f64| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            x * 0.5 * (1.0 + inner.tanh())
        };
        match () {
            () if self.is(gelu) => Some(Known::Activation(Activation::Gelu)),
            () if self.is(gelu_tanh) => Some(Known::Activation(Activation::GeluTanh)),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Function {
        Function::constant(value)
    }

    #[test]
    fn gelu_is_known_in_any_order() {
        let x = Function::IDENTITY;
        let erf = x.with("Div", &number(std::f64::consts::SQRT_2)).unwrap().then("Erf").unwrap();
        let sum = erf.with("Add", &number(1.0)).unwrap();
        let one = x.with("Mul", &sum).unwrap().with("Mul", &number(0.5)).unwrap();
        let other = sum.with("Mul", &x.with("Mul", &number(0.5)).unwrap()).unwrap();
        for gelu in [one, other] {
            assert_eq!(gelu.known(), Some(Known::Activation(Activation::Gelu)));
        }
        let cube = x.with("Pow", &number(3.0)).unwrap().with("Mul", &number(0.044_715)).unwrap();
        let inner = x.with("Add", &cube).unwrap().with("Mul", &number(0.797_884_6)).unwrap();
        let tanh = inner.then("Tanh").unwrap().with("Add", &number(1.0)).unwrap();
        let gelu = x.with("Mul", &number(0.5)).unwrap().with("Mul", &tanh).unwrap();
        assert_eq!(gelu.known(), Some(Known::Activation(Activation::GeluTanh)));
    }

    #[test]
    fn other_functions_are_not_taken_for_it() {
        let x = Function::IDENTITY;
        assert!(
            matches!(x.with("Mul", &number(-0.25)).unwrap().known(), Some(Known::Scale(f)) if f == -0.25)
        );
        for other in
            [x.then("Relu"), x.then("Tanh"), x.with("Add", &number(1.0)), Some(number(0.0)), x.then("Sqrt")]
        {
            assert_eq!(other.unwrap().known(), None);
        }
        let swish = x.with("Mul", &x.then("Sigmoid").unwrap()).unwrap();
        assert_eq!(swish.known(), None);
        assert_eq!(x.then("Softmax"), None);
    }
}
