//! `Resize` of a constant map, as ONNX defines it.

use smalti_models::onnx::NodeProto;

use crate::gate::attribute;

/// How values between others are found.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The nearest one, by one of ONNX's ways to round.
    Nearest(fn(f64) -> f64),
    Linear,
    /// Keys' convolution (IEEE ASSP 29(6), 1981) with its coefficient.
    Cubic(f64),
}

/// Which place of the map a place of the result is.
#[derive(Clone, Copy, Debug)]
enum Coordinates {
    HalfPixel,
    /// As `HalfPixel`, but 0 where there is one place.
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
}

/// The attributes of a node that has passed the gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resize {
    mode: Mode,
    coordinates: Coordinates,
}

/// Places along an axis and their weights.
type Taps = Vec<(usize, f64)>;

impl Resize {
    pub(super) fn of(node: &NodeProto) -> Resize {
        let text = |name: &str| attribute(node, name).map_or(&[][..], |attribute| &attribute.s);
        let round: fn(f64) -> f64 = match text("nearest_mode") {
            b"floor" => f64::floor,
            b"ceil" => f64::ceil,
            b"round_prefer_ceil" => |x| (x + 0.5).floor(),
            _ => |x| (x - 0.5).ceil(),
        };
        let mode = match text("mode") {
            b"linear" => Mode::Linear,
            b"cubic" => {
                Mode::Cubic(attribute(node, "cubic_coeff_a").map_or(-0.75, |attribute| attribute.f.into()))
            }
            _ => Mode::Nearest(round),
        };
        let coordinates = match text("coordinate_transformation_mode") {
            b"pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            b"align_corners" => Coordinates::AlignCorners,
            b"asymmetric" => Coordinates::Asymmetric,
            _ => Coordinates::HalfPixel,
        };
        Resize { mode, coordinates }
    }

    /// Values `[N, C, H, W]` in other heights and widths: by `factors` of the four axes, else by what the lengths say. None
    /// for another rank.
    pub(super) fn apply(
        self,
        values: Vec<f32>,
        from: &[usize],
        to: &[usize],
        factors: Option<&[f32]>,
    ) -> Option<Vec<f32>> {
        let (&[_, _, height, width], &[count, channels, rows, columns]) = (from, to) else { return None };
        let factor = |axis: usize| match factors.and_then(|factors| factors.get(axis)) {
            Some(&factor) => f64::from(factor),
            None => to[axis] as f64 / from[axis] as f64,
        };
        let down: Vec<Taps> = (0..rows).map(|i| self.taps(i, height, rows, factor(2))).collect();
        let across: Vec<Taps> = (0..columns).map(|i| self.taps(i, width, columns, factor(3))).collect();
        let mut out = Vec::with_capacity(count * channels * rows * columns);
        let mut line = vec![0.0; width];
        for map in values.chunks_exact(height * width).take(count * channels) {
            for taps in &down {
                line.fill(0.0);
                for &(row, weight) in taps {
                    let values = map.get(row * width..(row + 1) * width)?;
                    line.iter_mut().zip(values).for_each(|(sum, &value)| *sum += weight * f64::from(value));
                }
                let at = |taps: &Taps| taps.iter().map(|&(i, weight)| line[i] * weight).sum::<f64>() as f32;
                out.extend(across.iter().map(at));
            }
        }
        Some(out)
    }

    /// What one place of the result is made of.
    fn taps(self, i: usize, length: usize, new: usize, factor: f64) -> Taps {
        let (last, i) = (length.saturating_sub(1), i as f64);
        let x = match self.coordinates {
            Coordinates::PytorchHalfPixel if new <= 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (i + 0.5) / factor - 0.5,
            Coordinates::AlignCorners if new <= 1 => 0.0,
            Coordinates::AlignCorners => i * last as f64 / (new - 1) as f64,
            Coordinates::Asymmetric => i / factor,
        };
        let (whole, t) = (x.floor(), x - x.floor());
        // Beyond the sides the outermost value goes on.
        let place = |offset: f64| (whole + offset).clamp(0.0, last as f64) as usize;
        match self.mode {
            Mode::Nearest(round) => vec![(round(x).clamp(0.0, last as f64) as usize, 1.0)],
            Mode::Linear => vec![(place(0.0), 1.0 - t), (place(1.0), t)],
            Mode::Cubic(a) => {
                let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
                let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
                let weights = [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)];
                [-1.0, 0.0, 1.0, 2.0].map(place).into_iter().zip(weights).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(mode: Mode, coordinates: Coordinates, values: &[f32], new: usize) -> Vec<f32> {
        let from = [1, 1, 1, values.len()];
        Resize { mode, coordinates }.apply(values.to_vec(), &from, &[1, 1, 1, new], None).unwrap()
    }

    #[test]
    fn a_map_of_the_same_size_keeps_its_bits() {
        let values: Vec<f32> = (0..21).map(|i| (i as f32).sin()).collect();
        for mode in [Mode::Nearest(f64::floor), Mode::Linear, Mode::Cubic(-0.75), Mode::Cubic(-0.5)] {
            for coordinates in [Coordinates::HalfPixel, Coordinates::AlignCorners, Coordinates::Asymmetric] {
                let dims = [1, 1, 3, 7];
                let resized = Resize { mode, coordinates }.apply(values.clone(), &dims, &dims, None).unwrap();
                assert_eq!(resized, values, "{mode:?} {coordinates:?}");
            }
        }
    }

    #[test]
    fn values_between_others_are_those_of_onnx() {
        // From the operator's examples in ONNX's specification.
        let x = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(resize(Mode::Linear, Coordinates::HalfPixel, &[1.0, 2.0], 4), [1.0, 1.25, 1.75, 2.0]);
        let aligned = resize(Mode::Linear, Coordinates::AlignCorners, &[1.0, 2.0], 4);
        assert!(aligned.iter().zip([1.0, 4.0 / 3.0, 5.0 / 3.0, 2.0]).all(|(a, b)| (a - b).abs() < 1e-6));
        let map = (1..=16).map(|i| i as f32).collect();
        let cubic = Resize { mode: Mode::Cubic(-0.75), coordinates: Coordinates::HalfPixel };
        let cubic = cubic.apply(map, &[1, 1, 4, 4], &[1, 1, 8, 8], Some(&[1.0, 1.0, 2.0, 2.0])).unwrap();
        let row =
            [0.472_656_25, 0.769_531_25, 1.246_093_8, 1.875, 2.281_25, 2.910_156_2, 3.386_718_8, 3.683_593_8];
        assert_eq!(cubic[..8], row);
        let nearest = resize(Mode::Nearest(f64::floor), Coordinates::Asymmetric, &x, 7);
        assert_eq!(nearest, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0]);
        assert_eq!(resize(Mode::Linear, Coordinates::PytorchHalfPixel, &x, 1), [1.0]);
    }
}
