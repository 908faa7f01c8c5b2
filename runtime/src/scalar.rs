//! Operators on single values in f32, as ONNX defines them: constants and tables are computed with these.
//!
//! Elementary functions are the crate libm's, which give the same bits on every target and leave the system's library of
//! them out of memory.

/// The operator of one input; none if it is not one on single values.
pub(crate) fn unary(op: &str) -> Option<fn(f32) -> f32> {
    Some(match op {
        "Abs" => f32::abs,
        "Cos" => libm::cosf,
        "Erf" => libm::erff,
        "Exp" => libm::expf,
        "Log" => libm::logf,
        "Neg" => |x| -x,
        "Reciprocal" => f32::recip,
        "Relu" => |x| x.max(0.0),
        "Sin" => libm::sinf,
        "Sigmoid" => |x| 1.0 / (1.0 + libm::expf(-x)),
        "Sqrt" => f32::sqrt,
        "Tanh" => libm::tanhf,
        _ => return None,
    })
}

/// GELU, or its approximation by a hyperbolic tangent (arXiv 1606.08415, section 2).
pub(crate) fn gelu(is_tanh: bool) -> fn(f32) -> f32 {
    use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI};
    match is_tanh {
        true => |x| 0.5 * x * (1.0 + libm::tanhf(FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x))),
        false => |x| 0.5 * x * (1.0 + libm::erff(x * FRAC_1_SQRT_2)),
    }
}

/// The operator of two inputs; none if it is not one on single values.
pub(crate) fn binary(op: &str) -> Option<fn(f32, f32) -> f32> {
    Some(match op {
        "Add" => |a, b| a + b,
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        "Div" => |a, b| a / b,
        "Pow" => libm::powf,
        _ => return None,
    })
}
