//! What a `smalti train` begins with.

use std::path::{Path, PathBuf};

use smalti_models::{VitConfig, starts};
use smalti_trainer::Result;

use super::images::Images;
use crate::args::TrainArgs;
use crate::args::training::SizeArgs;
use crate::plan::finetune::Init;
use crate::plan::{check_network, fill, images::shape};

/// The model with convolutions.
const HYBRID: &str = "hybrid-nano";
/// Images smaller than this go into patches: four stages of convolutions would leave too few tokens.
const HYBRID_FROM: usize = 64;

/// What the labels are learned on top of.
pub(super) struct Start {
    pub(super) name: &'static str,
    /// A run, a file, or the name of a start in the program; none from scratch.
    pub(super) file: Option<PathBuf>,
    /// The model's size, as far as it is not that of the start.
    pub(super) size: SizeArgs,
}

impl Start {
    /// What everything begins with: what `--start` names; else the start in the program, for photos and a model of its size;
    /// else nothing.
    pub(super) fn choose(args: &TrainArgs, images: &Images) -> Result<Start> {
        let own = &args.size;
        match args.start.as_deref().and_then(Path::to_str) {
            Some("scratch") => return Start::scratch(args, images),
            None | Some("auto") => {}
            Some(name) => {
                check_network(Path::new(name), &["auto", "scratch"])?;
                let name = starts::find(name).map_or("given", |start| start.name);
                return Ok(Start { name, file: args.start.clone(), size: own.clone() });
            }
        }
        let start = &starts::STARTS[0];
        let says_another = SizeArgs { img_size: None, model: None, channels: None, ..own.clone() }
            != SizeArgs::default()
            || own.model.as_deref().is_some_and(|model| model != HYBRID)
            || own.channels.is_some_and(|channels| channels != 3);
        if says_another || own.img_size.unwrap_or(shape(&images.all)?.img_size) < HYBRID_FROM {
            return Start::scratch(args, images);
        }
        let size = SizeArgs { img_size: own.img_size, ..SizeArgs::default() };
        Ok(Start { name: start.name, file: Some(start.name.into()), size })
    }

    /// No start: the size is what the arguments say; else with convolutions, unless the images are too small for them.
    fn scratch(args: &TrainArgs, images: &Images) -> Result<Start> {
        let mut size = args.size.clone();
        let found = shape(&images.all)?;
        let side = size.img_size.unwrap_or(found.img_size);
        fill(&mut size.channels, found.channels);
        if size.model.is_none() && size.stem.is_none() {
            let hybrid = side >= HYBRID_FROM && size.patch_size.is_none_or(|patch| patch == 16);
            size.model = Some(if hybrid { HYBRID } else { "nano" }.into());
            fill(&mut size.img_size, if hybrid { side / 16 * 16 } else { side });
        }
        Ok(Start { name: "scratch", file: None, size })
    }

    /// What `--init` would say.
    pub(super) fn source(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| "scratch".into())
    }

    /// The same, read.
    pub(super) fn init(&self) -> Result<Init> {
        Init::read(&Some(self.source()))
    }

    /// The run that it is, if it is one.
    pub(super) fn run(&self) -> Option<&Path> {
        self.file.as_deref().filter(|path| path.is_dir())
    }

    /// The same model from scratch, where the start knows other people's photos alone.
    pub(super) fn rival(&self, vit: &VitConfig) -> Option<Start> {
        starts::find(self.name)?;
        let size = SizeArgs {
            model: Some(HYBRID.into()),
            img_size: Some(vit.img_size),
            channels: Some(vit.channels),
            ..SizeArgs::default()
        };
        Some(Start { name: "scratch", file: None, size })
    }

    /// What it is, in a few words.
    pub(super) fn describe(&self) -> String {
        match (starts::find(self.name), &self.file) {
            (Some(start), _) => {
                format!("starting from {}, which has learned from {}", start.name, start.learned_from)
            }
            (None, Some(file)) => format!("starting from {}", file.display()),
            (None, None) => "starting from scratch".into(),
        }
    }

    /// Whether the model has convolutions, as far as is known: of what is given it is assumed.
    pub(super) fn has_convolutions(&self) -> bool {
        self.file.is_some()
            || self.size.model.as_deref() == Some(HYBRID)
            || self.size.stem.as_deref() == Some("convolutions")
    }
}
