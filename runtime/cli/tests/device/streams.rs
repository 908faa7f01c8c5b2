//! Streams of JPEG files and of raw pixels, good and bad.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use super::*;

#[test]
fn a_camera_pipe_is_answered_frame_by_frame() {
    let bytes = [jpeg(RED), jpeg(GREEN), jpeg(BLUE), jpeg(RED)].concat();
    let (out, err) = expect(0, &bytes, &[&"run", &model(), &"mjpeg:-", &"--every-frame", &"--json"]);
    let objects = objects(&out);
    assert_eq!(labels(&objects), ["red", "green", "blue", "red"]);
    let numbers: Vec<_> = objects.iter().map(|object| object["frame"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(objects.iter().all(|o| o["dropped"] == 0 && o["bad"] == 0 && o["input"] == "mjpeg:-"), "{out}");
    assert_eq!(err, "smalti-run: 4 frames answered, 0 dropped, 0 bad\n");
    let (out, err) = expect(0, &bytes, &[&"run", &model(), &"mjpeg:-", &"--every-frame", &"--quiet"]);
    assert!(out.starts_with("frame 1: red ") && out.lines().count() == 4 && err.is_empty(), "{out}{err}");
}

#[test]
fn every_frame_of_a_recording_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, raw) = (folder.path().join("a.mjpeg"), folder.path().join("b.rgb"));
    fs::write(&recording, [jpeg(BLUE), jpeg(RED)].concat().repeat(10)).unwrap();
    let (out, _) = expect(0, &[], &[&"run", &model(), &format!("mjpeg:{}", recording.display()), &"--json"]);
    assert_eq!(labels(&objects(&out)), ["blue", "red"].repeat(10));
    fs::write(&raw, [RED.repeat(20), GREEN.repeat(20), BLUE.repeat(7)].concat()).unwrap();
    let stream = format!("raw:5x4:rgb8:{}", raw.display());
    let (out, err) = expect(0, &[], &[&"run", &model(), &stream, &"--json", &"-k", &"3"]);
    assert_eq!(labels(&objects(&out)), ["red", "green"]);
    assert_eq!(objects(&out)[0]["predictions"].as_array().unwrap().len(), 3);
    assert!(err.contains("the last frame incomplete"), "{err}");
    // The same pixels as a file give the same answer.
    let (grey, _) = expect(0, &[90; 20], &[&"run", &model(), &"raw:5x4:grey8:-", &"--json"]);
    let (colour, _) = expect(0, &[90; 60], &[&"run", &model(), &"raw:5x4:rgb8:-", &"--json"]);
    assert_eq!(objects(&grey)[0]["predictions"], objects(&colour)[0]["predictions"]);
}

/// Y, U and V of an RGB pixel: ITU-R BT.601, limited range.
fn yuv(rgb: &[u8]) -> [f64; 3] {
    let [r, g, b] = [0, 1, 2].map(|channel| f64::from(rgb[channel]) / 255.0);
    let luma = 0.299 * r + 0.587 * g + 0.114 * b;
    [16.0 + 219.0 * luma, 128.0 + 224.0 * (b - luma) / 1.772, 128.0 + 224.0 * (r - luma) / 1.402]
}

/// The mean Y, U and V of some pixels of a row as bytes.
fn mean_yuv(pixels: &[&[u8]]) -> [u8; 3] {
    let sums =
        pixels.iter().map(|rgb| yuv(rgb)).fold([0.0; 3], |sum, yuv| [0, 1, 2].map(|i| sum[i] + yuv[i]));
    sums.map(|sum| (sum / pixels.len() as f64).round() as u8)
}

#[test]
fn a_picture_has_the_same_label_in_every_format() {
    for colour in ["red", "green", "blue"] {
        let still = fixture(&format!("models/{colour}.png"));
        let (out, _) = expect(0, &[], &[&"run", &model(), &still, &"--json"]);
        let object: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["results"][0]["predictions"][0]["label"], colour);

        let picture = image::open(&still).unwrap().into_rgb8();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let at = |x: usize, y: usize| picture.get_pixel(x as u32, y as u32).0;
        let luma = |x, y| mean_yuv(&[&at(x, y)])[0];
        let pairs = (0..height).flat_map(|y| (0..width).step_by(2).map(move |x| (x, y)));
        let yuyv: Vec<u8> = pairs
            .flat_map(|(x, y)| {
                let [_, u, v] = mean_yuv(&[&at(x, y), &at(x + 1, y)]);
                [luma(x, y), u, luma(x + 1, y), v]
            })
            .collect();
        let mut nv12: Vec<u8> = (0..width * height).map(|i| luma(i % width, i / width)).collect();
        for (x, y) in (0..height).step_by(2).flat_map(|y| (0..width).step_by(2).map(move |x| (x, y))) {
            let [_, u, v] = mean_yuv(&[&at(x, y), &at(x + 1, y), &at(x, y + 1), &at(x + 1, y + 1)]);
            nv12.extend([u, v]);
        }
        let mut jpeg = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95);
        picture.write_with_encoder(encoder).unwrap();

        let raw = |pixels: &str| format!("raw:{width}x{height}:{pixels}:-");
        for (stream, frame) in [
            (raw("rgb8"), picture.to_vec()),
            (raw("yuyv"), yuyv),
            (raw("nv12"), nv12),
            ("mjpeg:-".into(), jpeg),
        ] {
            let arguments: [&dyn AsRef<OsStr>; 5] = [&"run", &model(), &stream, &"--every-frame", &"--json"];
            let (out, _) = expect(0, &frame.repeat(2), &arguments);
            assert_eq!(labels(&objects(&out)), [colour; 2], "{stream}");
        }
    }
}

#[test]
fn the_newest_frame_wins() {
    // More frames than a pipe holds, all but the last in one colour.
    let bytes = [RED.repeat(64 * 64 * 500), GREEN.repeat(64 * 64)].concat();
    let (out, err) = expect(0, &bytes, &[&"run", &model(), &"raw:64x64:rgb8:-", &"--json"]);
    let objects = objects(&out);
    let last = objects.last().unwrap();
    assert_eq!((labels(&objects).last(), &last["frame"]), (Some(&"green"), &501.into()));
    assert_eq!(objects.len() as u64 + last["dropped"].as_u64().unwrap(), 501, "{err}");
    assert!(objects.windows(2).all(|pair| pair[0]["frame"].as_u64() < pair[1]["frame"].as_u64()));
}

#[test]
fn bad_frames_are_left_out_and_counted() {
    let (good, mut damaged) = (jpeg(RED), jpeg(BLUE));
    // Its quantization table is gone; where it ends can still be told.
    let table = damaged.windows(2).position(|pair| pair == [0xff, 0xdb]).unwrap();
    damaged[table + 1] = 0xee;
    let large = [&jpeg(BLUE)[..20], &[0; 50_000], &[0xff, 0xd9]].concat();
    // In its data: in its tables it would take the beginning of the next along.
    let whole = jpeg(GREEN);
    let cut = &whole[..whole.len() - 4];
    let bytes = [&b"HTTP/1.1 200 OK\r\n"[..], &good, &damaged, &large, cut, &good, &good[..200]].concat();
    let arguments: [&dyn AsRef<OsStr>; 7] =
        [&"run", &model(), &"mjpeg:-", &"--every-frame", &"--max-frame-bytes", &"20000", &"--json"];
    let (out, err) = expect(5, &bytes, &arguments);
    let objects = objects(&out);
    assert_eq!(labels(&objects), ["red", "red"]);
    assert_eq!(objects.len(), 3);
    assert!(objects[1]["error"].as_str().unwrap().starts_with("frame 2: "), "{out}");
    assert_eq!((&objects[2]["frame"], &objects[2]["bad"]), (&5.into(), &3.into()), "{out}");
    for words in ["2 frames answered, 0 dropped, 3 bad", "17 bytes outside", "60.0 % of the frames are bad"] {
        assert!(err.contains(words), "{err}");
    }
    let allowed = [&arguments[..], &[&"--max-bad", &"60%"]].concat();
    assert_eq!(expect(0, &bytes, &allowed).0.lines().count(), 3);
}

/// Codes that are lost in the middle of a frame's data, whose markers are all there: decoders fill what is missing with grey.
#[test]
fn a_frame_with_a_hole_in_its_data_is_bad_and_costs_no_other() {
    let photo = |shade: u8| {
        let pixels: Vec<u8> = (0..64 * 48 * 3u32).map(|i| (i * i / 7 + u32::from(shade)) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
        encoder.encode(&pixels, 64, 48, image::ExtendedColorType::Rgb8).unwrap();
        bytes
    };
    let mut hole = photo(1);
    let middle = hole.len() / 2;
    hole.drain(middle..hole.len() - 2);
    let bytes = [photo(0), hole, photo(2), photo(3)].concat();
    let arguments: [&dyn AsRef<OsStr>; 7] =
        [&"run", &model(), &"mjpeg:-", &"--every-frame", &"--max-bad", &"25%", &"--json"];
    let (out, err) = expect(0, &bytes, &arguments);
    let objects = objects(&out);
    assert_eq!(labels(&objects).len(), 3, "{out}");
    let error = objects[1]["error"].as_str().unwrap();
    assert!(error.starts_with("frame 2: ") && error.contains("damaged JPEG"), "{error}");
    assert!(err.contains("3 frames answered, 0 dropped, 1 bad"), "{err}");
}

/// Frames of a camera that is slower than the model, a few bytes at a time: each is answered before the next one begins, and
/// what the camera leaves unfinished is not.
#[test]
fn frames_that_come_in_pieces_are_answered_as_they_end() {
    let yuyv = |[y, u, v]: [u8; 3]| [y, u, y, v].repeat(16 * 12 / 2);
    let nv12 = |[y, u, v]: [u8; 3]| [vec![y; 16 * 12], [u, v].repeat(8 * 6)].concat();
    let colours = [("red", RED), ("green", GREEN), ("blue", BLUE), ("red", RED)];
    for (stream, frame) in [
        ("mjpeg:-", &jpeg as &dyn Fn([u8; 3]) -> Vec<u8>),
        ("raw:16x12:rgb8:-", &|colour| colour.repeat(16 * 12)),
        ("raw:16x12:yuyv:-", &|colour| yuyv(mean_yuv(&[&colour]))),
        ("raw:16x12:nv12:-", &|colour| nv12(mean_yuv(&[&colour]))),
    ] {
        let mut child = command(&[&"run", &model(), &stream, &"--json"]).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        for (name, colour) in colours {
            for piece in frame(colour).chunks(97) {
                pipe.write_all(piece).unwrap();
            }
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            assert_eq!(labels(&objects(&line)), [name], "{stream}: {line}");
        }
        let unfinished = frame(BLUE);
        pipe.write_all(&unfinished[..unfinished.len() / 2]).unwrap();
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stream}: {err}");
        assert!(
            err.contains("4 frames answered, 0 dropped, 0 bad") && err.contains("incomplete"),
            "{stream}: {err}"
        );
    }
}

#[test]
fn streams_without_frames_are_5_and_wrong_streams_2() {
    for bytes in [&b""[..], b"no image", &[0xff; 100_000]] {
        let (out, err) = expect(5, bytes, &[&"run", &model(), &"mjpeg:-"]);
        assert!(out.is_empty() && err.contains("ended without a frame"), "{out}{err}");
    }
    expect(2, &[], &[&"run", &model(), &"raw:0x4:rgb8:-"]);
    expect(2, &[], &[&"run", &model(), &"raw:40000x40000:rgb8:-"]);
    for (stream, words) in [
        ("raw:641x480:yuyv:-", "641 x 480 pixels: expected an even width"),
        ("raw:640x480:yuv:-", "PIXELS is one of rgb8, bgr8, grey8, rgb565, yuyv, "),
    ] {
        let (_, err) = expect(2, &[], &[&"run", &model(), &stream]);
        assert!(err.contains(words), "{err}");
    }
    let (help, _) = expect(0, &[], &[&"run", &"--help"]);
    assert!(help.split_whitespace().any(|word| word == "bayer-grbg8."), "{help}");
    expect(2, &[], &[&"run", &model(), &"mjpeg:-", &fixture("models/red.png")]);
    expect(2, &[], &[&"run", &model(), &fixture("models/red.png"), &"--watch"]);
    let (_, err) = expect(6, &[], &[&"run", &model(), &"mjpeg:/no/such/camera"]);
    assert!(err.contains("/no/such/camera"), "{err}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_stream_with_its_last_line() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = command(&[&"run", &model(), &"mjpeg:-"]).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&jpeg(RED)).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("frame 1: red"), "{line}");
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(String::from_utf8_lossy(&output.stderr).contains("1 frames answered"), "{output:?}");
        drop(pipe);
    }
}
