//! What a `smalti train` begins with.

use std::path::{Path, PathBuf};

use smalti_models::stem::STRIDE;
use smalti_models::{VitConfig, starts};
use smalti_trainer::Result;

use super::images::Images;
use crate::args::TrainArgs;
use crate::args::training::SizeArgs;
use crate::plan::finetune::Init;
use crate::plan::images::{InputShape, shape};
use crate::plan::{check_network, fill};

/// The model with convolutions.
const HYBRID: &str = "hybrid-nano";
/// Models of smaller images than this have patches: four stages of convolutions would leave too few tokens.
const HYBRID_FROM: usize = 64;
/// Images of at least this side are enlarged for convolutions, which learn more from them than patches do (CIFAR-10, 5,000
/// labels: `docs/accuracy.md`). Of smaller ones not much is left to see.
const ENLARGED_FROM: usize = 24;

/// What the labels are learned on top of.
pub(super) struct Start {
    pub(super) name: &'static str,
    /// A run, a file, or the name of a start in the program; none from scratch.
    pub(super) file: Option<PathBuf>,
    /// The model's size, as far as it is not that of the start.
    pub(super) size: SizeArgs,
}

/// The side of a model with convolutions for these images, where the arguments do not say it.
fn side(own: &SizeArgs, found: InputShape) -> usize {
    let enlarged =
        if found.img_size < ENLARGED_FROM { found.img_size } else { found.img_size.max(HYBRID_FROM) };
    own.img_size.unwrap_or(enlarged)
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
        if says_another || side(own, shape(&images.all)?) < HYBRID_FROM {
            return Start::scratch(args, images);
        }
        let size = SizeArgs { img_size: own.img_size, ..SizeArgs::default() };
        Ok(Start { name: start.name, file: Some(start.name.into()), size })
    }

    /// No start: the size is what the arguments say; else with convolutions, unless the images are too small for them.
    fn scratch(args: &TrainArgs, images: &Images) -> Result<Start> {
        let mut size = args.size.clone();
        let found = shape(&images.all)?;
        fill(&mut size.channels, found.channels);
        if size.model.is_none() && size.stem.is_none() {
            let side = side(&size, found);
            let hybrid = side >= HYBRID_FROM && size.patch_size.is_none_or(|patch| patch == STRIDE);
            size.model = Some(if hybrid { HYBRID } else { "nano" }.into());
            fill(&mut size.img_size, if hybrid { side / STRIDE * STRIDE } else { found.img_size });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_images_are_enlarged_unless_the_user_says_their_size() {
        let side_of = |img_size, own: Option<usize>| {
            let own = SizeArgs { img_size: own, ..SizeArgs::default() };
            side(&own, InputShape { img_size, channels: 3 })
        };
        assert_eq!([8, 20, 24, 32, 60, 64, 80].map(|size| side_of(size, None)), [8, 20, 64, 64, 64, 64, 80]);
        assert_eq!(side_of(28, Some(28)), 28);
        assert_eq!(side_of(28, Some(96)), 96);
    }
}
