//! `smalti distil`.

use serde_json::json;
use smalti_trainer::data::Dataset;
use smalti_trainer::run::RunDir;
use smalti_trainer::stages::distil::{self, Distilling};
use smalti_trainer::teacher::{self, Cache};
use smalti_trainer::train::cost::cpu_per_step;
use smalti_trainer::train::{ExecConfig, Outcome};

use super::runs;
use crate::args::{DistilArgs, Global};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::console::progress::{self, Watch};
use crate::console::signals::Stop;
use crate::plan;
use crate::plan::finetune::Init;

pub(crate) fn run(args: DistilArgs, global: &Global) -> anyhow::Result<()> {
    let run = args.run.clone();
    let mut args: DistilArgs = runs::merge(args, "distil", &run, global)?;
    let exec = runs::exec(&args.run, super::machine(&args.machine)?)?;
    let path = plan::required(&args.data, "--data", "a folder of images or another data set")?;
    let data = Dataset::open(&path, plan::split(&plan::fill(&mut args.split, "train".into()))?)?;
    let images = data.len();
    let Done { dir, outcome, rate, loading } = execute(args, &data, &exec, global, &Stop::listen())?;
    let Outcome { loss, steps, seconds, .. } = outcome;
    let place = dir.path().display();
    if global.json {
        return out::json(json!({
            "run": dir.path(), "steps": steps, "images": images, "loss": loss, "images_per_s": rate,
            "seconds": seconds, "loading": loading,
        }));
    }
    out::text(&format!(
        "{place}: distilled for {steps} steps in {}, loss {loss:.4}, {rate:.0} images/s",
        out::seconds(seconds)
    ))?;
    let place = out::quoted(dir.path());
    next(
        global,
        &format!("smalti finetune --data DIR --init {place} --head probe --out RUN, on labelled images"),
    );
    Ok(())
}

/// What a distillation came to.
pub(crate) struct Done {
    pub(crate) dir: RunDir,
    pub(crate) outcome: Outcome,
    /// Images a second, and the fraction of the time that went by waiting for them.
    pub(crate) rate: f64,
    pub(crate) loading: f64,
}

/// Distils on `data` as the arguments say.
pub(crate) fn execute(
    mut args: DistilArgs,
    data: &Dataset,
    exec: &ExecConfig,
    global: &Global,
    stop: &Stop,
) -> anyhow::Result<Done> {
    let teacher = plan::teacher::open(&args.teacher)?;
    plan::fill(&mut args.init, "scratch".into());
    let init = Init::read(&args.init)?;
    let cpu_of_teacher = match args.optim.budget {
        Some(_) => plan::distil::crops_within(&mut args, data.len(), teacher::cpu_per_image(&*teacher)?)?,
        None => 0.0,
    };
    let mut settings = plan::distil::plan(&mut args, &init, &*teacher, data)?;
    if plan::optim::spend_budget(&mut args.optim, cpu_of_teacher, || {
        let blank = Cache::blank(teacher.config().width, settings.tokens(), data.len());
        cpu_per_step(&mut Distilling::new(&settings, exec, data, blank, None)?, exec)
    })? {
        settings = plan::distil::plan(&mut args, &init, &*teacher, data)?;
    }
    let inputs = [
        ("--data", args.data.as_ref()),
        ("--teacher", args.teacher.teacher.as_ref()),
        ("--init", args.init.as_ref()),
    ];
    let dir = runs::open(&args.run, "distil", &args, &inputs)?;
    let (input, vit) = (&settings.teacher.preprocess, &settings.encoder);
    tell(
        global,
        &format!(
            "{} sees {} crops of each of {} images at {}x{}; the student learns its {} values{} at {}x{}, {}",
            args.teacher.teacher.clone().unwrap_or_default().display(),
            settings.crops.passes,
            data.len(),
            input.img_size,
            input.img_size,
            settings.teacher.width,
            settings.tokens().map_or(String::new(), |tokens| format!(" and {} of each place", tokens.values)),
            vit.img_size,
            vit.img_size,
            runs::workers(exec),
        ),
    );
    dir.save_settings()?;
    let mut seen = progress::Count::new(global, "teacher", "images");
    let cache =
        Cache::fill(&dir, &*teacher, &settings.crops, data, settings.tokens(), exec, &mut |done, all| {
            seen.show(done, all);
            stop.code()
        })?;
    drop(seen);
    let mut watch = Watch::new(global, "distil", stop.clone());
    let outcome = distil::distil(&settings, exec, data, cache, init.file(), Some(&dir), &mut watch)?;
    let (rate, loading) = (watch.images_per_s(), watch.loading());
    drop(watch);
    runs::tell_waiting(global, loading, None);
    Ok(Done { dir, outcome, rate, loading })
}
