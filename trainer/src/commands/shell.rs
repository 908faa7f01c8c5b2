//! `smalti completions` and `smalti man`, generated from the arguments.

use std::io::{Write, stdout};
use std::path::Path;

use clap::CommandFactory;
use smalti_trainer::files;

use crate::args::Cli;

pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "smalti", &mut script);
    Ok(stdout().lock().write_all(&script)?)
}

pub(crate) fn man(folder: Option<&Path>) -> anyhow::Result<()> {
    match folder {
        Some(folder) => {
            files::make_folder(folder)?;
            clap_mangen::generate_to(Cli::command(), folder)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            stdout().lock().write_all(&page)?;
        }
    }
    Ok(())
}
