//! Frames as cameras give them: how many bytes they have, and what pixels these are.

use std::fmt;

mod rgb;

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
        rgb::write(self, size, bytes, out.as_chunks_mut().0);
        Ok(())
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn rgb(format: PixelFormat, width: usize, height: usize, bytes: &[u8]) -> Vec<[u8; 3]> {
        let image = format.to_rgb(width, height, bytes, &Limits::default()).unwrap();
        assert_eq!((image.width(), image.height(), image.channels()), (width, height, 3));
        image.data().as_chunks().0.to_vec()
    }

    fn message(result: Result<impl fmt::Debug>) -> String {
        result.unwrap_err().to_string()
    }

    /// Bytes without a pattern.
    pub(super) fn noise(count: usize) -> Vec<u8> {
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
