//! On a file system that fails. `SMALTI_FAULTS_STRIDE=1` lets each call fail instead of every fifth:
//! `SMALTI_FAULTS_STRIDE=1 cargo test -p smalti-run --test storage failing -- --nocapture`.

use smalti_faults::{IS_AVAILABLE, Writer};

use crate::{Files, WRITING, setting};

#[test]
fn commands_that_write_a_file_leave_the_old_one() {
    if !IS_AVAILABLE {
        return println!("not checked: needs glibc");
    }
    for writing in &WRITING {
        let (files, old) = (Files::new(), Files::old(writing));
        let command = || files.command(writing);
        let (folder, file) = (files.path("out"), writing.file);
        let writer = Writer {
            name: writing.name,
            folder: &folder,
            file,
            old: &old,
            command: &command,
            is_repeatable: true,
        };
        let tally = writer.meets_faults(setting("SMALTI_FAULTS_STRIDE", 5));
        println!(
            "{}: {} runs with faults, {} ended with exit code 6",
            writing.name, tally.runs, tally.refused
        );
        assert!(tally.refused * 2 > tally.runs, "{}: {tally:?}", writing.name);
    }
}
