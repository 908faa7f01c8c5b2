//! How a camera was held: the orientation in a file's EXIF or, where that says nothing, in its XMP.
//!
//! Both are looked for in the whole file: writers put them behind the pixels of a PNG, and some as numbers of another type
//! than the standard asks for.

use image::ImageFormat;
use image::metadata::Orientation;

use super::jpeg::Segment;
use super::webp;

/// The tag of EXIF's orientation.
const TAG: u16 = 0x0112;
/// JPEG's introduction of EXIF, which some writers keep in other formats.
const EXIF: &[u8] = b"Exif\0\0";
/// JPEG's introduction of XMP.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// What was found so far: of EXIF, and of XMP.
#[derive(Default)]
struct Found([Option<u8>; 2]);

impl Found {
    fn exif(&mut self, tiff: &[u8]) {
        self.0[0] = self.0[0].or_else(|| of_exif(tiff));
    }

    fn xmp(&mut self, text: &[u8]) {
        self.0[1] = self.0[1].or_else(|| of_xmp(text));
    }

    fn orientation(self) -> Orientation {
        let [exif, xmp] = self.0;
        exif.or(xmp).and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
    }
}

/// What a JPEG says; damaged metadata says nothing about the pixels.
pub(super) fn jpeg_orientation(segments: &[Segment<'_>]) -> Orientation {
    let mut found = Found::default();
    for segment in segments.iter().filter(|segment| segment.marker == 0xe1) {
        if let Some(tiff) = segment.body.strip_prefix(EXIF) {
            found.exif(tiff);
        } else if let Some(text) = segment.body.strip_prefix(XMP) {
            found.xmp(text);
        }
    }
    found.orientation()
}

/// What a PNG or a WebP says.
pub(super) fn orientation(format: ImageFormat, bytes: &[u8]) -> Orientation {
    let mut found = Found::default();
    match format {
        ImageFormat::Png => {
            for (kind, data) in png_chunks(bytes) {
                match kind {
                    b"eXIf" => found.exif(data),
                    b"iTXt" if data.starts_with(b"XML:com.adobe.xmp\0") => found.xmp(data),
                    _ => {}
                }
            }
        }
        ImageFormat::WebP => {
            for (kind, data) in webp::chunks(bytes) {
                match kind {
                    b"EXIF" => found.exif(data),
                    b"XMP " => found.xmp(data),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    found.orientation()
}

/// The orientation in a TIFF structure, of whatever integer type.
fn of_exif(bytes: &[u8]) -> Option<u8> {
    let bytes = bytes.strip_prefix(EXIF).unwrap_or(bytes);
    let is_big = match bytes.get(..4)? {
        b"II\x2a\0" => false,
        b"MM\0\x2a" => true,
        _ => return None,
    };
    let short = |at: usize| {
        let two = *bytes.get(at..)?.first_chunk()?;
        Some(if is_big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
    };
    let long = |at: usize| {
        let four = *bytes.get(at..)?.first_chunk()?;
        Some(if is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries).map(|i| directory + 2 + 12 * i).find(|&at| short(at) == Some(TAG))?;
    let value = match short(entry + 2)? {
        1 => u32::from(*bytes.get(entry + 8)?),
        3 => u32::from(short(entry + 8)?),
        4 | 9 => long(entry + 8)?,
        _ => return None,
    };
    u8::try_from(value).ok().filter(|value| (1..=8).contains(value))
}

/// The orientation in XMP: an attribute `tiff:Orientation="6"` or an element `<tiff:Orientation>6<`.
fn of_xmp(text: &[u8]) -> Option<u8> {
    let name = b"tiff:Orientation";
    let at = text.windows(name.len()).position(|window| window == name)?;
    let value = text.get(at + name.len()..)?;
    let value = value.strip_prefix(b"=\"").or(value.strip_prefix(b"='")).or(value.strip_prefix(b">"))?;
    value.first().map(|digit| digit.wrapping_sub(b'0')).filter(|value| (1..=8).contains(value))
}

/// Kinds and contents of a PNG's chunks, up to one that does not lie in the file.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let chunk = (rest.get(4..8)?, rest.get(8..)?.get(..length)?);
        rest = rest.get(length + 12..).unwrap_or_default();
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::super::jpeg::segments;
    use super::*;

    /// A TIFF structure whose first entry is another one.
    fn tiff(is_big: bool, kind: u16, value: u32) -> Vec<u8> {
        let short = |x: u16| if is_big { x.to_be_bytes() } else { x.to_le_bytes() };
        let long = |x: u32| if is_big { x.to_be_bytes() } else { x.to_le_bytes() };
        let mut bytes = if is_big { b"MM\0\x2a".to_vec() } else { b"II\x2a\0".to_vec() };
        bytes.extend(long(8));
        bytes.extend(short(2));
        for (tag, kind, value) in [(0x0100, 3, 77), (TAG, kind, value)] {
            bytes.extend([&short(tag)[..], &short(kind), &long(1)].concat());
            bytes.extend(match kind {
                1 => [value as u8, 0, 0, 0],
                3 => [short(value as u16), [0; 2]].concat().try_into().unwrap(),
                _ => long(value),
            });
        }
        bytes
    }

    #[test]
    fn exif_of_any_integer_type_is_read() {
        for is_big in [false, true] {
            for kind in [1, 3, 4, 9] {
                assert_eq!(of_exif(&tiff(is_big, kind, 6)), Some(6), "{is_big} {kind}");
            }
            for (kind, value) in [(2, 6), (3, 0), (3, 9), (4, 0x0106)] {
                assert_eq!(of_exif(&tiff(is_big, kind, value)), None, "{kind} {value}");
            }
        }
        let whole = tiff(false, 4, 8);
        assert_eq!(of_exif(&[EXIF, &whole].concat()), Some(8));
        for length in 0..whole.len() {
            assert_eq!(of_exif(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn xmp_counts_where_exif_says_nothing() {
        assert_eq!(of_xmp(b"<rdf tiff:Orientation=\"6\" x='1'>"), Some(6));
        assert_eq!(of_xmp(b"<tiff:Orientation>8</tiff:Orientation>"), Some(8));
        assert_eq!(of_xmp(b"tiff:Orientation"), None);
        assert_eq!(of_xmp(b"tiff:Orientation=\"0\""), None);
        let segment =
            |body: &[u8]| [&[0xff, 0xe1][..], &(body.len() as u16 + 2).to_be_bytes(), body].concat();
        let xmp = segment(&[XMP, b"tiff:Orientation=\"3\""].concat());
        let exif = |value| segment(&[EXIF, &tiff(false, 3, value)].concat());
        for (parts, expected) in [
            (vec![xmp.clone()], Orientation::Rotate180),
            (vec![xmp.clone(), exif(6)], Orientation::Rotate90),
            (vec![exif(0), xmp], Orientation::Rotate180),
            (vec![], Orientation::NoTransforms),
        ] {
            let bytes = [&[0xff, 0xd8][..], &parts.concat(), &[0xff, 0xd9]].concat();
            assert_eq!(jpeg_orientation(&segments(&bytes).unwrap()), expected);
        }
    }

    #[test]
    fn a_png_s_exif_may_follow_its_pixels() {
        let chunk =
            |kind: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes()[..], kind, data, &[0; 4]].concat();
        let bytes =
            [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IDAT", b"pixels"), chunk(b"eXIf", &tiff(true, 3, 8))];
        let bytes = [bytes.concat(), chunk(b"IEND", b"")].concat();
        assert_eq!(orientation(ImageFormat::Png, &bytes), Orientation::Rotate270);
        for length in 0..bytes.len() {
            orientation(ImageFormat::Png, &bytes[..length]);
        }
    }
}
