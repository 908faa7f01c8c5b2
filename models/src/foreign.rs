//! Files that are none of those that are read, by their names and by their first bytes, so that messages can say what a file
//! is and what to do about it.

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

/// What a file should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A JPEG, PNG, WebP or BMP image.
    Image,
    /// An ONNX file.
    Model,
    /// A safetensors file.
    Weights,
}

/// What a file is by its first bytes (a thousand will do), if it is known and not what was wanted; and what to do about it.
pub fn recognize(bytes: &[u8], wanted: Wanted) -> Option<(&'static str, &'static str)> {
    if bytes.is_empty() {
        return Some(("empty", "copy or download it again"));
    }
    if let Some(found) = by_text(bytes) {
        return Some(match (found, wanted) {
            ("an SVG drawing", Wanted::Image) => (found, "convert it to PNG"),
            ("a Git LFS pointer", _) => (found, "fetch the file itself with `git lfs pull`"),
            ("a web page (HTML)", _) => (found, "download the file itself"),
            _ => (found, instead(wanted)),
        });
    }
    if let Some(found) = of_networks(bytes) {
        let remedy = match (found, wanted) {
            (ONNX, Wanted::Model) | (SAFETENSORS, Wanted::Weights) => return None,
            (_, Wanted::Image) => instead(wanted),
            (SAFETENSORS, _) => "make a model of it: `smalti import FILE -o RUN`, then `smalti export RUN`",
            (ONNX, _) => "`smalti-run` runs it, and --teacher learns from it",
            (PYTORCH, Wanted::Model) => "export the network to ONNX with torch.onnx.export",
            (PYTORCH, _) => "save its state dict with safetensors.torch.save_file",
            (_, Wanted::Model) => "export the network to ONNX",
            (_, Wanted::Weights) => "save the weights as safetensors",
        };
        return Some((found, remedy));
    }
    if wanted == Wanted::Image {
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x1f, 0x8b]) {
            return Some(("a compressed archive", "unpack it"));
        }
        return iso_media(bytes)
            .or_else(|| by_signature(bytes))
            .map(|what| (what, "convert it to JPEG or PNG"));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return recognize(&[0x80, 2], wanted)
            .map(|(_, remedy)| ("a zip archive, as PyTorch's files are", remedy));
    }
    let is_image =
        [&b"\xff\xd8\xff"[..], b"\x89PNG", b"BM", b"RIFF"].iter().any(|start| bytes.starts_with(start));
    (is_image || iso_media(bytes).or_else(|| by_signature(bytes)).is_some())
        .then(|| ("an image", instead(wanted)))
}

/// What to name in place of a file of quite another kind.
fn instead(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Image => "name an image here",
        Wanted::Model => "name the model file (.onnx) here",
        Wanted::Weights => "name a safetensors file here",
    }
}

const ONNX: &str = "an ONNX model";
const SAFETENSORS: &str = "a file of weights (safetensors)";
const PYTORCH: &str = "a PyTorch file (pickle)";

/// Files of networks, by how they begin.
fn of_networks(bytes: &[u8]) -> Option<&'static str> {
    // ONNX begins with its version and, as a rule, who wrote it.
    match bytes {
        [0x08, 1..=20, 0x12 | 0x3a | 0x42, ..] => Some(ONNX),
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => Some(SAFETENSORS),
        [0x80, 2..=5, ..] => Some(PYTORCH),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some("a TensorFlow Lite model"),
        [0x89, b'H', b'D', b'F', ..] => Some("an HDF5 file, as Keras writes them"),
        [b'G', b'G', b'U', b'F', ..] => Some("a GGUF model"),
        _ => None,
    }
}

/// Texts, by how they begin.
fn by_text(bytes: &[u8]) -> Option<&'static str> {
    let text = text_start(bytes);
    let begins = |with: &str| text.starts_with(with);
    if begins("<svg") || (begins("<?xml") && text.contains("<svg")) {
        return Some("an SVG drawing");
    }
    if begins("<!doctype html") || begins("<html") || begins("<head") {
        return Some("a web page (HTML)");
    }
    begins("version https://git-lfs").then_some("a Git LFS pointer")
}

/// The formats in boxes of ISO media files, by their brands: HEIC, AVIF, CR3, videos.
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
            assert_eq!(recognize(&bytes, Wanted::Image).map(|found| found.0), Some(format), "{bytes:?}");
        }
        for bytes in [&b"\0"[..], b"\xff\xd8\xff", b"just text", b"\0\0\0\x04ftyp", b"\0\0\0\0ftyp", b"P7x"] {
            let found = recognize(bytes, Wanted::Image).map(|found| found.0);
            assert!(found.is_none() || found == Some("a video"), "{bytes:?}: {found:?}");
        }
    }

    #[test]
    fn each_use_has_its_remedy() {
        let said = |bytes: &[u8], wanted| {
            recognize(bytes, wanted).map_or(String::new(), |(what, remedy)| format!("{what}; {remedy}"))
        };
        let (onnx, weights) = (&b"\x08\x08\x12\x06smalti"[..], &b"\x40\0\0\0\0\0\0\0{\"a\""[..]);
        for (bytes, wanted, what, remedy) in [
            (onnx, Wanted::Image, "an ONNX model", "an image here"),
            (onnx, Wanted::Weights, "an ONNX model", "smalti-run"),
            (weights, Wanted::Model, "safetensors", "smalti import"),
            (b"\x80\x02}q", Wanted::Model, "PyTorch", "torch.onnx.export"),
            (b"\x80\x02}q", Wanted::Weights, "PyTorch", "save_file"),
            (b"PK\x03\x04..", Wanted::Model, "zip", "torch.onnx.export"),
            (b"PK\x03\x04..", Wanted::Weights, "zip", "save_file"),
            (b"\x1c\0\0\0TFL3", Wanted::Model, "TensorFlow Lite", "to ONNX"),
            (b"\x89HDF\r\n", Wanted::Weights, "HDF5", "as safetensors"),
            (b"\xff\xd8\xff\xe0", Wanted::Model, "an image", ".onnx"),
            (b"GIF89a", Wanted::Model, "an image", ".onnx"),
            (b"<!doctype html>", Wanted::Model, "web page", "download"),
            (b"version https://git-lfs", Wanted::Model, "LFS", "git lfs pull"),
            (b"", Wanted::Model, "empty", "again"),
        ] {
            let said = said(bytes, wanted);
            assert!(said.contains(what) && said.contains(remedy), "{bytes:?}, {wanted:?}: {said}");
        }
        assert_eq!(said(onnx, Wanted::Model) + &said(weights, Wanted::Weights), "");
    }
}
