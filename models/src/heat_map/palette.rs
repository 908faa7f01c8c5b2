//! The colours of a heat map.

/// From little to much: indigo, rose, pale yellow in Oklab (Ottosson 2020), the steps between which look equally large.
/// Lightness rises all the way, and so does yellow against blue, so that the map is read without seeing colours, or without
/// telling red from green.
const STOPS: [[f64; 3]; 3] = [[0.22, 0.02, -0.10], [0.60, 0.16, 0.02], [0.95, -0.02, 0.14]];

/// 256 colours, from little to much.
pub(super) fn palette() -> [[u8; 3]; 256] {
    std::array::from_fn(|i| srgb(between(i as f64 / 255.0)))
}

/// The colour at 0 to 1 in Oklab.
fn between(t: f64) -> [f64; 3] {
    let [little, middle, much] = STOPS;
    let (from, to, part) = if t < 0.5 { (little, middle, 2.0 * t) } else { (middle, much, 2.0 * t - 1.0) };
    std::array::from_fn(|i| from[i] + part * (to[i] - from[i]))
}

/// From Oklab to sRGB; what the screen cannot show is clipped.
fn srgb([lightness, a, b]: [f64; 3]) -> [u8; 3] {
    let cones = [
        lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b,
        lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b,
        lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b,
    ]
    .map(|cone| cone.powi(3));
    let rows = [
        [4.076_741_662_1, -3.307_711_591_3, 0.230_969_929_2],
        [-1.268_438_004_6, 2.609_757_401_1, -0.341_319_396_5],
        [-0.004_196_086_3, -0.703_418_614_7, 1.707_614_701_0],
    ];
    rows.map(|row| {
        let linear: f64 = row.iter().zip(cones).map(|(weight, cone)| weight * cone).sum();
        let linear = linear.clamp(0.0, 1.0);
        let value =
            if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * libm::pow(linear, 1.0 / 2.4) - 0.055 };
        (255.0 * value).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CIE lightness of an sRGB colour, 0 to 100.
    fn lightness(colour: [u8; 3]) -> f64 {
        let linear = colour.map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        let luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        116.0 * luminance.cbrt() - 16.0
    }

    #[test]
    fn grey_is_grey() {
        assert_eq!([srgb([0.0, 0.0, 0.0]), srgb([1.0, 0.0, 0.0])], [[0; 3], [255; 3]]);
        let [red, green, blue] = srgb([0.5, 0.0, 0.0]);
        assert!(red == green && green == blue);
    }

    #[test]
    fn lightness_rises_evenly() {
        let colours = palette().map(lightness);
        assert!(colours.is_sorted() && colours[0] < 15.0 && colours[255] > 90.0, "{colours:?}");
        let steps: Vec<f64> = colours.windows(17).step_by(16).map(|part| part[16] - part[0]).collect();
        assert!(steps.iter().all(|step| (3.0..8.0).contains(step)), "{steps:?}");
    }
}
