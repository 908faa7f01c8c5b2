//! `completions` and `man`.

use std::io::{Write, stdout};
use std::path::Path;

use clap::CommandFactory;
use smalti_runtime::Error;
use smalti_tools::shell;

use super::args::Args;

pub(super) fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    stdout().lock().write_all(shell::completions(Args::command(), shell, &[]).as_bytes())?;
    Ok(0)
}

pub(super) fn man(folder: Option<&Path>) -> anyhow::Result<u8> {
    match folder {
        Some(folder) => shell::manual_pages(Args::command(), folder)
            .map_err(Error::io("write manual pages to", folder))?,
        None => stdout().lock().write_all(&shell::manual_page(Args::command())?)?,
    }
    Ok(0)
}
