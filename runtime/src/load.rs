//! From a file's bytes to a model that sessions run: gate, then our compiler, or tract where that has no kernels.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use smalti_models::contract::{EMBEDDING, names_from_text};
use smalti_models::onnx::ModelProto;
use smalti_models::preprocess::FitMode;
use smalti_models::{ModelRecord, Preprocess};

use crate::backend::Backend;
use crate::complete::complete;
use crate::cpu;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gate::{self, Input, Limits, Summary};
use crate::memory::Opening;
use crate::outputs::Outputs;
use crate::pieces::Pieces;
use crate::session::{Output, Session};
use crate::tokens::{TokenGrid, TokenSource};
use crate::trust::Trust;

/// A model in memory. Cloning is cheap, and clones share the weights; each thread runs a [`Session`] of its own.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

/// What all clones share.
#[derive(Clone)]
struct Inner {
    digest: Digest,
    backend: Backend,
    summary: Arc<Summary>,
    record: Option<Arc<ModelRecord>>,
    labels: Arc<[String]>,
    preprocess: Option<Preprocess>,
    outputs: Arc<Outputs>,
    opening: Opening,
}

/// How to open a model.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// What the file may ask for.
    pub limits: Limits,
    /// What the file must show.
    pub trust: Trust,
    /// The output whose numbers are the answer, one a class. By default `logits`, else the first output `[1, K]`.
    pub output: Option<String>,
    /// The value inside the graph that is shown as a token for each place of the image.
    pub tokens: Option<TokenSource>,
    /// Whether weights may lie in other files of the model's folder, as PyTorch's exporter leaves them. No signature
    /// covers those.
    pub external_data: bool,
    /// Width and height of the image, for a file that leaves them open.
    pub input_size: Option<[usize; 2]>,
}

impl OpenOptions {
    /// Reads a model file, as one file: checks its signature, puts in weights that lie beside it and the size of the
    /// image, where options say so.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Refused`] for one without the signature that is asked for
    /// or without its weights, [`Error::Usage`] for a size that is not the file's.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        self.read_pieces(path).map(Pieces::into_vec).map_err(|error| error.in_file(path))
    }

    /// As [`OpenOptions::read`], in pieces.
    fn read_pieces(&self, path: &Path) -> Result<Pieces<'static>> {
        self.completed(self.trust.read_pieces(path, &self.limits)?, path)
    }

    /// A file with what options say is missing in it.
    pub(crate) fn completed(&self, file: Pieces<'static>, path: &Path) -> Result<Pieces<'static>> {
        if !self.external_data && self.input_size.is_none() {
            return Ok(file);
        }
        if self.external_data && self.trust.key.is_some() {
            let problem = "a signature does not cover weights in other files: save the model as one file, and sign that";
            return Err(Error::Usage(problem.into()));
        }
        let path = self.external_data.then_some(path);
        Ok(complete(file.into_vec(), path, self.input_size, &self.limits)?.into())
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (input, classes) = (self.input(), self.labels().len());
        f.debug_struct("Model").field("input", input).field("classes", &classes).finish_non_exhaustive()
    }
}

/// Reads a model file, not more of it than the limits allow.
pub fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    read_pieces(path, limits).map(Pieces::into_vec)
}

/// As [`read`], in pieces.
pub(crate) fn read_pieces(path: &Path, limits: &Limits) -> Result<Pieces<'static>> {
    Pieces::read(&File::open(path).map_err(Error::io("open", path))?, path, limits)
}

impl Model {
    /// Reads, checks and prepares a model file.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Refused`] for a model outside the profile of
    /// [`crate::gate`].
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Model::open_with(path, &OpenOptions::default())
    }

    /// As [`Model::open`], with options.
    ///
    /// # Errors
    /// Also [`Error::Refused`] for a file that does not show what `options.trust` asks for, and [`Error::Usage`] for an
    /// output or tokens that the model does not have.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        let path = path.as_ref();
        options
            .read_pieces(path)
            .and_then(|file| Model::from_pieces(file, options))
            .map_err(|e| e.in_file(path))
    }

    /// Checks and prepares a file whose signature, if one is asked for, was checked.
    pub(crate) fn from_pieces(file: Pieces<'_>, options: &OpenOptions) -> Result<Model> {
        let digest = Digest::of_all(file.iter());
        let (proto, summary) = gate::open_pieces(file, &options.limits)?;
        let model = Model::new(proto, summary, digest, options)?;
        options.trust.check_version(model.record())?;
        Ok(model)
    }

    /// Checks and prepares a model that is in memory already.
    ///
    /// # Errors
    /// [`Error::Refused`] for a model outside the profile of [`crate::gate`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Model> {
        Model::from_bytes_with(bytes, &OpenOptions::default())
    }

    /// As [`Model::from_bytes`], with options. A key in `options.trust` refuses every model, as no signature comes with
    /// the bytes: check that with [`Trust::check`].
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn from_bytes_with(bytes: &[u8], options: &OpenOptions) -> Result<Model> {
        options.trust.check(bytes, None)?;
        Model::from_pieces(bytes.into(), options)
    }

    /// As [`Model::from_bytes`], but tract runs the model even where our own kernels could: to compare both.
    pub fn from_bytes_on_tract(bytes: &[u8]) -> Result<Model> {
        Model::from_bytes_on_tract_with(bytes, &OpenOptions::default())
    }

    /// As [`Model::from_bytes_on_tract`], with limits, output and tokens of some options.
    pub fn from_bytes_on_tract_with(bytes: &[u8], options: &OpenOptions) -> Result<Model> {
        let (proto, summary) = gate::open(bytes, &options.limits)?;
        Model::prepare(proto, summary, Digest::of(bytes), options, true)
    }

    /// Prepares a model that passed the gate.
    pub(crate) fn new(
        proto: ModelProto,
        summary: Summary,
        digest: Digest,
        options: &OpenOptions,
    ) -> Result<Model> {
        Model::prepare(proto, summary, digest, options, false)
    }

    fn prepare(
        mut proto: ModelProto,
        mut summary: Summary,
        digest: Digest,
        options: &OpenOptions,
        engine_only: bool,
    ) -> Result<Model> {
        cpu::check_forced_isa()?;
        let outputs = Outputs::choose(&proto, &summary, options)?;
        let opening = Opening::of(&proto, &summary);
        let record = record(&proto, &summary, outputs.class_count())?;
        let labels = labels(&proto, record.as_ref(), outputs.class_count());
        outputs.keep_what_runs(&mut proto);
        let backend = Backend::new(proto, &summary, outputs.tokens.as_ref(), engine_only)?;
        summary.facts.clear();
        summary.facts.shrink_to_fit();
        Ok(Model(Arc::new(Inner {
            digest,
            backend,
            summary: Arc::new(summary),
            preprocess: record.as_ref().map(|record| record.preprocess.clone()),
            record: record.map(Arc::new),
            labels: labels.into(),
            outputs: Arc::new(outputs),
            opening,
        })))
    }

    /// The same model with preprocessing for a file that says none, or other than it says.
    pub fn with_preprocess(self, preprocess: Preprocess) -> Result<Model> {
        check_preprocess(&preprocess, self.input())?;
        if self.preprocess() == Some(&preprocess) {
            return Ok(self);
        }
        // Other pixels make other embeddings.
        let digest = Digest::of_all([&self.0.digest.0[..], preprocess.to_json().to_string().as_bytes()]);
        Ok(Model(Arc::new(Inner { digest, preprocess: Some(preprocess), ..(*self.0).clone() })))
    }

    /// The same model with labels for a file that says none, or other than it says.
    pub fn with_labels(self, labels: Vec<String>) -> Result<Model> {
        if labels.len() != self.labels().len() {
            let (found, wanted) = (labels.len(), self.labels().len());
            return Err(Error::Usage(format!("{found} labels for a model with {wanted} classes")));
        }
        Ok(Model(Arc::new(Inner { labels: labels.into(), ..(*self.0).clone() })))
    }

    /// SHA-256 of the file; of that and the preprocessing where [`Model::with_preprocess`] gave other.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// What our exporter wrote about the model; none for a foreign file.
    pub fn record(&self) -> Option<&ModelRecord> {
        self.0.record.as_deref()
    }

    /// One label a class: the file's, or the classes' numbers.
    pub fn labels(&self) -> &[String] {
        &self.0.labels
    }

    /// Values of the vector in front of the head; 0 where the model does not give it.
    pub fn embedding_len(&self) -> usize {
        self.0.outputs.embedding_len()
    }

    /// Whether the answer is an embedding, and there are no classes.
    pub fn embeds(&self) -> bool {
        self.output_name() == EMBEDDING
    }

    /// Values of the embedding, whether it is the answer or stands beside it; 0 where the model does not give any.
    pub fn embedding_dim(&self) -> usize {
        if self.embeds() { self.labels().len() } else { self.embedding_len() }
    }

    /// The tokens that it shows; none unless [`OpenOptions::tokens`] asked for them.
    pub fn tokens(&self) -> Option<&TokenGrid> {
        self.0.outputs.tokens.as_ref()
    }

    /// The name of the output that answers.
    pub fn output_name(&self) -> &str {
        &self.0.outputs.classes.name
    }

    /// Whether the graph ends in a softmax, so that its answers are probabilities already.
    pub fn gives_probabilities(&self) -> bool {
        self.0.outputs.are_probabilities
    }

    /// An empty output with room for the model's answers.
    pub fn output(&self) -> Output {
        let row = |len: usize| Vec::with_capacity(len);
        Output {
            logits: row(self.labels().len()),
            embedding: (self.embedding_len() > 0).then(|| row(self.embedding_len())),
            tokens: self.tokens().map(|grid| row(grid.values())),
        }
    }

    /// The image that goes in.
    pub fn input(&self) -> &Input {
        &self.0.summary.input
    }

    /// What the gate learned about the file.
    pub fn summary(&self) -> &Summary {
        &self.0.summary
    }

    /// What happens to an image before the model sees it, where that is known.
    pub fn preprocess(&self) -> Option<&Preprocess> {
        self.0.preprocess.as_ref()
    }

    /// As [`Model::preprocess`], where nothing works without it.
    pub(crate) fn known_preprocess(&self) -> Result<&Preprocess> {
        let problem = "the model file does not say how to prepare images; give mean and standard deviation (--mean and --std)";
        self.preprocess().ok_or_else(|| Error::Usage(problem.into()))
    }

    /// The number of the class with that label.
    ///
    /// # Errors
    /// [`Error::Usage`] for a label that the model does not have.
    pub fn class(&self, label: &str) -> Result<usize> {
        class_of(label, self.labels())
    }

    /// A session on the calling thread alone.
    pub fn session(&self) -> Result<Session> {
        self.session_with_threads(1)
    }

    /// A session that shares each run out to that many threads, the calling one among them. The results are those
    /// of one thread, to the last bit.
    pub fn session_with_threads(&self, threads: usize) -> Result<Session> {
        Session::new(self, threads)
    }

    /// Why tract runs this model instead of our own kernels; none if it does not.
    pub fn fallback_reason(&self) -> Option<&str> {
        match &self.0.backend {
            Backend::Program(_) => None,
            Backend::Tract(_, why) => Some(why),
        }
    }

    /// What opening took.
    pub(crate) fn opening(&self) -> &Opening {
        &self.0.opening
    }

    /// What sessions run.
    pub(crate) fn backend(&self) -> &Backend {
        &self.0.backend
    }
}

/// Our record, held to the graph that it came with.
fn record(proto: &ModelProto, summary: &Summary, classes: usize) -> Result<Option<ModelRecord>> {
    let pairs = proto.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()));
    let Some(record) = ModelRecord::from_metadata(pairs)? else { return Ok(None) };
    if record.names.len() != classes {
        let found = format!("{} labels", record.names.len());
        return Err(Error::refused("metadata `names`", found, format!("one for each of {classes} logits")));
    }
    check_preprocess(&record.preprocess, &summary.input).map_err(|error| {
        Error::refused("metadata `preprocessor_config`", error.to_string(), "the input's size")
    })?;
    Ok(Some(record))
}

/// Whether preprocessing gives what the input takes.
fn check_preprocess(preprocess: &Preprocess, input: &Input) -> Result<()> {
    preprocess.check().map_err(|error| Error::Usage(error.to_string()))?;
    let &Input { width, height, channels, .. } = input;
    let (size, found) = (preprocess.img_size, preprocess.channels);
    if width != height && preprocess.fit != FitMode::Squash {
        let problem = format!("the model takes {width} x {height} pixels, which no square crop gives");
        return Err(Error::Usage(format!("{problem}: squash images to that (--resize squash)")));
    }
    if (size, found) != (width.max(height), channels) {
        let found = format!("preprocessing to {size} x {size} pixels and {found} channels");
        return Err(Error::Usage(format!("{found}, the model takes {width} x {height} and {channels}")));
    }
    Ok(())
}

/// The number of a label.
///
/// # Errors
/// [`Error::Usage`] for a label that is not among them.
pub(crate) fn class_of(label: &str, labels: &[String]) -> Result<usize> {
    let found = labels.iter().position(|other| other == label);
    found.ok_or_else(|| Error::Usage(format!("`{label}` is none of the labels ({})", listed(labels))))
}

/// The first of some labels, for a message.
pub(crate) fn listed(labels: &[String]) -> String {
    let some: Vec<_> = labels.iter().take(8).map(|label| format!("`{label}`")).collect();
    let more = if labels.len() > some.len() { ", ..." } else { "" };
    format!("{}{more}", some.join(", "))
}

/// Labels from the record, from `names` as other exporters write it, or numbers.
fn labels(proto: &ModelProto, record: Option<&ModelRecord>, classes: usize) -> Vec<String> {
    if let Some(record) = record {
        return record.names.clone();
    }
    let names = proto.metadata_props.iter().find(|entry| entry.key == "names");
    let names = names.and_then(|entry| names_from_text(&entry.value).ok());
    let names = names.filter(|names| names.len() == classes);
    names.unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect())
}
