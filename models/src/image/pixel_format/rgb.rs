//! How a frame's bytes become red, green and blue.

use super::PixelFormat;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Writes a frame that has as many bytes as its format and size say.
pub(super) fn write(format: PixelFormat, size: [usize; 2], bytes: &[u8], out: &mut [Rgb]) {
    let [width, height] = size;
    let (luma, chroma) = bytes.split_at(width * height);
    let in_turn = chroma.chunks_exact(width).map(|row| row.as_chunks().0.iter());
    let (us, vs) = chroma.split_at(chroma.len() / 2);
    match format {
        PixelFormat::Rgb8 => each(bytes, out, |rgb| [rgb]),
        PixelFormat::Bgr8 => each(bytes, out, |[b, g, r]| [[r, g, b]]),
        PixelFormat::Grey8 => each(bytes, out, |[grey]| [[grey; 3]]),
        PixelFormat::Rgb565 => each(bytes, out, |pixel| [rgb565(u16::from_le_bytes(pixel))]),
        PixelFormat::Yuyv => each(bytes, out, |[left, u, right, v]| pair([left, right], [u, v])),
        PixelFormat::Uyvy => each(bytes, out, |[u, left, v, right]| pair([left, right], [u, v])),
        PixelFormat::Nv12 => planes(width, luma, in_turn.map(|row| row.map(|&[u, v]| [u, v])), out),
        PixelFormat::Nv21 => planes(width, luma, in_turn.map(|row| row.map(|&[v, u]| [u, v])), out),
        PixelFormat::I420 => {
            let rows = us.chunks_exact(width / 2).zip(vs.chunks_exact(width / 2));
            let chroma = rows.map(|(us, vs)| us.iter().zip(vs).map(|(&u, &v)| [u, v]));
            planes(width, luma, chroma, out);
        }
        PixelFormat::BayerRggb8 => mosaic(size, bytes, [0, 0], out),
        PixelFormat::BayerBggr8 => mosaic(size, bytes, [1, 1], out),
        PixelFormat::BayerGbrg8 => mosaic(size, bytes, [0, 1], out),
        PixelFormat::BayerGrbg8 => mosaic(size, bytes, [1, 0], out),
    }
}

/// Converts every `BYTES` bytes to `PIXELS` pixels.
fn each<const BYTES: usize, const PIXELS: usize>(
    bytes: &[u8],
    out: &mut [Rgb],
    convert: impl Fn([u8; BYTES]) -> [Rgb; PIXELS],
) {
    for (out, &bytes) in out.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        *out = convert(bytes);
    }
}

/// A colour's missing lower bits are its upper ones again, so that white stays white.
fn rgb565(pixel: u16) -> Rgb {
    let [r, g, b] = [pixel >> 11, (pixel >> 5) & 63, pixel & 31];
    [(r << 3) | (r >> 2), (g << 2) | (g >> 4), (b << 3) | (b >> 2)].map(|value| value as u8)
}

/// Fraction bits of the factors below, which are OpenCV's.
const FRACTION_BITS: u32 = 20;
/// 1.164.
const FROM_Y: i32 = 1_220_542;
/// 1.596.
const RED_FROM_V: i32 = 1_673_527;
/// -0.391.
const GREEN_FROM_U: i32 = -409_993;
/// -0.813.
const GREEN_FROM_V: i32 = -852_492;
/// 2.018.
const BLUE_FROM_U: i32 = 2_116_026;

/// Two pixels that share U and V.
fn pair(luma: [u8; 2], chroma: [u8; 2]) -> [Rgb; 2] {
    let [u, v] = chroma.map(|value| i32::from(value) - 128);
    let colours = [RED_FROM_V * v, GREEN_FROM_U * u + GREEN_FROM_V * v, BLUE_FROM_U * u];
    luma.map(|y| {
        let grey = FROM_Y * i32::from(y.saturating_sub(16)) + (1 << (FRACTION_BITS - 1));
        colours.map(|colour| ((grey + colour) >> FRACTION_BITS).clamp(0, 255) as u8)
    })
}

/// A plane of Y, two rows of which share a row of U and V.
fn planes<C: Iterator<Item = [u8; 2]> + Clone>(
    width: usize,
    luma: &[u8],
    chroma: impl Iterator<Item = C>,
    out: &mut [Rgb],
) {
    let rows = luma.chunks_exact(2 * width).zip(out.chunks_exact_mut(2 * width));
    for ((luma, out), chroma) in rows.zip(chroma) {
        for (luma, out) in luma.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let pairs = out.as_chunks_mut().0.iter_mut().zip(luma.as_chunks().0);
            for ((out, &luma), chroma) in pairs.zip(chroma.clone()) {
                *out = pair(luma, chroma);
            }
        }
    }
}

/// A Bayer mosaic whose first red pixel lies in that column and row.
fn mosaic([width, height]: [usize; 2], bytes: &[u8], [red_column, red_row]: [usize; 2], out: &mut [Rgb]) {
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let [above, below] = neighbours(y, height);
        let rows = [above, y, below].map(|y| &bytes[y * width..][..width]);
        match (y % 2 == red_row, red_column) {
            (true, 0) => mosaic_row(rows, out, |[a, b]| [coloured(a), green(b)]),
            (true, _) => mosaic_row(rows, out, |[a, b]| [green(a), coloured(b)]),
            (false, 0) => mosaic_row(rows, out, |[a, b]| [reversed(green(a)), reversed(coloured(b))]),
            (false, _) => mosaic_row(rows, out, |[a, b]| [reversed(coloured(a)), reversed(green(b))]),
        }
    }
}

/// The places before and after one of `count`. In place of one beyond an end it is the neighbour on the other side, which
/// has its colour.
fn neighbours(at: usize, count: usize) -> [usize; 2] {
    let last = count - 1;
    [at.abs_diff(1), last - (last - at).abs_diff(1)]
}

/// A pixel of a mosaic and those around it.
type Around = [[u8; 3]; 3];

/// The middle one of three rows of a mosaic, two pixels at a time, so that their order is known.
fn mosaic_row(rows: [&[u8]; 3], out: &mut [Rgb], rgb: impl Fn([Around; 2]) -> [Rgb; 2]) {
    let width = out.len();
    for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let x = 2 * i;
        let ([left, _], [_, right]) = (neighbours(x, width), neighbours(x + 1, width));
        let around = |columns: [usize; 3]| rows.map(|row| columns.map(|x| row[x]));
        *out = rgb([around([left, x, x + 1]), around([x, x + 1, right])]);
    }
}

/// Where red or blue is measured: that colour, green from the sides, the third one from the corners.
fn coloured([[a, b, c], [d, e, f], [g, h, i]]: Around) -> Rgb {
    [e, mean([b, d, f, h]), mean([a, c, g, i])]
}

/// Where green is measured: the row's colour, green, the column's colour.
fn green([[_, b, _], [d, e, f], [_, h, _]]: Around) -> Rgb {
    [mean([d, f]), e, mean([b, h])]
}

/// The mean; half goes up.
fn mean<const COUNT: usize>(values: [u8; COUNT]) -> u8 {
    let count = COUNT as u16;
    let sum: u16 = values.into_iter().map(u16::from).sum();
    ((sum + count / 2) / count) as u8
}

fn reversed([a, b, c]: Rgb) -> Rgb {
    [c, b, a]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{noise, rgb};
    use super::*;

    const YUV: [PixelFormat; 5] =
        [PixelFormat::Yuyv, PixelFormat::Uyvy, PixelFormat::Nv12, PixelFormat::Nv21, PixelFormat::I420];

    const BAYER: [(PixelFormat, &[u8; 4]); 4] = [
        (PixelFormat::BayerRggb8, b"RGGB"),
        (PixelFormat::BayerBggr8, b"BGGR"),
        (PixelFormat::BayerGbrg8, b"GBRG"),
        (PixelFormat::BayerGrbg8, b"GRBG"),
    ];

    #[test]
    fn all_of_yuv_is_the_formulas_rgb() {
        // ITU-R BT.601: R' = Y' + 2 (1 - Kr) Pr and so on, with Kr = 0.299 and Kb = 0.114, Y' of 219 levels, P of 224.
        let (kr, kb) = (0.299, 0.114);
        let kg = 1.0 - kr - kb;
        for u in 0..=255 {
            let frame: Vec<u8> =
                (0..=255u8).flat_map(|v| (0..128u8).flat_map(move |i| [2 * i, u, 2 * i + 1, v])).collect();
            for (i, found) in rgb(PixelFormat::Yuyv, 256, 256, &frame).into_iter().enumerate() {
                let (y, v) = (i % 256, i / 256);
                let luma = (y as f64 - 16.0).max(0.0) / 219.0;
                let [pb, pr] = [u.into(), v as f64].map(|value| (value - 128.0) / 224.0);
                let wanted = [
                    luma + 2.0 * (1.0 - kr) * pr,
                    luma - 2.0 * (1.0 - kb) * kb / kg * pb - 2.0 * (1.0 - kr) * kr / kg * pr,
                    luma + 2.0 * (1.0 - kb) * pb,
                ];
                for (found, wanted) in found.into_iter().zip(wanted) {
                    let apart = f64::from(found) - (255.0 * wanted).clamp(0.0, 255.0);
                    assert!(apart.abs() < 1.0, "{y} {u} {v}: {found} is {apart} off");
                }
            }
        }
    }

    #[test]
    fn yuv_is_opencvs() {
        // OpenCV 5.0: cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUYV)[0, 0]; its other four conversions agree.
        for ([y, u, v], wanted) in [
            ([81, 90, 240], [254, 0, 0]),
            ([145, 54, 34], [0, 255, 1]),
            ([41, 240, 110], [0, 0, 255]),
            ([180, 100, 200], [255, 143, 134]),
            ([16, 128, 128], [0, 0, 0]),
            ([235, 128, 128], [255, 255, 255]),
            ([0, 0, 255], [203, 0, 0]),
        ] {
            assert_eq!(rgb(PixelFormat::Yuyv, 2, 1, &[y, u, y, v]), [wanted; 2]);
        }
    }

    /// A frame of planes of Y, U and V, of which U and V have half of the columns and rows.
    fn packed(format: PixelFormat, width: usize, height: usize, planes: [&[u8]; 3]) -> Vec<u8> {
        let [ys, us, vs] = planes;
        let pairs =
            (0..height).flat_map(|y| (0..width / 2).map(move |x| (y * width / 2 + x, y / 2 * width / 2 + x)));
        let each = |order: fn([u8; 4]) -> [u8; 4]| {
            pairs
                .flat_map(|(pair, square)| order([ys[2 * pair], ys[2 * pair + 1], us[square], vs[square]]))
                .collect()
        };
        let in_turn = |first: &[u8], second: &[u8]| {
            let chroma = first.iter().zip(second).flat_map(|(&first, &second)| [first, second]);
            ys.iter().copied().chain(chroma).collect()
        };
        match format {
            PixelFormat::Yuyv => each(|[left, right, u, v]| [left, u, right, v]),
            PixelFormat::Uyvy => each(|[left, right, u, v]| [u, left, v, right]),
            PixelFormat::Nv12 => in_turn(us, vs),
            PixelFormat::Nv21 => in_turn(vs, us),
            _ => [ys, us, vs].concat(),
        }
    }

    #[test]
    fn pixels_have_the_nearest_u_and_v() {
        for (width, height) in [(2, 2), (4, 2), (2, 6), (10, 8)] {
            let bytes = noise(width * height * 3 / 2);
            let (ys, chroma) = bytes.split_at(width * height);
            let (us, vs) = chroma.split_at(chroma.len() / 2);
            let wanted: Vec<Rgb> = (0..width * height)
                .map(|i| {
                    let square = i / width / 2 * (width / 2) + i % width / 2;
                    pair([ys[i]; 2], [us[square], vs[square]])[0]
                })
                .collect();
            for format in YUV {
                let frame = packed(format, width, height, [ys, us, vs]);
                assert_eq!(rgb(format, width, height, &frame), wanted, "{format} {width} {height}");
            }
        }
    }

    #[test]
    fn five_and_six_bits_become_the_nearest_eight() {
        let frame: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (pixel, found) in rgb(PixelFormat::Rgb565, 256, 256, &frame).into_iter().enumerate() {
            let parts = [(pixel >> 11, 31.0), ((pixel >> 5) & 63, 63.0), (pixel & 31, 31.0)];
            for (found, (value, most)) in found.into_iter().zip(parts) {
                let apart = f64::from(found) - value as f64 * 255.0 / most;
                assert!(apart.abs() < 1.0, "{pixel:#06x}: {apart}");
            }
        }
        assert_eq!(rgb(PixelFormat::Rgb565, 2, 1, &[0x00, 0xf8, 0xff, 0xff]), [[255, 0, 0], [255; 3]]);
    }

    /// The mean of all pixels of a colour among three by three, those beyond an edge mirrored.
    fn demosaiced(pattern: &[u8; 4], width: usize, height: usize, bytes: &[u8]) -> Vec<Rgb> {
        let mirrored = |at: isize, count: usize| {
            let (at, last) = (at.unsigned_abs(), count - 1);
            if at > last { 2 * last - at } else { at }
        };
        let colour = |x: usize, y: usize| pattern[y % 2 * 2 + x % 2];
        let at = |x: usize, y: usize, wanted: u8| {
            if colour(x, y) == wanted {
                return bytes[y * width + x];
            }
            let (mut sum, mut count) = (0.0, 0.0);
            for (dx, dy) in (0..9).map(|i| (i % 3 - 1, i / 3 - 1)) {
                let (x, y) = (mirrored(x as isize + dx, width), mirrored(y as isize + dy, height));
                if colour(x, y) == wanted {
                    sum += f64::from(bytes[y * width + x]);
                    count += 1.0;
                }
            }
            (sum / count + 0.5).floor() as u8
        };
        (0..width * height).map(|i| b"RGB".map(|wanted| at(i % width, i / width, wanted))).collect()
    }

    #[test]
    fn mosaics_become_the_mean_of_their_neighbours() {
        for (width, height) in [(2, 2), (2, 4), (4, 2), (6, 6), (14, 10)] {
            for (format, pattern) in BAYER {
                let bytes = noise(width * height);
                let wanted = demosaiced(pattern, width, height, &bytes);
                assert_eq!(rgb(format, width, height, &bytes), wanted, "{format} {width} {height}");
            }
        }
    }

    #[test]
    fn a_mosaic_of_one_colour_is_that_colour() {
        let (width, height, wanted) = (8, 6, [201, 4, 77]);
        for (format, pattern) in BAYER {
            let colour = |i: usize| pattern[i / width % 2 * 2 + i % width % 2];
            let value =
                |i| b"RGB".iter().position(|&name| name == colour(i)).map_or(0, |channel| wanted[channel]);
            let bytes: Vec<u8> = (0..width * height).map(value).collect();
            assert_eq!(rgb(format, width, height, &bytes), vec![wanted; width * height], "{format}");
        }
    }
}
