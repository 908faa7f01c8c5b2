//! The entries from Rust: what they give, what they allocate, how much memory they say they take.

use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::ptr::{null, null_mut};

use smalti::codes::*;
use smalti::model::*;
use smalti::session::*;
use smalti::status::*;
use smalti_runtime::models::image::PixelFormat;
use smalti_runtime::{Model, images};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

fn open(name: &str) -> *mut smalti_model {
    let path = CString::new(path(name).to_str().unwrap()).unwrap();
    let mut model = null_mut();
    // SAFETY: text, null and room for a pointer.
    assert_eq!(unsafe { smalti_open(path.as_ptr(), null(), &mut model) }, SMALTI_OK, "{}", message());
    model
}

fn session(model: *const smalti_model, threads: usize) -> *mut smalti_session {
    let mut session = null_mut();
    // SAFETY: room for a pointer.
    assert_eq!(unsafe { smalti_session_new(model, threads, &mut session) }, SMALTI_OK);
    session
}

fn run_pixels(session: *mut smalti_session, pixels: &[u8], [width, height, channels]: [usize; 3]) -> i32 {
    // SAFETY: a slice's pointer and length.
    unsafe { smalti_run_pixels(session, pixels.as_ptr(), pixels.len(), width, height, channels, 0) }
}

fn run_frame(session: *mut smalti_session, frame: &[u8], format: i32, [width, height]: [usize; 2]) -> i32 {
    // SAFETY: a slice's pointer and length.
    unsafe { smalti_run_frame(session, frame.as_ptr(), frame.len(), format, width, height) }
}

fn run_u8(session: *mut smalti_session, values: &[u8]) -> i32 {
    // SAFETY: a slice's pointer and length.
    unsafe { smalti_run_u8(session, values.as_ptr(), values.len()) }
}

fn run_f32(session: *mut smalti_session, values: &[f32]) -> i32 {
    // SAFETY: a slice's pointer and length.
    unsafe { smalti_run_f32(session, values.as_ptr(), values.len()) }
}

fn message() -> String {
    // SAFETY: text with a zero at its end.
    unsafe { CStr::from_ptr(smalti_last_error()) }.to_string_lossy().into_owned()
}

fn info(model: *const smalti_model) -> smalti_input {
    let size = size_of::<smalti_input>();
    let mut info = smalti_input { size, width: 0, height: 0, channels: 0, form: 0, prepares: 0 };
    // SAFETY: room for what its size says.
    assert_eq!(unsafe { smalti_input_info(model, &mut info) }, SMALTI_OK);
    info
}

fn bound(model: *const smalti_model, threads: usize, [width, height, channels]: [usize; 3]) -> usize {
    let mut bytes = 0;
    // SAFETY: room for a number.
    let code = unsafe { smalti_memory_bound(model, threads, width, height, channels, &mut bytes) };
    assert_eq!(code, SMALTI_OK, "{}", message());
    bytes
}

#[test]
fn answers_are_the_librarys() {
    let image = images::open(path("red.png")).unwrap();
    let wanted = Model::open(path("colours_u8.onnx")).unwrap().session().unwrap().classify(&image).unwrap();
    let model = open("colours_u8.onnx");
    let (mut classes, mut width) = (0, 0);
    // SAFETY: room for numbers.
    unsafe {
        assert_eq!(smalti_class_count(model, &mut classes), SMALTI_OK);
        assert_eq!(smalti_embedding_length(model, &mut width), SMALTI_OK);
    }
    assert_eq!(classes, wanted.ranked.len());
    for threads in [0, 1, 2] {
        let session = session(model, threads);
        let shape = [image.width(), image.height(), image.channels()];
        assert_eq!(run_pixels(session, image.data(), shape), SMALTI_OK, "{}", message());
        let (mut logits, mut embedding) = (vec![0f32; classes], vec![0f32; width]);
        let mut ranked = vec![smalti_ranked { index: 9, probability: 0.0, label: null() }; classes];
        // SAFETY: slices' pointers and lengths.
        unsafe {
            assert_eq!(smalti_logits(session, logits.as_mut_ptr(), classes), SMALTI_OK);
            assert_eq!(smalti_top_k(session, ranked.as_mut_ptr(), classes), SMALTI_OK);
            let expected = if width > 0 { SMALTI_OK } else { SMALTI_USAGE };
            assert_eq!(smalti_embedding(session, embedding.as_mut_ptr(), width), expected);
        }
        assert_eq!(logits, wanted.output.logits);
        assert_eq!(embedding, wanted.output.embedding.clone().unwrap_or_default());
        for (found, wanted) in ranked.iter().zip(&wanted.ranked) {
            // SAFETY: a label of an open model.
            let label = unsafe { CStr::from_ptr(found.label) }.to_str().unwrap();
            assert_eq!((label, found.index), (wanted.label.as_str(), wanted.index));
            assert_eq!(found.probability, wanted.probability);
        }
        assert_eq!(smalti_session_free(session), SMALTI_OK);
    }
    assert_eq!(smalti_selftest(model), SMALTI_OK, "{}", message());
    assert_eq!(smalti_close(model), SMALTI_OK);
}

/// The formats of frames with their numbers.
const FORMATS: [(i32, PixelFormat); 13] = [
    (SMALTI_RGB8, PixelFormat::Rgb8),
    (SMALTI_BGR8, PixelFormat::Bgr8),
    (SMALTI_GREY8, PixelFormat::Grey8),
    (SMALTI_RGB565, PixelFormat::Rgb565),
    (SMALTI_YUYV, PixelFormat::Yuyv),
    (SMALTI_UYVY, PixelFormat::Uyvy),
    (SMALTI_NV12, PixelFormat::Nv12),
    (SMALTI_NV21, PixelFormat::Nv21),
    (SMALTI_I420, PixelFormat::I420),
    (SMALTI_BAYER_RGGB8, PixelFormat::BayerRggb8),
    (SMALTI_BAYER_BGGR8, PixelFormat::BayerBggr8),
    (SMALTI_BAYER_GBRG8, PixelFormat::BayerGbrg8),
    (SMALTI_BAYER_GRBG8, PixelFormat::BayerGrbg8),
];

/// A frame's bytes, without a pattern.
fn frame(format: PixelFormat, [width, height]: [usize; 2]) -> Vec<u8> {
    let length = format.frame_bytes(width, height).unwrap() as u32;
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn frames_are_answered_as_their_pixels() {
    let (model, size) = (open("colours_u8.onnx"), [12, 10]);
    let (session, mut logits, mut wanted) = (session(model, 1), [0f32; 3], [0f32; 3]);
    assert_eq!(FORMATS.map(|(_, format)| format), PixelFormat::ALL);
    for (number, format) in FORMATS {
        let frame = frame(format, size);
        let rgb = format.to_rgb(12, 10, &frame, &Default::default()).unwrap();
        assert_eq!(run_pixels(session, rgb.data(), [12, 10, 3]), SMALTI_OK);
        // SAFETY: arrays' pointers and lengths.
        assert_eq!(unsafe { smalti_logits(session, wanted.as_mut_ptr(), 3) }, SMALTI_OK);
        assert_eq!(run_frame(session, &frame, number, size), SMALTI_OK, "{}", message());
        // SAFETY: arrays' pointers and lengths.
        assert_eq!(unsafe { smalti_logits(session, logits.as_mut_ptr(), 3) }, SMALTI_OK);
        assert_eq!(logits, wanted, "{format}");
        assert_eq!(run_frame(session, &frame[1..], number, size), SMALTI_DATA);
        assert!(message().contains(format.name()), "{}", message());
    }
    smalti_session_free(session);
    smalti_close(model);
}

#[test]
fn runs_allocate_nothing() {
    for name in ["colours_u8.onnx", "colours_f32.onnx", "colours_qdq.onnx"] {
        let model = open(name);
        let info = info(model);
        let session = session(model, 1);
        let values = info.width * info.height * info.channels;
        let (bytes, floats) = (vec![90u8; values], vec![0.25f32; values]);
        let (mut logits, mut ranked) =
            ([0f32; 3], [smalti_ranked { index: 0, probability: 0.0, label: null() }; 3]);
        // The very first run too.
        let ready = allocation_counter::measure(|| {
            for _ in 0..100 {
                match info.form {
                    SMALTI_U8_NHWC => assert_eq!(run_u8(session, &bytes), SMALTI_OK),
                    _ => assert_eq!(run_f32(session, &floats), SMALTI_OK),
                }
                // SAFETY: arrays' pointers and lengths.
                unsafe {
                    assert_eq!(smalti_logits(session, logits.as_mut_ptr(), 3), SMALTI_OK);
                    assert_eq!(smalti_top_k(session, ranked.as_mut_ptr(), 3), SMALTI_OK);
                }
            }
        });
        assert_eq!(ready.count_total, 0, "{name}");
        if info.prepares == 1 {
            let pixels = vec![7; 640 * 480 * 3];
            assert_eq!(run_pixels(session, &pixels, [640, 480, 3]), SMALTI_OK);
            let resized = allocation_counter::measure(|| {
                for _ in 0..3 {
                    assert_eq!(run_pixels(session, &pixels, [640, 480, 3]), SMALTI_OK);
                    assert_eq!(run_u8(session, &bytes), SMALTI_OK);
                }
            });
            assert_eq!(resized.count_total, 0, "{name}");
            for (number, format) in FORMATS {
                let frame = frame(format, [640, 480]);
                assert_eq!(run_frame(session, &frame, number, [640, 480]), SMALTI_OK);
                let again = allocation_counter::measure(|| {
                    assert_eq!(run_frame(session, &frame, number, [640, 480]), SMALTI_OK);
                });
                assert_eq!(again.count_total, 0, "{name} {format}");
            }
        }
        smalti_session_free(session);
        smalti_close(model);
    }
}

/// The heap's peak while a model is opened and run, on one thread, and what was promised.
fn peak_and_bound(name: &str, image: [usize; 3]) -> (u64, u64) {
    let pixels = vec![100; image.iter().product()];
    let mut promised = 0;
    let info = allocation_counter::measure(|| {
        let model = open(name);
        promised = bound(model, 1, image);
        let (info, session) = (info(model), session(model, 1));
        let values = info.width * info.height * info.channels;
        let code = match (image, info.form) {
            ([0, 0, 0], SMALTI_F32_NCHW) => {
                let input = vec![0.5; values]; // the caller's
                run_f32(session, &input)
            }
            ([0, 0, 0], _) => run_u8(session, &vec![5; values]),
            _ => run_pixels(session, &pixels, image),
        };
        assert_eq!(code, SMALTI_OK, "{name}: {}", message());
        smalti_session_free(session);
        smalti_close(model);
    });
    (info.bytes_max, promised as u64)
}

#[test]
fn the_memory_bound_holds_and_is_close() {
    for name in
        ["colours_u8.onnx", "colours_f32.onnx", "colours_qdq.onnx", "timm_vit.onnx", "timm_vit_dynamo.onnx"]
    {
        for image in [[0, 0, 0], [640, 480, 3], [1920, 1080, 1]] {
            let foreign = name.starts_with("timm") || name.contains("qdq");
            if foreign && image != [0; 3] {
                continue;
            }
            let (peak, bound) = peak_and_bound(name, image);
            println!("{name} {image:?}: peak {peak}, bound {bound}, {:.2}", bound as f64 / peak as f64);
            assert!(peak <= bound, "{name} {image:?}: peak {peak}, bound {bound}");
            assert!(bound as f64 <= 1.5 * peak as f64, "{name} {image:?}: peak {peak}, bound {bound}");
        }
    }
}

#[test]
fn frames_take_three_bytes_a_pixel_besides() {
    let (size, pixels) = ([640, 480], 640 * 480);
    for (number, format) in FORMATS {
        let (frame, mut promised) = (frame(format, size), 0);
        let info = allocation_counter::measure(|| {
            let model = open("colours_u8.onnx");
            promised = bound(model, 1, [640, 480, format.channels().unwrap_or(3)]);
            let session = session(model, 1);
            assert_eq!(run_frame(session, &frame, number, size), SMALTI_OK);
            smalti_session_free(session);
            smalti_close(model);
        });
        let besides = if format.channels().is_some() { 0 } else { 3 * pixels };
        let bound = promised as u64 + besides;
        assert!(info.bytes_max <= bound, "{format}: peak {}, bound {bound}", info.bytes_max);
    }
}

/// Of models outside the repository: `SMALTI_MODELS=a.onnx:b.onnx cargo test -p smalti-capi --test calls -- --ignored`.
#[test]
#[ignore = "needs models"]
fn the_memory_bound_of_real_models() {
    for name in std::env::var("SMALTI_MODELS").unwrap().split(':') {
        let (peak, bound) = peak_and_bound(name, [0, 0, 0]);
        println!("{name}: peak {peak}, bound {bound}, {:.2}", bound as f64 / peak as f64);
        assert!(peak <= bound && bound as f64 <= 1.6 * peak as f64);
    }
}

#[test]
fn options_are_read_by_their_size() {
    let bytes = std::fs::read(path("timm_vit.onnx")).unwrap();
    // SAFETY: all zeros are a value of the struct.
    let zeros: smalti_options = unsafe { std::mem::zeroed() };
    let size = size_of::<smalti_options>();
    let open = |options: smalti_options| {
        let mut model = null_mut();
        // SAFETY: a slice's pointer and length, options of their size, room for a pointer.
        let code = unsafe { smalti_open_bytes(bytes.as_ptr(), bytes.len(), &options, &mut model) };
        (code, model)
    };
    assert_eq!(open(smalti_options { size: 0, ..zeros }).0, SMALTI_USAGE);
    assert_eq!(open(smalti_options { size: 1 << 20, ..zeros }).0, SMALTI_USAGE);
    assert_eq!(open(smalti_options { size, max_file_bytes: 10, ..zeros }).0, SMALTI_REFUSED);
    // An older header had less.
    assert_eq!(open(smalti_options { size: 8, max_file_bytes: 10, ..zeros }).0, SMALTI_OK);
    let fit = smalti_options { size, fit: SMALTI_FIT_CROP, mean: [0.5; 3], std: [0.5; 3], ..zeros };
    assert_eq!(open(smalti_options { fit: 9, ..fit }).0, SMALTI_USAGE);
    assert_eq!(open(smalti_options { interpolation: 9, ..fit }).0, SMALTI_USAGE);
    assert_eq!(open(smalti_options { std: [0.0; 3], ..fit }).0, SMALTI_USAGE);
    let (code, model) = open(fit);
    assert_eq!((code, info(model).prepares), (SMALTI_OK, 1));
    let (plain, foreign) = (session(model, 1), open(zeros_of(size)).1);
    assert_eq!(run_pixels(plain, &[0; 300], [10, 10, 3]), SMALTI_OK);
    let foreign = session(foreign, 1);
    assert_eq!(run_pixels(foreign, &[0; 300], [10, 10, 3]), SMALTI_USAGE);
}

#[test]
fn signatures_and_versions_are_asked_for() {
    let signed = |name: &str| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/signed").join(name);
        CString::new(std::fs::read(path).unwrap()).unwrap()
    };
    let bytes = std::fs::read(path("colours_u8.onnx")).unwrap();
    let (key, other, signature) =
        (signed("test.pub"), signed("other.pub"), signed("colours_u8.onnx.minisig"));
    let open = |options: smalti_options, bytes: &[u8]| {
        let mut model = null_mut();
        // SAFETY: a slice's pointer and length, options of their size with texts in them, room for a pointer.
        unsafe { smalti_open_bytes(bytes.as_ptr(), bytes.len(), &options, &mut model) }
    };
    let zeros = zeros_of(size_of::<smalti_options>());
    let good = smalti_options { pubkey: key.as_ptr(), signature: signature.as_ptr(), ..zeros };
    assert_eq!(open(good, &bytes), SMALTI_OK, "{}", message());
    assert_eq!(open(smalti_options { min_version: c"0.1".as_ptr(), ..good }, &bytes), SMALTI_OK);
    assert_eq!(open(smalti_options { min_version: c"99".as_ptr(), ..good }, &bytes), SMALTI_REFUSED);
    assert_eq!(open(smalti_options { signature: null(), ..good }, &bytes), SMALTI_REFUSED);
    assert_eq!(open(smalti_options { pubkey: other.as_ptr(), ..good }, &bytes), SMALTI_REFUSED);
    assert_eq!(open(good, &[&bytes[..], &[0]].concat()), SMALTI_REFUSED);
    assert_eq!(open(smalti_options { pubkey: c"no such file".as_ptr(), ..good }, &bytes), SMALTI_IO);
    // Beside the model there is no signature.
    let (place, mut model) = (CString::new(path("colours_u8.onnx").to_str().unwrap()).unwrap(), null_mut());
    // SAFETY: text, options of their size with texts in them, room for a pointer.
    assert_eq!(unsafe { smalti_open(place.as_ptr(), &good, &mut model) }, SMALTI_REFUSED);
    assert!(message().contains("minisig"), "{}", message());
}

fn zeros_of(size: usize) -> smalti_options {
    // SAFETY: all zeros are a value of the struct.
    smalti_options { size, ..unsafe { std::mem::zeroed() } }
}
