//! When the power fails after any of their writes.

use std::path::Path;

use smalti_faults::{Disk, Faults, IS_AVAILABLE, read};

use crate::{Files, WRITING};

#[test]
fn the_loss_of_power_leaves_the_old_file_or_the_new_one() {
    if !IS_AVAILABLE {
        return println!("not checked: needs glibc");
    }
    for writing in &WRITING {
        let (files, old) = (Files::new(), Files::old(writing));
        let (place, record, folder) = (files.place(writing), files.path("record"), files.path("out"));
        if !old.is_empty() {
            std::fs::write(&place, &old).unwrap();
        }
        let mut disk = Disk::of(&folder);
        let mut command = files.command(writing);
        let output = Faults::recorded(&folder, &record).meet(&mut command).output().unwrap();
        assert!(output.status.success(), "{}: {}", writing.name, String::from_utf8_lossy(&output.stderr));
        let new = std::fs::read(&place).unwrap();

        let (calls, name, mut looked) = (read(&record), Path::new(writing.file), 0);
        let mut last = Vec::new();
        for (i, call) in calls.iter().enumerate() {
            disk.play(call);
            disk.crashes(|crash| {
                looked += 1;
                let found = crash.files.get(name).cloned().unwrap_or_default();
                assert!(
                    found == old || found == new,
                    "{}: {} bytes after {i} calls",
                    writing.name,
                    found.len()
                );
            });
        }
        assert_eq!(disk.read(name), Some(&new[..]));
        // Once the command has ended, nothing takes the new file away.
        disk.forget().crashes(|crash| last.push(crash.files.get(name).cloned()));
        assert!(
            !last.is_empty() && last.iter().all(|found| found.as_ref() == Some(&new)),
            "{}",
            writing.name
        );
        println!("{}: {} calls, {looked} disks", writing.name, calls.len());
    }
}
