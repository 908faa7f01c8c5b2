//! Frames out of whole, odd, hostile and endless streams.

use std::io::{self, Read};
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use smalti_models::image::PixelFormat;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// An image's outline with that content, which holds no FF: a segment with a thumbnail's marks in it, and data.
fn jpeg(content: &[u8]) -> Vec<u8> {
    let head: &[u8] = &[0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9, 0xff, 0xda, 0, 2];
    [head, content, &[0xff, 0, 0xff, 0xd0, 0xff, 0xd9]].concat()
}

/// What a splitter finds in pieces.
#[derive(Debug, PartialEq)]
struct Cut {
    found: Vec<Result<Vec<u8>, Fault>>,
    outside: u64,
    within: bool,
}

impl Cut {
    fn frames(&self) -> Vec<&[u8]> {
        self.found.iter().flatten().map(Vec::as_slice).collect()
    }

    fn faults(&self) -> Vec<Fault> {
        self.found.iter().filter_map(|found| found.as_ref().err().copied()).collect()
    }
}

fn cut<'a>(format: Format, limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Cut {
    let mut splitter = Splitter::new(format, limit).unwrap();
    let mut found = Vec::new();
    for mut piece in pieces {
        while let Some(event) = splitter.push(&mut piece) {
            found.push(match event {
                Event::Frame => Ok(std::mem::take(splitter.frame())),
                Event::Fault(fault) => Err(fault),
            });
        }
        assert!(piece.is_empty());
    }
    Cut { found, outside: splitter.outside(), within: splitter.is_within() }
}

#[test]
fn frames_between_garbage_come_whole_in_pieces_of_any_size() {
    let frames = [jpeg(b"one"), jpeg(b""), jpeg(b"three")];
    let garbage: [&[u8]; 4] =
        [b"HTTP/1.1 200\r\n", &[0xff], &[0xff, 0xd8, 0, 0xff, 0xff], &[0xff, 0xff, 0xd8]];
    let bytes: Vec<u8> = garbage
        .iter()
        .zip(frames.iter().chain([&Vec::new()]))
        .flat_map(|(g, f)| [g, &f[..]].concat())
        .collect();
    for piece in 1..=bytes.len() {
        let cut = cut(Format::Mjpeg, 1000, bytes.chunks(piece));
        assert_eq!(cut.frames(), frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), "{piece}");
        assert_eq!((cut.faults(), cut.within), (vec![], false));
        assert_eq!(cut.outside, garbage.iter().map(|garbage| garbage.len() as u64).sum::<u64>());
    }
}

#[test]
fn a_frame_that_is_cut_off_costs_no_other() {
    let (whole, mut bytes) = (jpeg(b"whole"), jpeg(b"cut off"));
    bytes.truncate(bytes.len() - 2);
    bytes.extend(&whole);
    bytes.extend(&whole[..9]);
    for piece in 1..=bytes.len() {
        let cut = cut(Format::Mjpeg, 1000, bytes.chunks(piece));
        assert_eq!((cut.frames(), cut.faults(), cut.within), (vec![&whole[..]], vec![Fault::CutOff], true));
    }
}

#[test]
fn a_frame_over_the_limit_is_passed_over_and_counted_once() {
    let (small, large) = (jpeg(b"small"), jpeg(&[b'x'; 100]));
    let bytes = [&small[..], &large, &small, &large[..60], &small].concat();
    for piece in 1..=bytes.len() {
        let cut = cut(Format::Mjpeg, 40, bytes.chunks(piece));
        assert_eq!(cut.frames(), [&small[..]; 3], "{piece}");
        assert_eq!((cut.faults(), cut.outside), (vec![Fault::TooLarge(40); 2], 0));
    }
    assert_eq!(cut(Format::Mjpeg, small.len(), [&small[..]]).frames().len(), 1);
    assert_eq!(cut(Format::Mjpeg, small.len() - 1, [&small[..]]).frames().len(), 0);
}

#[test]
fn endless_frames_and_endless_garbage_take_bounded_memory() {
    let limit = 1 << 20;
    let mut head = jpeg(b"");
    head.truncate(14);
    for fill in [&[b'x'; 65536], &[0xffu8; 65536], b"\xff\xe0\xff\xff".repeat(16384).first_chunk().unwrap()] {
        for head in [&head[..], &[]] {
            let info = allocation_counter::measure(|| {
                let mut splitter = Splitter::new(Format::Mjpeg, limit).unwrap();
                assert!(splitter.push(&mut { head }).is_none());
                let faults = (0..1000).filter(|_| splitter.push(&mut &fill[..]).is_some()).count();
                assert_eq!(faults, usize::from(!head.is_empty()));
            });
            assert!(info.bytes_max <= 2 * limit as u64, "{}", info.bytes_max);
        }
    }
}

#[test]
fn raw_frames_follow_each_other() {
    let bytes: Vec<u8> = (0..40).collect();
    let format = Format::Raw { width: 2, height: 2, pixels: PixelFormat::Rgb8 };
    for piece in 1..=bytes.len() {
        let cut = cut(format, 12, bytes.chunks(piece));
        assert_eq!(cut.frames(), [&bytes[..12], &bytes[12..24], &bytes[24..36]]);
        assert_eq!((cut.faults(), cut.outside, cut.within), (vec![], 0, true));
    }
    assert_eq!(Splitter::new(format, 11).unwrap_err().exit_code(), 2);
    let huge = Format::Raw { width: usize::MAX, height: 3, pixels: PixelFormat::Grey8 };
    assert_eq!(Splitter::new(huge, usize::MAX).unwrap_err().exit_code(), 2);
    let odd = Format::Raw { width: 3, height: 2, pixels: PixelFormat::Yuyv };
    let error = Splitter::new(odd, 12).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("even width"), "{error}");
    for (width, height) in [(0, 2), (2, 0)] {
        assert!(Splitter::new(Format::Raw { width, height, pixels: PixelFormat::Rgb8 }, 12).is_err());
    }
    // Six bytes for four pixels.
    let planes = Format::Raw { width: 2, height: 2, pixels: PixelFormat::Nv12 };
    assert_eq!(cut(planes, 6, [&bytes[..]]).frames(), bytes.chunks_exact(6).collect::<Vec<_>>());
}

/// Bytes of which many mean something in a JPEG file.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0xff), 1 => Just(0xd8), 1 => Just(0xd9), 1 => Just(0), 2 => any::<u8>()];
    proptest::collection::vec(byte, 0..400)
}

/// The same bytes in pieces of those sizes, again and again.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_frames(
        bytes in bytes(), sizes in proptest::collection::vec(1..50usize, 1..6), limit in 4..300usize,
    ) {
        let whole = cut(Format::Mjpeg, limit, [&bytes[..]]);
        prop_assert_eq!(&cut(Format::Mjpeg, limit, pieces(&bytes, &sizes)), &whole);
        for frame in whole.frames() {
            prop_assert!(frame.len() <= limit && frame.starts_with(&[0xff, 0xd8]) && frame.ends_with(&[0xff, 0xd9]));
        }
        let kept: usize = whole.frames().iter().map(|frame| frame.len()).sum();
        prop_assert!(kept as u64 + whole.outside <= bytes.len() as u64);
    }

    #[test]
    fn good_frames_come_through_whatever_lies_between(
        parts in proptest::collection::vec((".{0,20}", "[ -~]{0,20}", any::<bool>()), 0..8),
        sizes in proptest::collection::vec(1..50usize, 1..6),
    ) {
        let (mut bytes, mut frames, mut faults) = (Vec::new(), Vec::new(), 0);
        for (content, garbage, cut_off) in &parts {
            let frame = jpeg(content.as_bytes());
            if *cut_off {
                // In its data: in a segment it may take the beginning of the next along.
                bytes.extend(&frame[..frame.len() - 6]);
                faults += 1;
                bytes.extend(&frame);
            } else {
                bytes.extend(garbage.as_bytes());
                bytes.extend(&frame);
            }
            frames.push(frame);
        }
        let found = cut(Format::Mjpeg, 1000, pieces(&bytes, &sizes));
        prop_assert_eq!(found.frames(), frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        prop_assert_eq!((found.faults().len(), found.within), (faults, false));
    }
}

/// A source whose reads give what is sent to it.
struct Pipe(mpsc::Receiver<Vec<u8>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.recv() {
            Ok(bytes) if bytes.is_empty() => Err(ErrorKind::ConnectionReset.into()),
            Ok(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Err(_) => Ok(0),
        }
    }
}

/// A stream, and where its bytes are put in.
fn stream(keep: Keep) -> (Stream, mpsc::Sender<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel();
    let settings = Settings { keep, max_frame_bytes: 1000 };
    (Stream::start(Format::Mjpeg, Pipe(receiver), "pipe", &settings).unwrap(), sender)
}

#[test]
fn the_newest_frame_wins_and_the_others_are_counted() {
    let (mut stream, sender) = stream(Keep::Newest);
    let mut frame = Frame::default();
    assert_eq!(stream.next(&mut frame, Duration::from_millis(1)).unwrap(), Next::Idle);
    for content in [&b"1"[..], b"2", b"3"] {
        sender.send(jpeg(content)).unwrap();
    }
    drop(sender);
    while stream.counts().frames < 3 {
        std::thread::yield_now();
    }
    assert_eq!(stream.next(&mut frame, LONG).unwrap(), Next::Frame);
    assert_eq!((frame.number(), frame.bytes()), (3, &jpeg(b"3")[..]));
    assert_eq!(stream.next(&mut frame, LONG).unwrap(), Next::End);
    assert_eq!(stream.next(&mut frame, LONG).unwrap(), Next::End);
    let counts = stream.counts();
    assert_eq!((counts.frames, counts.dropped, counts.bad, counts.ended_within), (3, 2, 0, false));
}

#[test]
fn every_frame_of_a_recording_is_kept_and_bad_ones_have_numbers() {
    let (mut stream, sender) = stream(Keep::Every);
    let frames = [jpeg(b"1"), jpeg(b"2"), jpeg(&[0; 2000]), jpeg(b"4")];
    frames.iter().for_each(|frame| sender.send(frame.clone()).unwrap());
    sender.send(b"\xff\xd8\xff\xd8".to_vec()).unwrap();
    drop(sender);
    let (mut frame, mut numbers) = (Frame::default(), Vec::new());
    while stream.next(&mut frame, LONG).unwrap() == Next::Frame {
        numbers.push(frame.number());
        assert_eq!(frame.bytes(), frames[frame.number() as usize - 1]);
    }
    assert_eq!(numbers, [1, 2, 4]);
    let counts = stream.counts();
    assert_eq!((counts.frames, counts.dropped, counts.bad, counts.ended_within), (3, 0, 2, true));
    assert_eq!(counts.last_fault, Some(Fault::CutOff));
}

#[test]
fn a_source_that_fails_ends_the_stream_behind_its_last_frame() {
    let (mut stream, sender) = stream(Keep::Newest);
    sender.send(jpeg(b"1")).unwrap();
    sender.send(Vec::new()).unwrap();
    let mut frame = Frame::default();
    assert_eq!(stream.next(&mut frame, LONG).unwrap(), Next::Frame);
    let error = stream.next(&mut frame, LONG).unwrap_err();
    assert!(error.exit_code() == 6 && error.to_string().contains("pipe"), "{error}");
    assert_eq!(stream.next(&mut frame, LONG).unwrap(), Next::End);
}

#[test]
fn a_source_that_panics_ends_the_stream() {
    struct Panics;
    impl Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("as the test asked")
        }
    }
    let mut stream = Stream::start(Format::Mjpeg, Panics, "panics", &Settings::default()).unwrap();
    assert_eq!(stream.next(&mut Frame::default(), LONG).unwrap_err().exit_code(), 70);
}

#[test]
fn dropping_the_stream_ends_the_reading() {
    let (stream, sender) = stream(Keep::Every);
    drop(stream);
    // The reader hangs up once it has tried to put a frame.
    while sender.send(jpeg(b"1")).is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn damaged_frames_are_errors_that_say_which() {
    let frame = Frame { number: 7, format: Format::Mjpeg, bytes: jpeg(b"no image") };
    let error = frame.pixels(&Default::default()).unwrap_err();
    assert!(error.exit_code() == 5 && error.to_string().starts_with("frame 7: "), "{error}");
    let frame =
        |pixels, bytes| Frame { number: 1, format: Format::Raw { width: 2, height: 1, pixels }, bytes };
    let row =
        |frame: Frame| frame.pixels(&Default::default()).unwrap().view().rows().next().unwrap().to_vec();
    assert_eq!(row(frame(PixelFormat::Rgb8, vec![1, 2, 3, 4, 5, 6])), [1, 2, 3, 4, 5, 6]);
    assert_eq!(row(frame(PixelFormat::Bgr8, vec![1, 2, 3, 4, 5, 6])), [3, 2, 1, 6, 5, 4]);
    assert_eq!(row(frame(PixelFormat::Yuyv, vec![16, 128, 235, 128])), [0, 0, 0, 255, 255, 255]);
}
