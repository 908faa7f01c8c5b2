//! `doctor`: what this machine offers.

use smalti_runtime::doctor;

use super::args::Args;
use super::out;

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let machine = doctor::look();
    match args.json {
        true => out::json(serde_json::to_value(&machine)?)?,
        false => out::line(&format!("version    smalti-run {}\n{machine}", machine.version))?,
    }
    out::next(args, "smalti-run bench MODEL, for the speed of a model here");
    Ok(0)
}
