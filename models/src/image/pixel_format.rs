//! Frames as cameras give them: how many bytes they have, and what pixels these are.

use std::fmt;

use super::{Image, Limits, View, check_pixels, check_shape};
use crate::error::{Error, Result};
use crate::resize::room;

/// How the pixels of a frame lie in memory: rows from top to bottom, without gaps.
///
/// Y, U and V are those of ITU-R BT.601 in limited range, V4L2's default: black has Y 16, white Y 235, grey U and V 128.
/// They become the RGB of OpenCV's `cvtColor`, to the last bit: U and V are the nearest ones, not interpolated, and Y below
/// 16 counts as 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Red, green, blue. V4L2's `RGB3`.
    Rgb8,
    /// Blue, green, red. V4L2's `BGR3`.
    Bgr8,
    /// Grey. V4L2's `GREY`.
    Grey8,
    /// 16 bits, the lower byte first: 5 of red (the upper ones), 6 of green, 5 of blue. V4L2's `RGBP`.
    Rgb565,
    /// Two pixels of a row are Y, U, Y, V: the width is even.
    Yuyv,
    /// Two pixels of a row are U, Y, V, Y: the width is even.
    Uyvy,
    /// All Y, then U and V in turn, one of each for 2 x 2 pixels: both sides are even.
    Nv12,
    /// As [`PixelFormat::Nv12`], V before U.
    Nv21,
    /// All Y, then all U, then all V, one of each for 2 x 2 pixels: both sides are even. V4L2's `YU12`.
    I420,
    /// One colour a pixel, rows of red and green and rows of green and blue in turn: both sides are even. Each of the other
    /// two colours is the mean of the nearest pixels that have it (bilinear); at its edges the mosaic is mirrored. V4L2's
    /// `RGGB`.
    BayerRggb8,
    /// As [`PixelFormat::BayerRggb8`], with blue and green above green and red. V4L2's `BA81`.
    BayerBggr8,
    /// As [`PixelFormat::BayerRggb8`], with green and blue above red and green. V4L2's `GBRG`.
    BayerGbrg8,
    /// As [`PixelFormat::BayerRggb8`], with green and red above blue and green. V4L2's `GRBG`.
    BayerGrbg8,
}

impl PixelFormat {
    /// Every format.
    pub const ALL: [PixelFormat; 13] = [
        PixelFormat::Rgb8,
        PixelFormat::Bgr8,
        PixelFormat::Grey8,
        PixelFormat::Rgb565,
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Nv21,
        PixelFormat::I420,
        PixelFormat::BayerRggb8,
        PixelFormat::BayerBggr8,
        PixelFormat::BayerGbrg8,
        PixelFormat::BayerGrbg8,
    ];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            PixelFormat::Rgb8 => "rgb8",
            PixelFormat::Bgr8 => "bgr8",
            PixelFormat::Grey8 => "grey8",
            PixelFormat::Rgb565 => "rgb565",
            PixelFormat::Yuyv => "yuyv",
            PixelFormat::Uyvy => "uyvy",
            PixelFormat::Nv12 => "nv12",
            PixelFormat::Nv21 => "nv21",
            PixelFormat::I420 => "i420",
            PixelFormat::BayerRggb8 => "bayer-rggb8",
            PixelFormat::BayerBggr8 => "bayer-bggr8",
            PixelFormat::BayerGbrg8 => "bayer-gbrg8",
            PixelFormat::BayerGrbg8 => "bayer-grbg8",
        }
    }

    /// The format of that name; `gray8` is `grey8`.
    pub fn named(name: &str) -> Option<PixelFormat> {
        let name = if name == "gray8" { "grey8" } else { name };
        PixelFormat::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The names of all formats, for messages: `rgb8, bgr8, grey8, ...`.
    pub fn names() -> String {
        PixelFormat::ALL.map(PixelFormat::name).join(", ")
    }

    /// Channels of a frame that is an image as it lies, 3 (RGB) or 1 (grey); `None` of those that are converted.
    pub fn channels(self) -> Option<usize> {
        match self {
            PixelFormat::Rgb8 => Some(3),
            PixelFormat::Grey8 => Some(1),
            _ => None,
        }
    }

    /// Bytes of a frame of `width` x `height` pixels.
    ///
    /// # Errors
    /// For a frame without pixels, an odd side where the format has even ones, and more bytes than can be counted.
    pub fn frame_bytes(self, width: usize, height: usize) -> Result<usize> {
        check_shape(width, height, 3)?;
        let problem =
            |what: &str| Error::Image(format!("{self} frames of {width} x {height} pixels: {what}"));
        let is_odd = |side: usize| side % 2 == 1;
        match self.even_sides() {
            1 if is_odd(width) => return Err(problem("expected an even width")),
            2 if is_odd(width) || is_odd(height) => {
                return Err(problem("expected an even width and height"));
            }
            _ => {}
        }
        let bytes = width.checked_mul(height).and_then(|pixels| match self {
            PixelFormat::Rgb8 | PixelFormat::Bgr8 => pixels.checked_mul(3),
            PixelFormat::Rgb565 | PixelFormat::Yuyv | PixelFormat::Uyvy => pixels.checked_mul(2),
            PixelFormat::Nv12 | PixelFormat::Nv21 | PixelFormat::I420 => pixels.checked_add(pixels / 2),
            _ => Some(pixels),
        });
        bytes.ok_or_else(|| problem("more bytes than memory has"))
    }

    /// How many sides must be even: none, the width, or both.
    fn even_sides(self) -> usize {
        match self {
            PixelFormat::Rgb8 | PixelFormat::Bgr8 | PixelFormat::Grey8 | PixelFormat::Rgb565 => 0,
            PixelFormat::Yuyv | PixelFormat::Uyvy => 1,
            _ => 2,
        }
    }

    /// The pixels of a frame: of [`PixelFormat::Rgb8`] and [`PixelFormat::Grey8`] where they lie, of the others as RGB in
    /// `room`, whose memory is used again.
    ///
    /// # Errors
    /// For another number of bytes than [`PixelFormat::frame_bytes`], and where more pixels than [`Limits::max_pixels`] are
    /// to be converted.
    pub fn view<'a>(
        self,
        width: usize,
        height: usize,
        bytes: &'a [u8],
        limits: &Limits,
        room: &'a mut Vec<u8>,
    ) -> Result<View<'a>> {
        self.check(width, height, bytes)?;
        match self.channels() {
            Some(channels) => View::new(width, height, channels, width * channels, bytes),
            None => {
                self.convert([width, height], bytes, limits, room)?;
                View::new(width, height, 3, width * 3, room)
            }
        }
    }

    /// A frame as an RGB image.
    ///
    /// # Errors
    /// As [`PixelFormat::view`].
    pub fn to_rgb(self, width: usize, height: usize, bytes: &[u8], limits: &Limits) -> Result<Image> {
        self.check(width, height, bytes)?;
        let mut data = Vec::new();
        self.convert([width, height], bytes, limits, &mut data)?;
        Image::new(width, height, 3, data)
    }

    /// Refuses bytes that are no frame of that size.
    fn check(self, width: usize, height: usize, bytes: &[u8]) -> Result<()> {
        let (found, wanted) = (bytes.len(), self.frame_bytes(width, height)?);
        if found == wanted {
            return Ok(());
        }
        let frame = format!("a {self} frame of {width} x {height} pixels");
        Err(Error::Image(format!("{found} bytes for {frame}: expected {wanted}")))
    }

    /// Writes a frame that has been checked as RGB.
    fn convert(self, size: [usize; 2], bytes: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<()> {
        let [width, height] = size;
        check_pixels(width as u64, height as u64, limits)?;
        let length = width * height * 3;
        room(out, length).resize(length, 0);
        let pixels = out.as_chunks_mut().0;
        let (luma, chroma) = bytes.split_at(width * height);
        let in_turn = chroma.chunks_exact(width).map(|row| row.as_chunks().0.iter());
        let (us, vs) = chroma.split_at(chroma.len() / 2);
        match self {
            PixelFormat::Rgb8 => each(bytes, pixels, |rgb| [rgb]),
            PixelFormat::Bgr8 => each(bytes, pixels, |[b, g, r]| [[r, g, b]]),
            PixelFormat::Grey8 => each(bytes, pixels, |[grey]| [[grey; 3]]),
            PixelFormat::Rgb565 => each(bytes, pixels, |pixel| [rgb565(u16::from_le_bytes(pixel))]),
            PixelFormat::Yuyv => each(bytes, pixels, |[left, u, right, v]| pair([left, right], [u, v])),
            PixelFormat::Uyvy => each(bytes, pixels, |[u, left, v, right]| pair([left, right], [u, v])),
            PixelFormat::Nv12 => planes(width, luma, in_turn.map(|row| row.map(|&[u, v]| [u, v])), pixels),
            PixelFormat::Nv21 => planes(width, luma, in_turn.map(|row| row.map(|&[v, u]| [u, v])), pixels),
            PixelFormat::I420 => {
                let rows = us.chunks_exact(width / 2).zip(vs.chunks_exact(width / 2));
                let chroma = rows.map(|(us, vs)| us.iter().zip(vs).map(|(&u, &v)| [u, v]));
                planes(width, luma, chroma, pixels);
            }
            PixelFormat::BayerRggb8 => mosaic(size, bytes, [0, 0], pixels),
            PixelFormat::BayerBggr8 => mosaic(size, bytes, [1, 1], pixels),
            PixelFormat::BayerGbrg8 => mosaic(size, bytes, [0, 1], pixels),
            PixelFormat::BayerGrbg8 => mosaic(size, bytes, [1, 0], pixels),
        }
        Ok(())
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Red, green, blue.
type Rgb = [u8; 3];

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
    use proptest::prelude::*;

    use super::*;

    const YUV: [PixelFormat; 5] =
        [PixelFormat::Yuyv, PixelFormat::Uyvy, PixelFormat::Nv12, PixelFormat::Nv21, PixelFormat::I420];

    const BAYER: [(PixelFormat, &[u8; 4]); 4] = [
        (PixelFormat::BayerRggb8, b"RGGB"),
        (PixelFormat::BayerBggr8, b"BGGR"),
        (PixelFormat::BayerGbrg8, b"GBRG"),
        (PixelFormat::BayerGrbg8, b"GRBG"),
    ];

    fn rgb(format: PixelFormat, width: usize, height: usize, bytes: &[u8]) -> Vec<Rgb> {
        let image = format.to_rgb(width, height, bytes, &Limits::default()).unwrap();
        assert_eq!((image.width(), image.height(), image.channels()), (width, height, 3));
        image.data().as_chunks().0.to_vec()
    }

    fn message(result: Result<impl fmt::Debug>) -> String {
        result.unwrap_err().to_string()
    }

    /// Bytes without a pattern.
    fn noise(count: usize) -> Vec<u8> {
        (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn every_format_goes_by_its_name() {
        for format in PixelFormat::ALL {
            assert_eq!(PixelFormat::named(format.name()), Some(format));
        }
        assert_eq!(PixelFormat::named("gray8"), Some(PixelFormat::Grey8));
        for name in ["", "RGB8", "yuv", "rgb8 ", "bayer"] {
            assert_eq!(PixelFormat::named(name), None, "{name}");
        }
        assert!(PixelFormat::names().starts_with("rgb8, bgr8, grey8, "));
    }

    #[test]
    fn frames_have_exactly_their_bytes() {
        for (format, count) in PixelFormat::ALL.into_iter().zip([3, 3, 1, 2, 2, 2]) {
            assert_eq!(format.frame_bytes(6, 4).unwrap(), 24 * count, "{format}");
        }
        assert_eq!(PixelFormat::I420.frame_bytes(6, 4).unwrap(), 36);
        assert_eq!(PixelFormat::BayerGrbg8.frame_bytes(6, 4).unwrap(), 24);
        for format in PixelFormat::ALL {
            let bytes = noise(format.frame_bytes(6, 4).unwrap() + 1);
            let wanted = bytes.len() - 1;
            for length in [0, wanted - 1, wanted + 1] {
                let (bytes, limits) = (&bytes[..length], Limits::default());
                let error = message(format.view(6, 4, bytes, &limits, &mut Vec::new()));
                for words in [format!("{length} bytes"), format.to_string(), format!("expected {wanted}")] {
                    assert!(error.contains(&words), "{error}");
                }
                assert_eq!(message(format.to_rgb(6, 4, bytes, &limits)), error);
            }
        }
    }

    #[test]
    fn sides_that_a_format_cannot_have_are_refused() {
        for format in PixelFormat::ALL {
            for (width, height) in
                [(0, 4), (4, 0), (0, 0), (usize::MAX - 1, usize::MAX - 1), (usize::MAX - 1, 2)]
            {
                assert!(format.frame_bytes(width, height).is_err(), "{format} {width} {height}");
            }
            let odd = [(5, 4), (4, 5), (5, 5)].map(|(width, height)| format.frame_bytes(width, height));
            let wanted = match format {
                PixelFormat::Rgb8 | PixelFormat::Bgr8 | PixelFormat::Grey8 | PixelFormat::Rgb565 => [true; 3],
                PixelFormat::Yuyv | PixelFormat::Uyvy => [false, true, false],
                _ => [false; 3],
            };
            assert_eq!(odd.each_ref().map(Result::is_ok), wanted, "{format}");
        }
        let error = message(PixelFormat::Yuyv.frame_bytes(641, 480));
        assert_eq!(error, "image: yuyv frames of 641 x 480 pixels: expected an even width");
        let error = message(PixelFormat::Nv12.frame_bytes(640, 481));
        assert_eq!(error, "image: nv12 frames of 640 x 481 pixels: expected an even width and height");
    }

    #[test]
    fn rgb_and_grey_stay_where_they_lie() {
        let bytes = noise(36);
        for (format, width) in [(PixelFormat::Rgb8, 4), (PixelFormat::Grey8, 12)] {
            let (mut room, none) = (Vec::new(), Limits { max_pixels: 0, max_bytes: 0 });
            let view = format.view(width, 3, &bytes, &none, &mut room).unwrap();
            assert_eq!((view.data().as_ptr(), view.data().len()), (bytes.as_ptr(), 36));
            assert_eq!(view.channels(), format.channels().unwrap());
            assert_eq!(room.capacity(), 0);
        }
        assert_eq!(rgb(PixelFormat::Rgb8, 2, 1, &[1, 2, 3, 4, 5, 6]), [[1, 2, 3], [4, 5, 6]]);
        assert_eq!(rgb(PixelFormat::Bgr8, 2, 1, &[1, 2, 3, 4, 5, 6]), [[3, 2, 1], [6, 5, 4]]);
        assert_eq!(rgb(PixelFormat::Grey8, 1, 2, &[7, 200]), [[7; 3], [200; 3]]);
    }

    #[test]
    fn memory_is_used_again_and_bounded() {
        let mut room = Vec::new();
        for format in PixelFormat::ALL {
            for (width, height) in [(8, 6), (4, 2), (8, 6)] {
                let bytes = noise(format.frame_bytes(width, height).unwrap());
                let view = format.view(width, height, &bytes, &Limits::default(), &mut room).unwrap();
                let image = Image::new(width, height, view.channels(), view.data().to_vec()).unwrap();
                let wanted = format.to_rgb(width, height, &bytes, &Limits::default()).unwrap();
                assert_eq!(image.into_channels(3).unwrap(), wanted, "{format}");
            }
            assert!(room.capacity() <= 8 * 6 * 3);
            let tight = Limits { max_pixels: 47, ..Limits::default() };
            let bytes = noise(format.frame_bytes(8, 6).unwrap());
            let error = format.to_rgb(8, 6, &bytes, &tight).unwrap_err();
            assert!(matches!(error, Error::ImageTooLarge { width: 8, height: 6, limit: 47 }), "{error}");
            let view = format.view(8, 6, &bytes, &tight, &mut room);
            assert_eq!(view.is_ok(), format.channels().is_some());
        }
    }

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

    fn side() -> impl Strategy<Value = usize> {
        prop_oneof![8 => 0..40usize, 1 => any::<usize>(), 1 => Just(usize::MAX), 1 => Just(1 << (usize::BITS / 2))]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_frame_is_an_image_or_an_error(
            format in prop::sample::select(&PixelFormat::ALL[..]),
            (width, height) in (side(), side()),
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            is_whole in any::<bool>(),
        ) {
            let wanted = format.frame_bytes(width, height).ok();
            if let Some(wanted) = wanted.filter(|&wanted| is_whole && wanted <= 40 * 40 * 3) {
                bytes = bytes.iter().copied().chain([0]).cycle().take(wanted).collect();
            }
            let fits = wanted == Some(bytes.len());
            let mut room = vec![1; 10];
            let view = format.view(width, height, &bytes, &Limits::default(), &mut room);
            prop_assert_eq!(view.is_ok(), fits);
            if let Ok(view) = view {
                prop_assert_eq!((view.width(), view.height(), view.rows().count()), (width, height, height));
            }
            prop_assert_eq!(format.to_rgb(width, height, &bytes, &Limits::default()).is_ok(), fits);
        }
    }
}
