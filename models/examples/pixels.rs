//! Decodes image files and writes their pixels, for `scripts/check-jpeg`.
//!
//! ```text
//! pixels < LIST
//! ```
//! Each line of the list is `SIDE PATH`: as [`image::open_for`] decodes the file for that side, whole for 0. The answers
//! come in the same order, a line `WIDTH HEIGHT CHANNELS` with the bytes of the pixels behind it, or `error: ...`.

use std::io::{self, BufRead, Write};
use std::path::Path;

use smalti_models::image::{self, Limits};

fn main() -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (side, path) = line.split_once(' ').unwrap_or(("0", &line));
        let side = side.parse().ok().filter(|&side: &usize| side > 0);
        match image::open_for(Path::new(path), &Limits::default(), side) {
            Ok(image) => {
                writeln!(out, "{} {} {}", image.width(), image.height(), image.channels())?;
                out.write_all(image.data())?;
            }
            Err(error) => writeln!(out, "error: {error}")?,
        }
    }
    Ok(())
}
