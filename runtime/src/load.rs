//! From a file's bytes to a model that sessions run: gate, tract's typed graph, optimised plan.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use smalti_models::contract::{EMBEDDING, LOGITS, names_from_text};
use smalti_models::{ModelRecord, Preprocess};
use tract_onnx::pb::ModelProto;

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::gate::{self, Input, Limits, Port, Summary};
use crate::memory::Opening;
use crate::session::{Output, Session};

/// A model in memory. Cloning is cheap, and clones share the weights; each thread runs a [`Session`] of its own.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

/// What all clones share.
#[derive(Clone)]
struct Inner {
    backend: Backend,
    summary: Arc<Summary>,
    record: Option<Arc<ModelRecord>>,
    labels: Arc<[String]>,
    preprocess: Option<Preprocess>,
    /// Values of the embedding; 0 without one.
    embedding: usize,
    opening: Opening,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (input, classes) = (self.input(), self.labels().len());
        f.debug_struct("Model").field("input", input).field("classes", &classes).finish_non_exhaustive()
    }
}

/// Reads a model file, not more of it than the limits allow.
pub fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    read_open(&File::open(path).map_err(Error::io("open", path))?, path, limits)
}

/// As [`read`], of a file that is open.
pub(crate) fn read_open(file: &File, path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let most = limits.file_bytes.saturating_add(1);
    // One allocation of the right size; growing would take thrice as much for a moment.
    let size = file.metadata().map_or(0, |metadata| metadata.len().saturating_add(1).min(most));
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX))
        .map_err(|_| Error::refused("file", format!("{size} bytes"), "what fits into memory"))?;
    file.take(most).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

impl Model {
    /// Reads, checks and prepares a model file.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Model::open_with(path, &Limits::default())
    }

    /// Reads, checks and prepares a model file within budgets of the caller's.
    pub fn open_with(path: impl AsRef<Path>, limits: &Limits) -> Result<Model> {
        Model::from_file(read(path.as_ref(), limits)?, limits)
    }

    /// Checks and prepares a file's bytes, which are gone before the weights are packed.
    pub(crate) fn from_file(bytes: Vec<u8>, limits: &Limits) -> Result<Model> {
        let (proto, summary) = gate::open(&bytes, limits)?;
        drop(bytes);
        Model::new(proto, summary, false)
    }

    /// Checks and prepares a model that is in memory already.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model> {
        Model::from_bytes_with(bytes, &Limits::default())
    }

    /// Checks and prepares a model within budgets of the caller's.
    pub fn from_bytes_with(bytes: &[u8], limits: &Limits) -> Result<Model> {
        let (proto, summary) = gate::open(bytes, limits)?;
        Model::new(proto, summary, false)
    }

    /// As [`Model::from_bytes`], but the engine runs the model even where our own kernels could: to compare both.
    pub fn from_bytes_on_engine(bytes: &[u8]) -> Result<Model> {
        let (proto, summary) = gate::open(bytes, &Limits::default())?;
        Model::new(proto, summary, true)
    }

    /// Prepares a model that passed the gate.
    pub(crate) fn new(mut proto: ModelProto, mut summary: Summary, engine_only: bool) -> Result<Model> {
        let chosen = choose_outputs(&summary.outputs)?;
        let opening = Opening::of(&proto, &summary);
        let record = record(&proto, &summary, chosen.classes)?;
        let labels = labels(&proto, record.as_ref(), chosen.classes);
        keep_what_runs(&mut proto, &chosen);
        let backend = Backend::new(proto, &std::mem::take(&mut summary.facts), engine_only)?;
        Ok(Model(Arc::new(Inner {
            backend,
            summary: Arc::new(summary),
            preprocess: record.as_ref().map(|record| record.preprocess.clone()),
            record: record.map(Arc::new),
            labels: labels.into(),
            embedding: chosen.width,
            opening,
        })))
    }

    /// The same model with preprocessing for a file that says none, or other than it says.
    pub fn with_preprocess(self, preprocess: Preprocess) -> Result<Model> {
        check_preprocess(&preprocess, self.input())?;
        Ok(Model(Arc::new(Inner { preprocess: Some(preprocess), ..(*self.0).clone() })))
    }

    /// The same model with labels for a file that says none, or other than it says.
    pub fn with_labels(self, labels: Vec<String>) -> Result<Model> {
        if labels.len() != self.labels().len() {
            let (found, wanted) = (labels.len(), self.labels().len());
            return Err(Error::Usage(format!("{found} labels for a model with {wanted} classes")));
        }
        Ok(Model(Arc::new(Inner { labels: labels.into(), ..(*self.0).clone() })))
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
        self.0.embedding
    }

    /// An empty output with room for the model's answers.
    pub fn output(&self) -> Output {
        let row = |len: usize| Vec::with_capacity(len);
        Output {
            logits: row(self.labels().len()),
            embedding: (self.0.embedding > 0).then(|| row(self.0.embedding)),
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

    /// A session on the calling thread alone.
    pub fn session(&self) -> Result<Session> {
        self.session_on(1)
    }

    /// A session that shares each run out to that many threads, the calling one among them. The results are those
    /// of one thread, to the last bit.
    pub fn session_on(&self, threads: usize) -> Result<Session> {
        Session::new(self, threads)
    }

    /// Why the engine runs this model instead of our own kernels; none if it does not.
    pub fn on_engine(&self) -> Option<&str> {
        match &self.0.backend {
            Backend::Program(_) => None,
            Backend::Engine(_, why) => Some(why),
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

/// The outputs that are computed.
struct Outputs {
    logits: String,
    classes: usize,
    embedding: Option<String>,
    /// The embedding's values.
    width: usize,
}

/// Picks `logits` and `embedding` by name; for the logits of a foreign model the first output `[1, K]`.
fn choose_outputs(outputs: &[Port]) -> Result<Outputs> {
    let row = |port: &&Port| port.is_float && matches!(port.dims[..], [1, _]);
    let named = |name: &str| outputs.iter().find(|port| port.name == name);
    let Some(logits) = named(LOGITS).or_else(|| outputs.iter().find(row)).filter(row) else {
        let found: Vec<_> = outputs.iter().map(|port| format!("`{}` {:?}", port.name, port.dims)).collect();
        return Err(Error::refused("outputs", found.join(", "), "float32 logits [1, K]"));
    };
    let embedding = named(EMBEDDING).filter(row).filter(|port| port.name != logits.name);
    let values = |port: &Port| port.dims.iter().product();
    Ok(Outputs {
        logits: logits.name.clone(),
        classes: values(logits),
        embedding: embedding.map(|port| port.name.clone()),
        width: embedding.map_or(0, values),
    })
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
    let wanted = (input.width, input.height, input.channels);
    if (preprocess.img_size, preprocess.img_size, preprocess.channels) != wanted {
        let (size, channels) = (preprocess.img_size, preprocess.channels);
        let found = format!("preprocessing to {size} x {size} pixels and {channels} channels");
        let wanted = format!("{} x {} and {}", input.width, input.height, input.channels);
        return Err(Error::Usage(format!("{found}, the model takes {wanted}")));
    }
    Ok(())
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

/// Leaves in the graph what runs: the chosen outputs.
fn keep_what_runs(proto: &mut ModelProto, chosen: &Outputs) {
    proto.metadata_props.clear();
    let Some(graph) = &mut proto.graph else { return };
    graph.value_info.clear();
    let wanted = [Some(&chosen.logits), chosen.embedding.as_ref()];
    let outputs = std::mem::take(&mut graph.output);
    let find = |name: Option<&String>| outputs.iter().find(|output| Some(&output.name) == name).cloned();
    graph.output = wanted.into_iter().filter_map(find).collect();
}
