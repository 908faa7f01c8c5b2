//! `verify`: is the model signed by this key?

use std::path::Path;

use serde_json::json;
use smalti_runtime::gate::Limits;
use smalti_runtime::inspect::inspect;
use smalti_runtime::load;
use smalti_runtime::trust::{PublicKey, Trust, signature_beside};

use super::args::{Args, VerifyArgs};
use super::out;

pub(super) fn run(command: &VerifyArgs, args: &Args) -> anyhow::Result<u8> {
    let key = PublicKey::named(&command.pubkey)?;
    let limits = Limits::default();
    let bytes = load::read(&command.model, &limits)?;
    let comment = key.check(&bytes, &signature_beside(&command.model)?)?;
    if let Some(lowest) = &command.min_version {
        let trust = Trust { key: None, min_version: Some(lowest.clone()) };
        trust.check_version(inspect(&bytes)?.record.as_ref())?;
    }
    match args.json {
        true => out::json(json!({ "verified": true, "comment": comment }))?,
        false => out::line(&format!("signed by this key: {comment}"))?,
    }
    let (model, key) = (out::quoted(&command.model), out::quoted(Path::new(&command.pubkey)));
    out::next(args, &format!("smalti-run run {model} IMAGES --pubkey {key}"));
    Ok(0)
}
