//! `selftest`: the test vectors and the digest stored in the model.

use serde_json::json;
use smalti_runtime::inspect::inspect;
use smalti_runtime::{Model, selftest};

use super::args::{Args, ModelArgs};
use super::{open, out};

pub(super) fn run(command: &ModelArgs, args: &Args) -> anyhow::Result<u8> {
    let options = open::options(&command.file)?;
    let bytes = options.read(&command.model)?;
    let inspection = inspect(&bytes).map_err(|error| error.in_file(&command.model))?;
    let model = Model::from_bytes(&bytes)?;
    options.trust.check_version(model.record())?;
    drop(bytes);
    let vectors = selftest::run(&model)?;
    let verdict = selftest::judge(&vectors).and_then(|()| inspection.judge_weights());
    if args.json {
        out::json(json!({
            "passed": verdict.is_ok(),
            "weights_intact": inspection.weights_intact(),
            "vectors": vectors,
        }))?;
    } else {
        for vector in &vectors {
            let answer = if vector.holds() { "ok" } else { "OFF" };
            let (pattern, found, allowed) = (vector.pattern, vector.difference, vector.allowed);
            out::line(&format!(
                "pattern {pattern}: {answer}, largest difference {found:.2e} (allowed {allowed:.2e})"
            ))?;
        }
    }
    verdict?;
    out::next(args, &format!("smalti-run run {} IMAGES", out::quoted(&command.model)));
    Ok(0)
}
