//! Operators on single values in f32, as ONNX defines them: constants and tables are computed with these.
//!
//! Elementary functions are the crate libm's, which give the same bits on every target and leave the system's library of
//! them out of memory.

/// The operator of one input; none if it is not one on single values.
pub(super) fn unary(op: &str) -> Option<fn(f32) -> f32> {
    Some(match op {
        "Abs" => f32::abs,
        "Erf" => libm::erff,
        "Exp" => libm::expf,
        "Neg" => |x| -x,
        "Reciprocal" => f32::recip,
        "Relu" => |x| x.max(0.0),
        "Sigmoid" => |x| 1.0 / (1.0 + libm::expf(-x)),
        "Sqrt" => f32::sqrt,
        "Tanh" => libm::tanhf,
        _ => return None,
    })
}

/// The operator of two inputs; none if it is not one on single values.
pub(super) fn binary(op: &str) -> Option<fn(f32, f32) -> f32> {
    Some(match op {
        "Add" => |a, b| a + b,
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        "Div" => |a, b| a / b,
        "Pow" => libm::powf,
        _ => return None,
    })
}
