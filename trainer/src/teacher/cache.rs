//! What a teacher says of a data set's crops, kept in files.
//!
//! One file a pass over the data set, `pass-000.safetensors`, so that an interrupted command continues where it was:
//!
//! ```text
//! embeddings   f16 [images, width]   row i: the pass's crop of image i; zeros where the image cannot be used
//! metadata     smalti: JSON of the pass's number, the teacher, the crops and the images
//! ```
//! Where a student learns tokens, too, they lie beside it ([`super::token_files`]). Every file says which teacher, crops and
//! images it belongs to; one of others is refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::token_files::{Projection, TokenFiles, TokenTargets};
use super::{Teacher, TeacherConfig};
use crate::data::{Augment, Dataset, Fingerprint, Loader, LoaderSettings, View};
use crate::error::{Error, Result};
use crate::model::weights::file;
use crate::run::RunDir;
use crate::train::ExecConfig;

/// Images of a batch that a teacher embeds.
const BATCH: usize = 64;
/// The name of the only tensor.
const EMBEDDINGS: &str = "embeddings";

/// Which parts of the images a teacher sees: as many random crops of each as there are passes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Crops {
    /// Crops of each image.
    pub passes: u64,
    /// How each is cut: crop and flip alone.
    pub augment: Augment,
    /// The short side of the images that they are cut from, in pixels.
    pub cut_from: usize,
    /// The seed of the draws.
    pub seed: u64,
}

impl Crops {
    /// The view of a network with this input.
    pub fn view(&self, config: &TeacherConfig) -> View {
        View { cut_from: Some(self.cut_from), ..View::new(self.augment, config.preprocess.clone()) }
    }
}

/// The embeddings of all passes.
#[derive(Clone, Debug)]
pub struct Cache {
    width: usize,
    passes: Vec<PathBuf>,
    /// The pass in memory.
    current: Option<(usize, Vec<f32>)>,
    /// Mean of each value, and the standard deviation of all of them around it, over the first pass.
    statistics: (Vec<f32>, f32),
    tokens: Option<TokenFiles>,
}

impl Cache {
    /// Lets the teacher see every pass that the run has no file of, and keeps `tokens`, too, if they are asked for and the
    /// teacher has a grid. `progress` hears of images embedded and images in all, and says whether to stop.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `progress` says so; files of another teacher or of other images.
    pub fn fill(
        run: &RunDir,
        teacher: &dyn Teacher,
        crops: &Crops,
        data: &Dataset,
        tokens: Option<TokenTargets>,
        exec: &ExecConfig,
        progress: &mut dyn FnMut(usize, usize) -> Option<u8>,
    ) -> Result<Cache> {
        // Which images have a label does not matter here.
        let (config, of) = (teacher.config(), data.without_labels().fingerprint());
        let (images, mut done) = (data.len(), 0);
        let settings = LoaderSettings {
            views: vec![crops.view(config)],
            seed: crops.seed,
            threads: exec.loader_threads,
            cache: exec.cache.clone(),
            max_bad: exec.max_bad,
            ..LoaderSettings::new(BATCH, config.preprocess.clone())
        };
        let loader = Loader::new(data.clone(), settings)?;
        let about = describe(0, config, crops, &of);
        let project = |(grid, targets)| Projection::open(run, teacher, grid, targets, &loader, about.clone());
        let projection = teacher.grid().zip(tokens).map(project).transpose()?;
        let row = projection.as_ref().map_or(0, Projection::row);
        let mut passes = Vec::new();
        for pass in 0..crops.passes {
            let name = pass_name(pass);
            let (path, about) = (run.path().join(&name), describe(pass, config, crops, &of));
            let has_embeddings =
                path.is_file() && read(&path, Some(&about), [images, config.width]).map(|_| true)?;
            let has_tokens =
                projection.as_ref().map_or(Ok(true), |projection| projection.has(run, pass, images))?;
            if !has_embeddings || !has_tokens {
                let (mut rows, mut tokens) = (vec![0.0; images * config.width], vec![0.0; images * row]);
                for batch in loader.epoch(pass, 0) {
                    let batch = batch?;
                    let found = match &projection {
                        Some(projection) => {
                            let seen = teacher.see(batch.pixels())?;
                            place(&mut tokens, row, &batch.ids, &projection.targets(&seen.tokens));
                            seen.embeddings
                        }
                        None => teacher.embed(batch.pixels())?,
                    };
                    place(&mut rows, config.width, &batch.ids, &found);
                    done += batch.total;
                    if let Some(code) = progress(done, images * crops.passes as usize) {
                        return Err(Error::Interrupted { step: 0, code });
                    }
                }
                let path = run.own(&name)?;
                path.parent().map_or(Ok(()), crate::files::make_folder)?;
                file::save_half(&path, [(EMBEDDINGS, &[images, config.width][..], &rows[..])], &about)?;
                if let Some(projection) = &projection {
                    projection.save(run, pass, &tokens)?;
                }
            }
            passes.push(path);
        }
        let tokens = (row > 0).then(|| TokenFiles::new(run.path(), images, row));
        Ok(Cache { tokens, ..Cache::open(passes, [images, config.width])? })
    }

    /// What an earlier run keeps of a teacher's embeddings of these very images; none if it keeps nothing of them.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn of_run(run: &Path, data: &Dataset) -> Result<Option<Cache>> {
        let (mut passes, mut width) = (Vec::new(), 0);
        loop {
            let path = run.join(pass_name(passes.len() as u64));
            if !path.is_file() {
                break;
            }
            let (tensors, details) = file::load(&path)?;
            let shape = tensors.get(EMBEDDINGS).map(|tensor| tensor.shape.clone());
            let Some(&[images, of_pass]) = shape.as_deref() else { return Ok(None) };
            let is_of_these =
                details.get("images") == Some(&json!(data.without_labels().fingerprint().digest));
            if !is_of_these || images != data.len() || (width != 0 && of_pass != width) {
                return Ok(None);
            }
            width = of_pass;
            passes.push(path);
        }
        if passes.is_empty() { Ok(None) } else { Cache::open(passes, [data.len(), width]).map(Some) }
    }

    fn open(passes: Vec<PathBuf>, shape: [usize; 2]) -> Result<Cache> {
        let first = passes.first().ok_or_else(|| Error::Usage("crops is 0: expected 1 or more".into()))?;
        let rows = read(first, None, shape)?;
        let statistics = statistics(&rows, shape[1]);
        Ok(Cache { width: shape[1], passes, current: Some((0, rows)), statistics, tokens: None })
    }

    /// A cache of zeros in place of one that is yet to be filled: to time a step.
    pub fn blank(width: usize, tokens: Option<TokenTargets>, images: usize) -> Cache {
        let statistics = (vec![0.0; width], 1.0);
        Cache {
            width,
            passes: vec![PathBuf::new()],
            current: Some((0, vec![0.0; images * width])),
            statistics,
            tokens: tokens.map(|targets| TokenFiles::blank(targets.row())),
        }
    }

    /// Values of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many crops of each image there are embeddings of.
    pub fn passes(&self) -> usize {
        self.passes.len()
    }

    /// The embeddings `[images, width]` of all images in one pass, as the teacher gave them; zeros where an image could not
    /// be used.
    ///
    /// # Errors
    /// A file of the cache that is gone.
    pub fn pass(&mut self, pass: usize) -> Result<&[f32]> {
        if self.current.as_ref().is_none_or(|(current, _)| *current != pass) {
            let images = self.current.take().map_or(0, |(_, rows)| rows.len()) / self.width.max(1);
            let path =
                self.passes.get(pass).ok_or_else(|| Error::Usage(format!("there is no pass {pass}")))?;
            self.current = Some((pass, read(path, None, [images, self.width])?));
        }
        Ok(self.current.as_ref().map_or(&[][..], |(_, rows)| rows))
    }

    /// The targets `[images, width + tokens]` of these images in epoch `epoch`: embeddings, centred and divided by their common
    /// standard deviation, so that directions keep their proportions, and tokens if they are learned.
    ///
    /// # Errors
    /// A file of the cache that is gone.
    pub fn targets(&mut self, epoch: u64, images: &[u32]) -> Result<Vec<f32>> {
        let pass = (epoch % self.passes.len() as u64) as usize;
        let width = self.width;
        self.pass(pass)?;
        let rows = self.current.as_ref().map_or(&[][..], |(_, rows)| rows);
        let (mean, std) = &self.statistics;
        if let Some(tokens) = &mut self.tokens {
            tokens.load(pass as u64)?;
        }
        let mut targets = Vec::new();
        for image in images {
            let row = rows.get(*image as usize * width..).unwrap_or_default();
            targets.extend(row.iter().zip(mean).map(|(x, mean)| (x - mean) / std));
            self.tokens.iter().for_each(|tokens| tokens.add(*image, &mut targets));
        }
        Ok(targets)
    }
}

/// Puts the rows of a batch where its images are.
fn place(all: &mut [f32], width: usize, images: &[u32], rows: &[f32]) {
    for (image, row) in images.iter().zip(rows.chunks_exact(width.max(1))) {
        all[*image as usize * width..][..width].copy_from_slice(row);
    }
}

/// The file of a pass, in a run.
fn pass_name(pass: u64) -> String {
    format!("teacher/pass-{pass:03}.safetensors")
}

/// Whom a file belongs to.
fn describe(pass: u64, teacher: &TeacherConfig, crops: &Crops, images: &Fingerprint) -> Value {
    // Later passes may be added.
    let crops = Crops { passes: 0, ..*crops };
    json!({"pass": pass, "teacher": teacher, "crops": crops, "images": images.digest})
}

/// Reads one pass.
fn read(path: &Path, about: Option<&Value>, shape: [usize; 2]) -> Result<Vec<f32>> {
    let (mut tensors, details) = file::load(path)?;
    let other = |what: &str| {
        file::unusable(path, format!("holds embeddings {what}: remove it, or use another --out"))
    };
    if about.is_some_and(|about| *about != details) {
        return Err(other("of another teacher, other crops or other images"));
    }
    match tensors.remove(EMBEDDINGS).filter(|tensor| tensor.shape == shape) {
        Some(tensor) => Ok(tensor.values),
        None => Err(other(&format!("of another shape than {shape:?}"))),
    }
}

/// The mean of each column, and the standard deviation of all values around it. Rows of zeros are images that could not be
/// used.
fn statistics(rows: &[f32], width: usize) -> (Vec<f32>, f32) {
    let used = || rows.chunks_exact(width.max(1)).filter(|row| row.iter().any(|x| *x != 0.0));
    let n = used().count().max(1) as f64;
    let mut mean = vec![0f64; width];
    used().for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n));
    let apart =
        |row: &[f32]| row.iter().zip(&mean).map(|(x, mean)| (f64::from(*x) - mean).powi(2)).sum::<f64>();
    let variance = used().map(apart).sum::<f64>() / (n * width.max(1) as f64);
    (mean.iter().map(|x| *x as f32).collect(), variance.sqrt().max(1e-6) as f32)
}
