//! Operators on single values in f32, as ONNX defines them: constants and tables are computed with these.

/// The operator of one input; none if it is not one on single values.
pub(super) fn unary(op: &str) -> Option<fn(f32) -> f32> {
    Some(match op {
        "Abs" => f32::abs,
        "Erf" => libm::erff,
        "Exp" => f32::exp,
        "Neg" => |x| -x,
        "Reciprocal" => f32::recip,
        "Relu" => |x| x.max(0.0),
        "Sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
        "Sqrt" => f32::sqrt,
        "Tanh" => f32::tanh,
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
        "Pow" => f32::powf,
        _ => return None,
    })
}
