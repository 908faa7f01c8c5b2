//! `smalti completions` and `smalti man`.

use std::io::{Write, stdout};
use std::path::Path;

use clap::CommandFactory;
use smalti_models::starts::STARTS;
use smalti_tools::shell;
use smalti_trainer::Error;

use crate::args::Cli;

pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut words: Vec<_> = ["auto", "none", "scratch"].map(|word| (word, vec![word])).into();
    words.push(("START", STARTS.iter().map(|start| start.name).collect()));
    let script = shell::completions(Cli::command(), shell, &words);
    Ok(stdout().lock().write_all(script.as_bytes())?)
}

pub(crate) fn man(folder: Option<&Path>) -> anyhow::Result<()> {
    match folder {
        Some(folder) => shell::manual_pages(Cli::command(), folder)
            .map_err(Error::file("write manual pages to", folder))?,
        None => stdout().lock().write_all(&shell::manual_page(Cli::command())?)?,
    }
    Ok(())
}
