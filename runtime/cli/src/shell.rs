//! `completions` and `man`, generated from the arguments.

use std::io::{Write, stdout};
use std::path::Path;

use clap::CommandFactory;

use super::args::Args;

pub(super) fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "smalti-run", &mut script);
    stdout().lock().write_all(&script)?;
    Ok(0)
}

pub(super) fn man(folder: Option<&Path>) -> anyhow::Result<u8> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(Args::command(), folder)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut page)?;
            stdout().lock().write_all(&page)?;
        }
    }
    Ok(0)
}
