//! Functions of one real value, known by their form.
//!
//! Exporters write GELU as five to eight nodes, in several orders. Each value carries the function that the nodes so
//! far make of some buffer, in one normal form, so that all orders become one. Coefficients are compared, never
//! samples: two functions that agree wherever one looks may differ elsewhere.

use smalti_kernels::Activation;

/// Powers of a polynomial: GELU's tanh form has a cube.
const POWERS: usize = 4;
/// The constant first.
type Polynomial = [f64; POWERS];

/// The most elementary functions in one formula.
const MAX_TERMS: usize = 4;
/// Sizes of coefficients within which floats behave like real numbers here.
const SIZES: std::ops::RangeInclusive<f64> = 1e-6..=1e6;
/// A sum below this part of its sides has lost digits in floats, so it is not computed.
const CANCELLED: f64 = 1e-3;
/// The largest shift of a hard sigmoid: beyond, a sum between 0 and 1 has lost digits.
const MAX_SHIFT: f64 = 100.0;
/// How far a constant may be from the one that is meant, in relation to it: a few roundings to f32.
const ROUNDED: f64 = 1e-6;

/// A function of one variable that is no polynomial.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Elementary {
    Abs,
    /// `min(max(x, low), high)`.
    Clip(f64, f64),
    Erf,
    Exp,
    Reciprocal,
    Sigmoid,
    Sqrt,
    Tanh,
}

/// `factor(x) · of(at(x))`.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    factor: Polynomial,
    of: Elementary,
    at: Polynomial,
}

/// A polynomial and terms with elementary functions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Formula {
    polynomial: Polynomial,
    terms: Vec<Term>,
}

/// A function that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    /// `factor · x`, `factor` not 0.
    Scale(f64),
    /// GELU, in one of its forms.
    Activation(Activation),
}

impl Formula {
    fn of(polynomial: Polynomial) -> Formula {
        Formula { polynomial, terms: Vec::new() }
    }

    /// `x` itself.
    pub(super) fn identity() -> Formula {
        Formula::of([0.0, 1.0, 0.0, 0.0])
    }

    /// The same number everywhere.
    pub(super) fn constant(value: f64) -> Formula {
        Formula::of([value, 0.0, 0.0, 0.0])
    }

    fn as_constant(&self) -> Option<f64> {
        let [value, rest @ ..] = self.polynomial;
        (self.terms.is_empty() && rest == [0.0; POWERS - 1]).then_some(value)
    }

    /// The formula after one more operator of one input; none if it has no such form.
    pub(super) fn then(&self, op: &str) -> Option<Formula> {
        let of = match op {
            "Neg" => return self.times(&[-1.0, 0.0, 0.0, 0.0]),
            "Abs" => Elementary::Abs,
            "Erf" => Elementary::Erf,
            "Exp" => Elementary::Exp,
            "Reciprocal" => Elementary::Reciprocal,
            "Relu" => Elementary::Clip(0.0, f64::INFINITY),
            "Sigmoid" => Elementary::Sigmoid,
            "Sqrt" => Elementary::Sqrt,
            "Tanh" => Elementary::Tanh,
            _ => return None,
        };
        self.under(of)
    }

    /// `min(max(x, low), high)` of the formula.
    pub(super) fn clip(&self, low: f64, high: f64) -> Option<Formula> {
        self.under(Elementary::Clip(low, high))
    }

    /// `min(max(slope · x + shift, 0), 1)` of the formula.
    pub(super) fn hard_sigmoid(&self, slope: f64, shift: f64) -> Option<Formula> {
        let sum = self.with("Mul", &Formula::constant(slope))?.with("Add", &Formula::constant(shift))?;
        sum.clip(0.0, 1.0)
    }

    /// `x · min(max(x + 3, 0), 6) / 6` of the formula.
    pub(super) fn hard_swish(&self) -> Option<Formula> {
        let above = self.with("Add", &Formula::constant(3.0))?.clip(0.0, 6.0)?;
        self.with("Mul", &above)?.with("Mul", &Formula::constant(1.0 / 6.0))
    }

    /// GELU of the formula, or its approximation by a hyperbolic tangent.
    pub(super) fn gelu(&self, is_tanh: bool) -> Option<Formula> {
        let times = |formula: &Formula, factor: f64| formula.with("Mul", &Formula::constant(factor));
        let inner = if is_tanh {
            let cube = times(&self.with("Pow", &Formula::constant(3.0))?, 0.044_715)?;
            times(&self.with("Add", &cube)?, (2.0 / std::f64::consts::PI).sqrt())?.then("Tanh")?
        } else {
            times(self, std::f64::consts::FRAC_1_SQRT_2)?.then("Erf")?
        };
        inner.with("Add", &Formula::constant(1.0))?.with("Mul", &times(self, 0.5)?)
    }

    /// Scale and shift, if the formula is `scale · x + shift`.
    pub(super) fn affine(&self) -> Option<[f64; 2]> {
        match (&self.polynomial, &self.terms[..]) {
            (&[shift, scale, 0.0, 0.0], []) => Some([scale, shift]),
            _ => None,
        }
    }

    /// Whether the formula is `x²`.
    pub(super) fn is_square(&self) -> bool {
        self.terms.is_empty() && self.polynomial == [0.0, 0.0, 1.0, 0.0]
    }

    fn under(&self, of: Elementary) -> Option<Formula> {
        let term = Term { factor: [1.0, 0.0, 0.0, 0.0], of, at: self.polynomial };
        self.terms.is_empty().then(|| Formula { polynomial: [0.0; POWERS], terms: vec![term] })
    }

    /// Two formulas of the same value behind an operator of two inputs; none if it has no such form.
    pub(super) fn with(&self, op: &str, other: &Formula) -> Option<Formula> {
        match op {
            "Add" => self.plus(other),
            "Sub" => self.plus(&other.times(&[-1.0, 0.0, 0.0, 0.0])?),
            "Mul" if self.terms.is_empty() => other.times(&self.polynomial),
            "Mul" if other.terms.is_empty() => self.times(&other.polynomial),
            "Div" => self.times(&[1.0 / other.as_constant()?, 0.0, 0.0, 0.0]),
            "Pow" if self.terms.is_empty() => match other.as_constant()? {
                1.0 => Some(self.clone()),
                2.0 => self.times(&self.polynomial),
                3.0 => self.times(&self.polynomial)?.times(&self.polynomial),
                _ => None,
            },
            _ => None,
        }
    }

    fn plus(&self, other: &Formula) -> Option<Formula> {
        let mut sum = Formula { polynomial: plus(&self.polynomial, &other.polynomial)?, ..self.clone() };
        for term in &other.terms {
            match sum.terms.iter_mut().find(|found| (found.of, found.at) == (term.of, term.at)) {
                Some(found) => found.factor = plus(&found.factor, &term.factor)?,
                None => sum.terms.push(term.clone()),
            }
        }
        (sum.terms.len() <= MAX_TERMS).then_some(sum)
    }

    fn times(&self, factor: &Polynomial) -> Option<Formula> {
        let terms =
            self.terms.iter().map(|term| Some(Term { factor: times(&term.factor, factor)?, ..*term }));
        Some(Formula { polynomial: times(&self.polynomial, factor)?, terms: terms.collect::<Option<_>>()? })
    }

    /// Which function this is.
    pub(super) fn known(&self) -> Option<Known> {
        let half = [0.0, 0.5, 0.0, 0.0];
        match (&self.polynomial, &self.terms[..]) {
            (&[0.0, factor, 0.0, 0.0], []) if factor != 0.0 => Some(Known::Scale(factor)),
            (polynomial, [Term { factor, of: Elementary::Erf, at }]) => {
                let root = [0.0, std::f64::consts::FRAC_1_SQRT_2, 0.0, 0.0];
                let is_gelu = is(polynomial, &half) && is(factor, &half) && is(at, &root);
                is_gelu.then_some(Known::Activation(Activation::Gelu))
            }
            (polynomial, [Term { factor, of: Elementary::Tanh, at }]) => {
                let root = (2.0 / std::f64::consts::PI).sqrt();
                let inner = [0.0, root, 0.0, 0.044_715 * root];
                let is_gelu = is(polynomial, &half) && is(factor, &half) && is(at, &inner);
                is_gelu.then_some(Known::Activation(Activation::GeluTanh))
            }
            ([0.0, 0.0, 0.0, 0.0], [Term { factor, of, at }]) => {
                known_product(factor, *of, at).map(Known::Activation)
            }
            _ => None,
        }
    }
}

/// Which function `factor(x) · of(at(x))` is.
fn known_product(factor: &Polynomial, of: Elementary, at: &Polynomial) -> Option<Activation> {
    let (one, x) = ([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]);
    match of {
        Elementary::Clip(low, high) if *factor == one && *at == x => {
            Some(Activation::Clip { low: low as f32, high: high as f32 })
        }
        Elementary::Clip(0.0, 6.0)
            if is(factor, &[0.0, 1.0 / 6.0, 0.0, 0.0]) && is(at, &[3.0, 1.0, 0.0, 0.0]) =>
        {
            Some(Activation::HardSwish)
        }
        // HardSwish again: `x` times a hard sigmoid.
        Elementary::Clip(0.0, 1.0) if *factor == x && is(at, &[0.5, 1.0 / 6.0, 0.0, 0.0]) => {
            Some(Activation::HardSwish)
        }
        Elementary::Clip(0.0, 1.0) if *factor == one && at[2..] == [0.0; 2] && at[0].abs() <= MAX_SHIFT => {
            Some(Activation::HardSigmoid { slope: at[1] as f32, shift: at[0] as f32 })
        }
        Elementary::Sigmoid if *factor == one && *at == x => Some(Activation::Sigmoid),
        Elementary::Sigmoid if *factor == x && at[0] == 0.0 && at[2..] == [0.0; 2] => {
            Some(Activation::Swish { beta: at[1] as f32 })
        }
        _ => None,
    }
}

/// Whether these are the coefficients that are meant, but for the rounding of constants.
fn is(found: &Polynomial, wanted: &Polynomial) -> bool {
    found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= ROUNDED * wanted.abs())
}

/// Coefficients as they are, unless floats would not do with them what real numbers do.
fn usable(polynomial: Polynomial) -> Option<Polynomial> {
    polynomial.iter().all(|&c| c == 0.0 || SIZES.contains(&c.abs())).then_some(polynomial)
}

fn plus(a: &Polynomial, b: &Polynomial) -> Option<Polynomial> {
    let mut sum = [0.0; POWERS];
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum = a + b;
        if sum.abs() < CANCELLED * a.abs().max(b.abs()) {
            return None;
        }
    }
    usable(sum)
}

fn times(a: &Polynomial, b: &Polynomial) -> Option<Polynomial> {
    let mut product = [0.0; POWERS];
    for (i, a) in a.iter().enumerate().filter(|(_, a)| **a != 0.0) {
        for (j, b) in b.iter().enumerate().filter(|(_, b)| **b != 0.0) {
            *product.get_mut(i + j)? += a * b;
        }
    }
    usable(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Formula {
        Formula::constant(value)
    }

    /// `x` behind operators with a constant, and alone.
    fn chain(steps: &[(&str, Option<f64>)]) -> Option<Formula> {
        steps.iter().try_fold(Formula::identity(), |formula, (op, value)| match value {
            Some(value) => formula.with(op, &number(*value)),
            None => formula.then(op),
        })
    }

    fn gelu(root: f64, one: f64, half: f64) -> Option<Formula> {
        let sum = chain(&[("Div", Some(root)), ("Erf", None), ("Add", Some(one))])?;
        Formula::identity().with("Mul", &sum)?.with("Mul", &number(half))
    }

    #[test]
    fn gelu_is_known_in_any_order() {
        let x = Formula::identity();
        let root = f64::from(std::f32::consts::SQRT_2);
        let sum = chain(&[("Mul", Some(1.0 / root)), ("Erf", None), ("Add", Some(1.0))]).unwrap();
        let half_first = sum.with("Mul", &x.with("Mul", &number(0.5)).unwrap()).unwrap();
        let half_within = sum.with("Mul", &number(0.5)).unwrap().with("Mul", &x).unwrap();
        for gelu in [gelu(root, 1.0, 0.5).unwrap(), half_first, half_within] {
            assert_eq!(gelu.known(), Some(Known::Activation(Activation::Gelu)));
        }
        for (is_tanh, gelu) in [(false, Activation::Gelu), (true, Activation::GeluTanh)] {
            assert_eq!(x.gelu(is_tanh).unwrap().known(), Some(Known::Activation(gelu)));
            assert_eq!(x.times(&[2.0, 0.0, 0.0, 0.0]).unwrap().gelu(is_tanh).unwrap().known(), None);
        }
        let cubes = [
            x.with("Pow", &number(3.0)).unwrap(),
            x.with("Mul", &x).unwrap().with("Mul", &x).unwrap(),
            x.with("Mul", &x.with("Mul", &x).unwrap()).unwrap(),
        ];
        for cube in cubes {
            let cube = cube.with("Mul", &number(f64::from(0.044_715_f32))).unwrap();
            let inner =
                x.with("Add", &cube).unwrap().with("Mul", &number(f64::from(0.797_884_6_f32))).unwrap();
            let tanh = inner.then("Tanh").unwrap().with("Add", &number(1.0)).unwrap();
            let gelu = x.with("Mul", &number(0.5)).unwrap().with("Mul", &tanh).unwrap();
            assert_eq!(gelu.known(), Some(Known::Activation(Activation::GeluTanh)));
        }
    }

    #[test]
    fn other_constants_make_other_functions() {
        let root = std::f64::consts::SQRT_2;
        for other in [gelu(root * 1.0001, 1.0, 0.5), gelu(root, 1.0001, 0.5), gelu(root, 1.0, 0.50001)] {
            assert_eq!(other.unwrap().known(), None);
        }
        assert_eq!(gelu(root, 1.0, 1e-7), None, "too small for floats to be real numbers");
        assert_eq!(gelu(root, 1.0, 1e-4).unwrap().known(), None);
    }

    #[test]
    fn factors_are_known() {
        assert_eq!(chain(&[("Mul", Some(-0.25))]).unwrap().known(), Some(Known::Scale(-0.25)));
        assert_eq!(chain(&[("Div", Some(4.0)), ("Neg", None)]).unwrap().known(), Some(Known::Scale(-0.25)));
        assert_eq!(Formula::identity().known(), Some(Known::Scale(1.0)));
    }

    #[test]
    fn activations_of_convolutional_networks_are_known() {
        let (x, known) = (Formula::identity(), |formula: Option<Formula>| formula?.known());
        assert_eq!(known(x.then("Relu")), Some(Known::Activation(Activation::RELU)));
        assert_eq!(known(x.clip(0.0, 6.0)), Some(Known::Activation(Activation::RELU6)));
        assert_eq!(known(x.hard_swish()), Some(Known::Activation(Activation::HardSwish)));
        let sixth = f64::from(1.0f32 / 6.0);
        let above = x.with("Add", &number(3.0)).unwrap().clip(0.0, 6.0).unwrap();
        let before = x.with("Mul", &above.with("Mul", &number(sixth)).unwrap());
        assert_eq!(known(before), Some(Known::Activation(Activation::HardSwish)));
        let after = x.with("Mul", &above).unwrap().with("Div", &number(6.0));
        assert_eq!(known(after), Some(Known::Activation(Activation::HardSwish)));
        let silu = x.then("Sigmoid").unwrap().with("Mul", &x);
        assert_eq!(known(silu), Some(Known::Activation(Activation::SILU)));
        let quick = chain(&[("Mul", Some(f64::from(1.702f32))), ("Sigmoid", None)]).unwrap().with("Mul", &x);
        assert_eq!(known(quick), Some(Known::Activation(Activation::QUICK_GELU)));
        assert_eq!(known(x.then("Sigmoid")), Some(Known::Activation(Activation::Sigmoid)));
        let hard = |slope: f32, shift: f32| x.hard_sigmoid(slope.into(), shift.into());
        for (slope, shift) in [(1.0 / 6.0, 0.5), (0.2, 0.5), (-3.0, 2.0)] {
            let want = Known::Activation(Activation::HardSigmoid { slope, shift });
            assert_eq!(known(hard(slope, shift)), Some(want));
        }
        let product = |slope: f32| hard(slope, 0.5)?.with("Mul", &x);
        assert_eq!(known(product(1.0 / 6.0)), Some(Known::Activation(Activation::HardSwish)));
        assert_eq!((known(product(0.2)), known(hard(1e3, -1e3))), (None, None));
        assert_eq!((hard(1e7, 0.5), hard(0.2, 1e-7)), (None, None), "floats are no real numbers here");
        let scaled = chain(&[("Mul", Some(2.0))]).unwrap().clip(0.0, 6.0);
        assert_eq!(known(scaled), None);
        let other = x.with("Add", &number(3.0)).unwrap().clip(0.0, 5.0).unwrap();
        assert_eq!(known(x.with("Mul", &other).unwrap().with("Div", &number(6.0))), None);
    }

    #[test]
    fn functions_that_look_like_others_are_not_taken_for_them() {
        // All of these agree with x or with GELU at most places that one would look at.
        let shifted = |c: f64| chain(&[("Add", Some(c)), ("Relu", None), ("Sub", Some(c))]).unwrap();
        assert_eq!((shifted(9.5).known(), shifted(1e5).known()), (None, None));
        assert_eq!(chain(&[("Add", Some(10.0)), ("Abs", None), ("Sub", Some(10.0))]).unwrap().known(), None);
        assert_eq!(chain(&[("Add", Some(1e3)), ("Sub", Some(1e3))]), None, "digits are lost");
        let x = Formula::identity();
        for (op, value) in
            [("Tanh", None), ("Sqrt", None), ("Exp", None), ("Reciprocal", None), ("Add", Some(1.0))]
        {
            assert_eq!(chain(&[(op, value)]).unwrap().known(), None, "{op}");
        }
        assert_eq!((x.then("Softmax"), x.with("Div", &x), x.with("Pow", &number(2.5))), (None, None, None));
    }
}
