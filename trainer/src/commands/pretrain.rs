//! `smalti pretrain`.

use serde_json::json;
use smalti_trainer::data::Dataset;
use smalti_trainer::stages::pretrain::{self, Pretraining};
use smalti_trainer::train::ExecConfig;
use smalti_trainer::train::cost::cpu_per_step;

use super::job::Job;
use super::runs;
use crate::args::{Global, PretrainArgs};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::console::progress::Watch;
use crate::plan;

pub(crate) fn run(args: PretrainArgs, global: &Global) -> anyhow::Result<()> {
    let job = Job::join(global)?;
    let global = &job.global;
    let run = args.run.clone();
    let mut args = match job.told()? {
        Some(args) => args,
        None => runs::merge(args, "pretrain", &run, global)?,
    };
    let exec = runs::exec(&args.run, super::machine(&args.machine)?)?;
    let path = plan::required(&args.data, "--data", "a folder of images or another data set")?;
    let data = Dataset::open(&path, plan::split(&plan::fill(&mut args.split, "train".into()))?)?;
    let mut settings = plan::pretrain::plan(&mut args, &data)?;
    if plan::optim::spend_budget(&mut args.optim, 0.0, || {
        cpu_per_step(&mut Pretraining::new(&settings, &exec, &data)?, &exec)
    })? {
        settings = plan::pretrain::plan(&mut args, &data)?;
    }
    let inputs = [("--data", args.data.as_ref())];
    let dir = job.is_first().then(|| runs::open(&args.run, "pretrain", &args, &inputs)).transpose()?;
    job.tell(&args)?;
    let exec = ExecConfig { ranks: job.ranks(), ..exec };
    let vit = &settings.model.encoder;
    tell(
        global,
        &format!(
            "pretraining on {} images of {path}: {}x{}x{}, patch {}, width {}, depth {}, {} epochs, {}",
            data.len(),
            vit.img_size,
            vit.img_size,
            vit.channels,
            vit.patch_size,
            vit.dim,
            vit.depth,
            settings.optim.epochs,
            runs::workers(&exec),
            path = path.display(),
        ),
    );
    let mut watch = Watch::new(global, "pretrain", job.stop());
    let (_, outcome) = pretrain::pretrain(&settings, &exec, &data, dir.as_ref(), &mut watch)?;
    job.leave();
    let Some(dir) = dir else { return Ok(()) };
    let (rate, loading, waiting) = (watch.images_per_s(), watch.loading(), watch.waiting());
    let (loss, steps, seconds) = (outcome.loss, outcome.steps, outcome.seconds);
    drop(watch);
    runs::tell_waiting(global, loading, waiting);
    if global.json {
        return out::json(json!({
            "run": dir.path(), "steps": steps, "epochs": settings.optim.epochs, "images": data.len(),
            "loss": loss, "images_per_s": rate, "seconds": seconds, "ranks": runs::size(&exec),
            "loading": loading, "waiting": waiting,
        }));
    }
    out::text(&format!(
        "{}: pretrained for {steps} steps in {}, loss {loss:.4}, {rate:.0} images/s",
        dir.path().display(),
        out::seconds(seconds)
    ))?;
    let place = out::quoted(dir.path());
    next(global, &format!("smalti finetune --data DIR --init {place} --out RUN, on labelled images"));
    Ok(())
}
