//! Killed without warning. The long form:
//! `SMALTI_KILLS=50 cargo test -p smalti-run --test storage kill -- --nocapture`.

use std::time::{Duration, Instant};

use crate::{Files, WRITING, setting};

#[test]
fn a_killed_command_leaves_the_old_file_or_the_new_one() {
    let kills = setting("SMALTI_KILLS", 3);
    let mut seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for writing in &WRITING {
        let (files, old) = (Files::new(), Files::old(writing));
        let place = files.place(writing);
        let reset = || match &old[..] {
            [] => _ = std::fs::remove_file(&place),
            old => std::fs::write(&place, old).unwrap(),
        };
        let is_saving = || {
            let mut entries = std::fs::read_dir(files.path("out")).unwrap().flatten();
            entries.any(|entry| entry.file_name().to_string_lossy().ends_with(".part"))
        };
        let run = || {
            let output = files.command(writing).output().unwrap();
            assert!(output.status.success(), "{}: {}", writing.name, String::from_utf8_lossy(&output.stderr));
            std::fs::read(&place).unwrap()
        };
        reset();
        let start = Instant::now();
        let (new, takes) = (run(), start.elapsed().as_micros() as u64);
        let (mut within, mut late) = (0, 0);
        for i in 0..kills {
            reset();
            let mut child = files.command(writing).spawn().unwrap();
            // Knuth's generator; its upper bits are random enough.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros((seed >> 33) % takes));
            while i % 2 == 1 && !is_saving() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(50));
            }
            child.kill().unwrap();
            late += usize::from(child.wait().unwrap().success());
            within += usize::from(is_saving());
            let found = std::fs::read(&place).unwrap_or_default();
            assert!(found == old || found == new, "{}, kill {i}: {} bytes", writing.name, found.len());
        }
        reset();
        assert!(run() == new && !is_saving(), "{}: other bytes, or something is left", writing.name);
        println!("{}: {kills} kills, {within} within a save, {late} too late", writing.name);
    }
}
