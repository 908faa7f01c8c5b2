//! Formats that are not read, by their names and by their first bytes, so that messages can say what a file is.

use std::path::Path;

/// Extensions of images and videos that are not read.
const NAMES: [(&str, &[&str]); 16] = [
    ("HEIC", &["heic", "heif", "hif", "heics"]),
    ("AVIF", &["avif", "avifs"]),
    ("TIFF", &["tif", "tiff"]),
    ("GIF", &["gif"]),
    (
        "camera raw",
        &[
            "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "dng", "raf", "orf", "rw2", "pef", "srw",
            "3fr", "iiq", "x3f", "raw", "rwl", "kdc", "dcr", "erf", "mrw", "mos", "mef",
        ],
    ),
    ("PDF", &["pdf"]),
    ("SVG", &["svg", "svgz"]),
    ("JPEG XL", &["jxl"]),
    ("JPEG 2000", &["jp2", "j2k", "jpf", "jpx", "jpm", "j2c"]),
    ("Photoshop", &["psd", "psb"]),
    ("Netpbm", &["ppm", "pgm", "pbm", "pnm", "pam"]),
    ("TGA", &["tga"]),
    ("OpenEXR", &["exr"]),
    ("DICOM", &["dcm", "dicom"]),
    ("icon", &["ico", "icns"]),
    ("video", &["mp4", "mov", "avi", "mkv", "webm", "m4v", "mpg", "mpeg", "3gp", "mts"]),
];

/// The format that the extension of an image or video stands for, if it is none of those that are read.
pub fn foreign_name(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    let known = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(extension));
    NAMES.iter().find(|(_, names)| known(names)).map(|(format, _)| *format)
}

/// What a file that is none of the formats that are read is by its first bytes, and what to do about it.
#[cfg(feature = "decode")]
pub(super) fn foreign_content(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    if let Some(what) = iso_media(bytes).or_else(|| by_signature(bytes)) {
        return Some((what, "convert it to JPEG or PNG"));
    }
    let text = text_start(bytes);
    let begins = |with: &str| text.starts_with(with);
    if begins("<svg") || (begins("<?xml") && text.contains("<svg")) {
        return Some(("an SVG drawing", "convert it to PNG"));
    }
    if begins("<!doctype html") || begins("<html") || begins("<head") {
        return Some(("a web page (HTML)", "download the image again"));
    }
    if begins("version https://git-lfs") {
        return Some(("a Git LFS pointer", "fetch the image with `git lfs pull`"));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x1f, 0x8b]) {
        return Some(("a compressed archive", "unpack it"));
    }
    None
}

/// The formats in boxes of ISO media files, by their brands: HEIC, AVIF, CR3, videos.
#[cfg(feature = "decode")]
fn iso_media(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8)? != b"ftyp" {
        return None;
    }
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let brands = bytes.get(8..length.min(bytes.len())).unwrap_or_default();
    let has = |wanted: &[&[u8; 4]]| brands.chunks_exact(4).any(|brand| wanted.iter().any(|w| *w == brand));
    // AVIF names HEIF's common brand too.
    Some(if has(&[b"avif", b"avis", b"avio"]) {
        "an AVIF image"
    } else if has(&[b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"mif2"]) {
        "a HEIC image"
    } else if has(&[b"crx "]) {
        "a camera raw file (CR3)"
    } else {
        "a video"
    })
}

#[cfg(feature = "decode")]
fn by_signature(bytes: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&str, &[u8]); 26] = [
        ("a camera raw file (CR2)", b"II*\0\x10\0\0\0CR"),
        ("a TIFF image or camera raw file", b"II*\0"),
        ("a TIFF image or camera raw file", b"MM\0*"),
        ("a TIFF image", b"II+\0"),
        ("a TIFF image", b"MM\0+"),
        ("a camera raw file (RAF)", b"FUJIFILMCCD-RAW"),
        ("a camera raw file (ORF)", b"IIRO"),
        ("a camera raw file (ORF)", b"IIRS"),
        ("a camera raw file (ORF)", b"MMOR"),
        ("a camera raw file (RW2)", b"IIU\0"),
        ("a camera raw file (X3F)", b"FOVb"),
        ("a camera raw file (CRW)", b"II\x1a\0\0\0HEAPCCDR"),
        ("a GIF image", b"GIF8"),
        ("a PDF document", b"%PDF-"),
        ("a JPEG XL image", b"\xff\x0a"),
        ("a JPEG XL image", b"\0\0\0\x0cJXL "),
        ("a JPEG 2000 image", b"\0\0\0\x0cjP  "),
        ("a JPEG 2000 image", b"\xff\x4f\xff\x51"),
        ("a Photoshop file", b"8BPS"),
        ("an OpenEXR image", b"\x76\x2f\x31\x01"),
        ("a Radiance HDR image", b"#?RADIANCE"),
        ("a DDS texture", b"DDS "),
        ("a QOI image", b"qoif"),
        ("an icon", b"\0\0\x01\0"),
        ("a video", b"\x1a\x45\xdf\xa3"),
        ("a farbfeld image", b"farbfeld"),
    ];
    if let Some((what, _)) = SIGNATURES.iter().find(|(_, start)| bytes.starts_with(start)) {
        return Some(what);
    }
    match bytes {
        [b'P', b'1'..=b'7', b' ' | b'\t' | b'\n' | b'\r' | b'#', ..] => Some("a Netpbm image"),
        _ if bytes.get(128..132) == Some(b"DICM") => Some("a DICOM file"),
        _ if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"AVI ") => Some("a video"),
        _ => None,
    }
}

/// The start of a text in lower case, without a byte order mark and blanks in front.
#[cfg(feature = "decode")]
fn text_start(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(1024)).unwrap_or_default());
    text.trim_start().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_formats() {
        for (name, format) in [
            ("a.HEIC", Some("HEIC")),
            ("b/c.tif", Some("TIFF")),
            ("IMG_1.CR2", Some("camera raw")),
            ("x.svg", Some("SVG")),
            ("clip.MOV", Some("video")),
            ("a.jpg", None),
            ("notes.txt", None),
            ("heic", None),
        ] {
            assert_eq!(foreign_name(Path::new(name)), format, "{name}");
        }
    }

    #[cfg(feature = "decode")]
    #[test]
    fn contents_tell_formats() {
        let boxed = |brands: &[u8]| {
            let mut bytes = (16 + brands.len() as u32 - 4).to_be_bytes().to_vec();
            bytes.extend(b"ftyp");
            bytes.extend(&brands[..4]);
            bytes.extend([0; 4]);
            bytes.extend(&brands[4..]);
            bytes.extend([7; 100]);
            bytes
        };
        for (bytes, format) in [
            (boxed(b"heicmif1heic"), "a HEIC image"),
            (boxed(b"mif1mif1heic"), "a HEIC image"),
            (boxed(b"msf1"), "a HEIC image"),
            (boxed(b"avifmif1miaf"), "an AVIF image"),
            (boxed(b"mif1avif"), "an AVIF image"),
            (boxed(b"crx isom"), "a camera raw file (CR3)"),
            (boxed(b"isommp42"), "a video"),
            (b"II*\0\x08\0\0\0".to_vec(), "a TIFF image or camera raw file"),
            (b"MM\0*\0\0\0\x08".to_vec(), "a TIFF image or camera raw file"),
            (b"II*\0\x10\0\0\0CR\x02".to_vec(), "a camera raw file (CR2)"),
            (b"FUJIFILMCCD-RAW 0201".to_vec(), "a camera raw file (RAF)"),
            (b"GIF89a".to_vec(), "a GIF image"),
            (b"%PDF-1.7".to_vec(), "a PDF document"),
            (b"<?xml version='1.0'?>\n<svg xmlns=''>".to_vec(), "an SVG drawing"),
            (b"\xef\xbb\xbf <svg>".to_vec(), "an SVG drawing"),
            (b"\n<!DOCTYPE html><html>".to_vec(), "a web page (HTML)"),
            (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "a Git LFS pointer"),
            (b"P6\n4 4\n255\n".to_vec(), "a Netpbm image"),
            (b"PK\x03\x04".to_vec(), "a compressed archive"),
        ] {
            assert_eq!(foreign_content(&bytes).map(|found| found.0), Some(format), "{bytes:?}");
        }
        for bytes in
            [&b""[..], b"\0", b"\xff\xd8\xff", b"just text", b"\0\0\0\x04ftyp", b"\0\0\0\0ftyp", b"P7x"]
        {
            let found = foreign_content(bytes).map(|found| found.0);
            assert!(found.is_none() || found == Some("a video"), "{bytes:?}: {found:?}");
        }
    }
}
