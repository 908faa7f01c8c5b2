//! `smalti quickstart`: the whole job in one command.
//!
//! Images are drawn (or the user's taken) and looked over; an autoencoder is pretrained on all of them without
//! labels; a classifier is fine-tuned on a few labels, from the pretrained encoder and from scratch, over some draws
//! of labels; the first is exported and run as on a device. [`recipe`] says how much of everything; the numbers of
//! epochs are chosen so that it ends in time on this machine, all else follows from fixed seeds.

mod device;
mod images;
mod recipe;
mod report;
mod settings;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use smalti_trainer::data::{Dataset, LabelSpec, Splits, audit, pick_labels};
use smalti_trainer::evaluate::{self, Predictions};
use smalti_trainer::export::{self, Details, InputForm};
use smalti_trainer::run::owner::{Claim, Owner};
use smalti_trainer::run::{Create, RunDir};
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned};
use smalti_trainer::stages::pretrain::{self, PretrainSettings};
use smalti_trainer::train::step::GradLanes;
use smalti_trainer::train::{ExecConfig, OptimConfig};
use smalti_trainer::{Error, Result};

use crate::args::{Global, PretrainArgs, QuickstartArgs};
use crate::commands::{self, runs};
use crate::console::log::tell;
use crate::console::out::{self, percent, seconds};
use crate::console::progress::Watch;
use crate::console::signals::Stop;
use crate::plan;
use crate::plan::finetune::Init;
use images::Images;
use recipe::{FULL, QUICK, Recipe, Speed};
use report::{Draw, Report};

/// Minutes that it takes, unless told otherwise: less than the three that are promised.
const MINUTES: f64 = 2.75;
/// Images that are looked at before training.
const LOOKED_AT: usize = 2000;
/// The files that a quickstart leaves in its folder, next to the runs `pretrain/` and `finetune/`.
const FILES: [&str; 2] = ["model.onnx", "report.json"];
/// The images that it draws.
const DATA: &str = "data";

/// What stays the same throughout.
struct Quickstart<'a> {
    global: &'a Global,
    recipe: Recipe,
    start: Instant,
    /// Seconds for everything.
    budget: f64,
    out: PathBuf,
    owner: Owner,
    overwrite: bool,
    stop: Stop,
    exec: ExecConfig,
    /// Epochs that the user fixed.
    epochs: [Option<u64>; 2],
}

pub(crate) fn run(args: &QuickstartArgs, global: &Global) -> anyhow::Result<()> {
    let quick = args.quick == Some(true);
    let minutes = args.minutes.unwrap_or(if quick { MINUTES / 10.0 } else { MINUTES });
    if !(minutes > 0.0 && minutes <= 1e4) {
        return Err(Error::Usage(format!("minutes is {minutes}: expected above 0, at most 10000")).into());
    }
    let out = args.out.clone().unwrap_or_else(|| "smalti-quickstart".into());
    let overwrite = args.overwrite == Some(true);
    let job = Quickstart {
        global,
        recipe: if quick { QUICK } else { FULL },
        start: Instant::now(),
        budget: minutes * 60.0,
        owner: claim(&out, overwrite, args.data.as_ref())?,
        out,
        overwrite,
        stop: Stop::listen(),
        exec: commands::machine(&args.machine)?,
        epochs: [args.epochs, args.finetune_epochs],
    };
    let report = job.run(args.data.as_deref(), quick).map_err(|error| job.explain_stop(error))?;
    let object = out::object(serde_json::to_value(&report)?);
    job.owner.write("report.json", format!("{object:#}\n").as_bytes())?;
    if global.json {
        return out::text(&object.to_string());
    }
    out::text(&report.table())?;
    job.say_what_is_next(&report, args.data.is_some());
    Ok(())
}

/// Takes the folder: refuses what is there already, or removes what smalti wrote and nothing else.
fn claim(out: &Path, overwrite: bool, data: Option<&PathBuf>) -> Result<Owner> {
    let mut names = FILES.to_vec();
    if data.is_none() {
        names.push(DATA);
    }
    let inputs: Vec<(&str, PathBuf)> = data.iter().map(|path| ("--data", (*path).clone())).collect();
    let claim = Claim {
        written_by: "quickstart",
        names: &names,
        overwrite,
        inputs: &inputs,
        legacy: &[],
        resumable: false,
    };
    claim.check(out)?;
    for stage in ["pretrain", "finetune"] {
        Create { overwrite, inputs: &inputs }.check(&out.join(stage), stage)?;
    }
    Owner::claim(out, &claim)
}

impl Quickstart<'_> {
    fn tell(&self, text: &str) {
        tell(self.global, text);
    }

    /// Seconds that are left.
    fn left(&self) -> f64 {
        self.budget - self.start.elapsed().as_secs_f64()
    }

    /// Says what became of the work where a signal stopped it.
    fn explain_stop(&self, error: anyhow::Error) -> anyhow::Error {
        if self.stop.code().is_none() {
            return error;
        }
        let out = self.out.display();
        error.context(format!(
            "stopped by a signal; what was done so far is in {out}: start again with --overwrite, or continue the \
             pretraining with `smalti pretrain --resume --out {out}/pretrain`"
        ))
    }

    fn run(&self, own: Option<&Path>, quick: bool) -> anyhow::Result<Report> {
        let mut images = self.images(own)?;
        let (mut args, settings) = self.plan_pretraining(&images)?;
        let speed = self.measure(&settings, &images)?;
        self.stop.check()?;
        if own.is_some() {
            images.train = self.as_many_as_fit(&images.train, &speed);
        }
        let labelled = images.train.class_counts().iter().sum::<usize>();
        let labels = labelled.min(self.recipe.labels_per_class * images.train.classes().len());
        let sizes = [labels, images.test.as_ref().map_or(0, Dataset::len)];
        let epochs = speed.pretrain_epochs(&self.recipe, self.left(), images.train.len(), sizes);
        args.optim.epochs = Some(self.epochs[0].unwrap_or(epochs));
        let rate = self.pretrain(args, &images.train)?;
        let mut report = Report {
            pretrained_accuracy: None,
            scratch_accuracy: None,
            runtime_agreement: None,
            largest_logit_difference: None,
            runtime_accuracy: None,
            latency_ms: None,
            file_kb: None,
            seconds: 0.0,
            model: None,
            out: self.out.clone(),
            images: images.train.len(),
            test_images: sizes[1],
            labels,
            draws: Vec::new(),
            pretrain_epochs: self.epochs[0].unwrap_or(epochs),
            finetune_epochs: None,
            finetune_steps: None,
            pretrain_images_per_s: rate,
            threads: self.exec.threads,
            quick,
        };
        if let Some(test) = &images.test {
            let epochs = speed.finetune_epochs(&self.recipe, self.left(), sizes);
            self.label_efficiency(&mut report, &images, test, self.epochs[1].unwrap_or(epochs))?;
        } else {
            self.tell(
                "the images carry no labels, so that is all: sort some of them into one folder for each class, and \
                 `smalti finetune` makes a classifier of it",
            );
        }
        report.seconds = self.start.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Draws images or opens the user's, and looks them over.
    fn images(&self, own: Option<&Path>) -> anyhow::Result<Images> {
        let path = own.map_or_else(|| self.out.join("data"), Path::to_owned);
        if own.is_none() {
            let count = self.recipe.train + self.recipe.test;
            self.tell(&format!("1 drawing {count} images into {}", path.display()));
            images::draw(&path, &self.recipe, &self.owner, &|| self.stop.code())?;
        }
        let report = audit::look(&Splits::read(&path)?, LOOKED_AT)?;
        self.tell(&format!("2 the images\n{}", report.to_string().trim_end()));
        let images = images::open(&path)?;
        if images.held_out {
            self.tell("there is no test part: a fifth of the labelled images is kept back to measure on");
        }
        Ok(images)
    }

    /// The user's images, not more than can be read and seen a few times in the time.
    fn as_many_as_fit(&self, train: &Dataset, speed: &Speed) -> Dataset {
        // Looking them over meant reading them, so that is how long it takes.
        let read = self.start.elapsed().as_secs_f64() / train.len().clamp(1, LOOKED_AT) as f64;
        let most = (0.2 * self.budget / read).min(0.1 * self.budget * speed.pretrain).max(100.0) as usize;
        if train.len() > most {
            self.tell(&format!("taking {most} of {} images, to end in time", train.len()));
        }
        images::at_most(train, most)
    }

    /// How fast this machine does what is planned.
    fn measure(&self, pretrain: &PretrainSettings, images: &Images) -> Result<Speed> {
        let labelled = images.test.is_some();
        let finetune = labelled.then(|| {
            let mut args = self.finetune_args(images, 0, 0, 1);
            args.size.img_size = Some(pretrain.preprocess.img_size);
            args.size.channels = Some(pretrain.preprocess.channels);
            (args.size.dim, args.size.depth, args.size.heads) =
                (Some(self.recipe.dim), Some(self.recipe.depth), Some(self.recipe.heads));
            plan::finetune::plan(&mut args, &Init::Scratch, &images.train)
        });
        Speed::measure(pretrain, finetune.transpose()?.as_ref(), &images.train, &self.exec)
    }

    /// Pretrains; gives the images a second.
    fn pretrain(&self, mut args: PretrainArgs, train: &Dataset) -> Result<f64> {
        let settings = plan::pretrain::plan(&mut args, train)?;
        self.tell(&format!(
            "3 pretraining on {} images without labels, {} epochs",
            train.len(),
            settings.optim.epochs
        ));
        let dir = runs::open(&args.run, "pretrain", &args, &[("--data", args.data.as_ref())])?;
        let mut watch = Watch::new(self.global, "pretrain", self.stop.clone());
        pretrain::pretrain(&settings, &self.exec, train, Some(&dir), &mut watch)?;
        Ok(watch.images_per_s())
    }

    /// Fine-tunes from the pretrained encoder and from scratch on each draw, exports the first, runs it.
    fn label_efficiency(
        &self,
        report: &mut Report,
        images: &Images,
        test: &Dataset,
        epochs: u64,
    ) -> anyhow::Result<()> {
        let (recipe, train) = (&self.recipe, &images.train);
        let init = Init::read(&Some(self.out.join("pretrain")))?;
        self.tell(&format!(
            "4 fine-tuning on {} labels, {epochs} epochs each, pretrained and from scratch",
            report.labels
        ));
        let mut draws = Vec::new();
        for seed in 0..recipe.draws {
            let picked = train.select(&pick_labels(train, &LabelSpec::Count(report.labels), seed)?);
            let mut args = self.finetune_args(images, report.labels, seed, epochs);
            let settings = plan::finetune::plan(&mut args, &init, &picked)?;
            let steps = picked.len().div_ceil(settings.optim.batch_size.min(picked.len()).max(1));
            report.finetune_steps = Some(steps as u64 * epochs);
            let inputs = [("--data", args.data.as_ref()), ("--init", args.init.as_ref())];
            let open = || runs::open(&args.run, "finetune", &args, &inputs);
            let dir = (seed == 0).then(open).transpose()?;
            let (model, found) = self.finetune(&settings, &picked, test, Some(&init), dir.as_ref())?;
            let pretrained = found.accuracy()?;
            let scratch = FinetuneSettings {
                optim: OptimConfig { layer_decay: 1.0, ..settings.optim.clone() },
                ..settings.clone()
            };
            let scratch = self.finetune(&scratch, &picked, test, None, None)?.1.accuracy()?;
            self.tell(&format!(
                "  draw {seed}: {} pretrained, {} from scratch",
                percent(pretrained),
                percent(scratch)
            ));
            draws.push(Draw { seed, pretrained, scratch });
            if seed == 0 {
                let file = self.export(&model, &settings)?;
                self.tell(&format!("  running {} as on a device", file.display()));
                report.add_device(&file, &device::run(&file, test, &found)?);
            }
        }
        report.finetune_epochs = Some(epochs);
        report.add_draws(draws);
        Ok(())
    }

    fn finetune(
        &self,
        settings: &FinetuneSettings,
        train: &Dataset,
        test: &Dataset,
        init: Option<&Init>,
        run: Option<&RunDir>,
    ) -> Result<(Finetuned, Predictions)> {
        let mut watch = Watch::new(self.global, "finetune", self.stop.clone());
        let images = finetune::Images::labelled(train);
        let file = init.and_then(Init::file);
        let (model, _) = finetune::finetune(settings, &self.exec, &images, file, run, &mut watch)?;
        let loader = evaluate::loader(test, &model.preprocess, &self.exec)?;
        let lanes = GradLanes::new(self.exec.threads, 0)?;
        let found = evaluate::predict(&model.model, &model.params, &loader, &lanes, &|| self.stop.code())?;
        Ok((model, found))
    }

    fn export(&self, model: &Finetuned, settings: &FinetuneSettings) -> Result<PathBuf> {
        let details = Details {
            names: model.labels.clone(),
            preprocess: model.preprocess.clone(),
            description: "Made by smalti quickstart".into(),
            license: "unspecified".into(),
            version: "1".into(),
            training: json!(settings),
        };
        self.owner
            .write("model.onnx", &export::export(&model.model, &model.params, &details, InputForm::U8Nhwc)?)
    }

    fn say_what_is_next(&self, report: &Report, own: bool) {
        let place = self.out.display();
        self.tell(&format!(
            "left in {place}: the runs pretrain/ and finetune/, reconstructions in pretrain/recon/"
        ));
        self.tell(&format!(
            "numbers depend on the epochs that fit into {}: --minutes gives more time, --epochs fixes them",
            seconds(self.budget)
        ));
        if let Some(model) = &report.model {
            self.tell(&format!("run it:            smalti-run run {} IMAGES", model.display()));
        }
        if !own {
            self.tell("on your own photos: smalti quickstart --data DIR --out RUN, one folder for each class in DIR");
        }
        self.tell("step by step:      smalti data DIR; smalti pretrain --data DIR --out RUN; smalti finetune --help");
    }
}
