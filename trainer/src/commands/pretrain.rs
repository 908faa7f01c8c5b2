//! `smalti pretrain`.

use serde_json::json;
use smalti_trainer::data::Dataset;
use smalti_trainer::pretrain::{self, Resources};

use super::runs;
use crate::args::{Global, PretrainArgs};
use crate::console::log::tell;
use crate::console::out;
use crate::console::progress::Watch;
use crate::console::signals::Stop;
use crate::plan;

pub(super) fn run(args: PretrainArgs, global: &Global) -> anyhow::Result<()> {
    let run = args.run.clone();
    let mut args: PretrainArgs = runs::merge(args, &run, global)?;
    let resources = super::machine(&args.machine)?;
    let path = plan::required(&args.data, "--data", "a folder of pictures or another data set")?;
    let data = Dataset::open(&path, plan::split(&plan::fill(&mut args.split, "train".into()))?)?;
    let settings = plan::pretrain::plan(&mut args, &data)?;
    let dir = runs::open(&args.run, &args)?;
    let resources = Resources { resume: runs::resumes(&args.run, &dir, global), ..resources };
    let vit = &settings.model.encoder;
    tell(
        global,
        &format!(
            "pretraining on {} pictures of {path}: {}x{}x{}, patch {}, width {}, depth {}, {} epochs, {} threads",
            data.len(),
            vit.img_size,
            vit.img_size,
            vit.channels,
            vit.patch_size,
            vit.dim,
            vit.depth,
            settings.course.epochs,
            resources.threads,
            path = path.display(),
        ),
    );
    let mut watch = Watch::new(global, "pretrain", Stop::listen());
    pretrain::pretrain(&settings, &resources, &data, Some(&dir), &mut watch)?;
    let (loss, rate) = (watch.loss(), watch.images_per_s());
    let (steps, seconds) = watch.last().map_or((0, 0.0), |last| (last.step, last.seconds));
    drop(watch);
    if global.json {
        return out::json(json!({
            "run": dir.path(), "steps": steps, "epochs": settings.course.epochs, "pictures": data.len(),
            "loss": loss, "images_per_s": rate, "seconds": seconds,
        }));
    }
    out::text(&format!(
        "{}: pretrained for {steps} steps in {}, loss {loss:.4}, {rate:.0} pictures/s",
        dir.path().display(),
        out::seconds(seconds)
    ))?;
    tell(
        global,
        &format!(
            "next: smalti finetune --data DIR --init {} --out RUN, on labelled pictures",
            dir.path().display()
        ),
    );
    Ok(())
}
