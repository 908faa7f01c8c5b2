//! Images, and frames of cameras.

use smalti_models::image::{self, Limits, PixelFormat};
use smalti_runtime::stream::{Event, Format, Splitter};

use crate::file;

/// An image file of any format, whole.
pub fn decode(bytes: &[u8]) -> Result<(), String> {
    match image::decode(bytes, &Limits::default()) {
        Ok(image) if image.data().len() != image.width() * image.height() * image.channels() => {
            Err(format!("{image:?} in {} bytes", image.data().len()))
        }
        // It was caught, but a decoder should not do that.
        Err(error) if error.to_string().contains("panicked") => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// An image file, decoded smaller where its format allows, for an input of the size in its first byte.
pub fn reduce(bytes: &[u8]) -> Result<(), String> {
    let [side, rest @ ..] = bytes else { return Ok(()) };
    let side = 1 + usize::from(*side);
    let short = |image: smalti_models::Image| image.width().min(image.height());
    if let Ok(reduced) = image::decode_for(rest, &Limits::default(), side).map(short) {
        let whole = image::decode(rest, &Limits::default()).map(short);
        // Never so small that the model would see less than it could.
        if whole.as_ref().is_ok_and(|whole| reduced >= side.min(*whole)) {
            return Ok(());
        }
        return Err(format!("{reduced} pixels for {side}, whole {whole:?}"));
    }
    Ok(())
}

/// Forms that our encoder does not write.
const FILES: [&str; 9] = [
    "images/cmyk.jpg",
    "images/progressive.jpg",
    "images/restarts.jpg",
    "images/exif-6.jpg",
    "images/palette.bmp",
    "images/rgb-lossy.webp",
    "images/exif-6.webp",
    "images/deep-alpha.png",
    "reduced/411.jpg",
];

pub fn seeds() -> Vec<Vec<u8>> {
    const WIDTH: u32 = 19;
    let pixel = |x: u32, y: u32| ::image::Rgb([(x * 13) as u8, (y * 17) as u8, (x * y) as u8]);
    let picture = ::image::DynamicImage::ImageRgb8(::image::RgbImage::from_fn(WIDTH, 11, pixel));
    let as_file = |picture: &::image::DynamicImage, format: ::image::ImageFormat| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("an image of that format");
        bytes.into_inner()
    };
    use ::image::ImageFormat::{Bmp, Jpeg, Png, WebP};
    let mut seeds: Vec<_> = [Png, Bmp, WebP, Jpeg].map(|format| as_file(&picture, format)).into();
    seeds.push(as_file(&picture.grayscale(), Jpeg));
    seeds.extend(FILES.map(|name| file(&format!("models/tests/golden/{name}"))));
    seeds
}

/// The seeds of [`reduce`]: for an input of four pixels.
pub fn sized_seeds() -> Vec<Vec<u8>> {
    seeds().into_iter().map(|bytes| [&[3][..], &bytes].concat()).collect()
}

/// An uncompressed frame; format and size stand in front of it.
pub fn raw_frame(bytes: &[u8]) -> Result<(), String> {
    let [format, width, height, rest @ ..] = bytes else { return Ok(()) };
    let format = PixelFormat::ALL[usize::from(*format) % PixelFormat::ALL.len()];
    _ = format.to_rgb((*width).into(), (*height).into(), rest, &Limits::default());
    Ok(())
}

pub fn raw_frames() -> Vec<Vec<u8>> {
    (0..PixelFormat::ALL.len() as u8).map(|format| [&[format, 6, 4][..], &[120; 96]].concat()).collect()
}

/// A stream of JPEGs, in pieces of the size in its first byte: frames of at most 64 KiB.
pub fn mjpeg(bytes: &[u8]) -> Result<(), String> {
    const LIMIT: usize = 1 << 16;
    let [piece, rest @ ..] = bytes else { return Ok(()) };
    let mut splitter = Splitter::new(Format::Mjpeg, LIMIT).map_err(|error| error.to_string())?;
    for mut piece in rest.chunks(1 + usize::from(*piece)) {
        while let Some(event) = splitter.push(&mut piece) {
            let frame = splitter.frame();
            if event == Event::Frame && (frame.len() > LIMIT || !frame.starts_with(&[0xff, 0xd8])) {
                return Err(format!("a frame of {} bytes", frame.len()));
            }
        }
    }
    Ok(())
}

pub fn streams() -> Vec<Vec<u8>> {
    let jpeg = seeds().into_iter().find(|bytes| bytes.starts_with(&[0xff, 0xd8])).expect("a JPEG");
    vec![[&[16][..], &jpeg, b"between", &jpeg, &jpeg[..jpeg.len() / 2], &jpeg].concat()]
}
