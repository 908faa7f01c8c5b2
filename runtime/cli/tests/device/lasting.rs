//! A stream that does not end: memory, file descriptors and threads stay. The long form:
//! `SMALTI_STREAM_SECONDS=7200 cargo test --release -p smalti-run --test device lasting -- --nocapture`.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// What a process holds: KiB of memory, file descriptors, threads.
fn held(process: u32) -> [i64; 3] {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let status = std::fs::read_to_string(folder.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let count = |name: &str| std::fs::read_dir(folder.join(name)).unwrap().count() as i64;
    [line.trim().trim_end_matches(" kB").parse().unwrap(), count("fd"), count("task")]
}

#[test]
fn a_stream_of_good_and_bad_frames_takes_no_more_in_the_end() {
    let seconds: u64 = std::env::var("SMALTI_STREAM_SECONDS").map_or(4, |text| text.parse().unwrap());
    let (end, warm) = (Instant::now() + Duration::from_secs(seconds), Duration::from_secs(seconds) / 5);
    let mut child = command(&[&"run", &model(), &"mjpeg:-", &"--json", &"--quiet"]).spawn().unwrap();
    let (process, mut pipe) = (child.id(), child.stdin.take().unwrap());
    let (output, answers) = (child.stdout.take().unwrap(), AtomicUsize::new(0));
    let mut frames = [RED, GREEN, BLUE].map(jpeg).to_vec();
    // One that was cut off, and what is no image at all.
    frames.push(frames[0][..frames[0].len() / 2].to_vec());
    frames.push(vec![7; 300]);
    let (start, finish, sent) = std::thread::scope(|scope| {
        let answers = &answers;
        scope.spawn(move || {
            BufReader::new(output).lines().for_each(|line| {
                let object: Value = serde_json::from_str(&line.unwrap()).unwrap();
                answers.fetch_add(usize::from(object["predictions"].is_array()), Ordering::Relaxed);
            });
        });
        let (begin, mut start, mut sent) = (Instant::now(), None, 0);
        while Instant::now() < end {
            pipe.write_all(&frames[sent % frames.len()]).unwrap();
            sent += 1;
            if start.is_none() && begin.elapsed() > warm {
                start = Some(held(process));
            }
        }
        let finish = held(process);
        drop(pipe);
        (start.unwrap(), finish, sent)
    });
    // Frames were bad.
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let answers = answers.load(Ordering::Relaxed);
    println!("{seconds} s of stream: {sent} frames, {answers} answers, {} KiB grown", finish[0] - start[0]);
    assert!(answers > 100, "{answers} answers");
    assert!(finish[0] - start[0] <= 1024, "{start:?} {finish:?}");
    assert_eq!(start[1..], finish[1..]);
}
