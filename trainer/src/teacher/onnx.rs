//! An ONNX file as a teacher, on the runtime's kernels.

use std::path::Path;

use prost::Message as _;
use rayon::prelude::*;
use smalti_models::Preprocess;
use smalti_models::onnx::{GraphProto, TensorProto};
use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_runtime::gate::{self, Form, Limits, floats};
use smalti_runtime::tokens::TokenSource;
use smalti_runtime::{Model, OpenOptions};

use super::{Grid, Hints, Seen, Teacher, TeacherConfig, digest, tokens};
use crate::error::{Error, Result};

/// Mean and standard deviation of ImageNet's images, which most published networks take.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// An ONNX file.
pub struct OnnxTeacher {
    config: TeacherConfig,
    model: Model,
    /// What it was opened by, for messages.
    place: String,
}

impl OnnxTeacher {
    /// Opens the file. Its embedding is the output that the user names, else `embedding`, else the only one `[1, K]`, else
    /// the only one; of tokens `[1, T, K]` or maps `[1, K, H, W]` their mean. How pixels are normalised is what the user says;
    /// else what our record in the file says; else, where the graph itself begins by subtracting or dividing numbers above 1,
    /// the scale 0 to 255; else ImageNet's mean and standard deviation.
    ///
    /// # Errors
    /// A model that the runtime refuses, an input that is not square.
    pub fn open(path: &Path, hints: &Hints) -> Result<OnnxTeacher> {
        let place = path.display().to_string();
        let wrong = |e: smalti_runtime::Error| refused(&place, &e);
        let bytes = smalti_runtime::load::read(path, &Limits::default()).map_err(wrong)?;
        let (mut proto, _) = gate::open(&bytes, &Limits::default()).map_err(wrong)?;
        let (file, output) = match tokens::pool(&mut proto, hints.output.as_deref()) {
            Some(pooled) => (&proto.encode_to_vec()[..], Some(pooled)),
            None => (&bytes[..], hints.output.clone()),
        };
        let open = |tokens| {
            Model::from_bytes_with(
                file,
                &OpenOptions { output: output.clone(), tokens, ..OpenOptions::default() },
            )
        };
        // Where the values that are averaged are no grid of places, the embedding is all that is learned.
        let averaged = proto.graph.as_ref().and_then(|graph| tokens::averaged(graph, output.as_deref()));
        let with_tokens = averaged.and_then(|name| open(Some(TokenSource::Value(name))).ok());
        let model = match with_tokens {
            Some(model) => model,
            None => open(None).map_err(wrong)?,
        };
        let preprocess = preprocess(&model, &proto.graph.unwrap_or_default(), hints, &place)?;
        let config = TeacherConfig { digest: digest(&bytes), width: 0, preprocess };
        let mut teacher = OnnxTeacher { config, model, place };
        teacher.config.width = teacher.embed(&vec![0.0; teacher.model.input().values()])?.len();
        Ok(teacher)
    }

    /// Lets the network see images `[images, C, H, W]`.
    fn run(&self, pixels: &[f32]) -> Result<Seen> {
        let input = self.model.input();
        let (values, wrong) = (input.values(), |e: smalti_runtime::Error| refused(&self.place, &e));
        let images = pixels.len() / values;
        let share = images.div_ceil(rayon::current_num_threads()).max(1);
        let parts: Result<Vec<Seen>> = pixels
            .par_chunks(share * values)
            .map(|part| {
                let mut session = self.model.session().map_err(wrong)?;
                let (mut output, mut seen) = (self.model.output(), Seen::default());
                for image in part.chunks_exact(values) {
                    match input.form {
                        Form::F32Nchw => session.run_floats_into(image, &mut output).map_err(wrong)?,
                        Form::U8Nhwc => {
                            session
                                .run_pixels_into(&bytes(image, input.channels), &mut output)
                                .map_err(wrong)?;
                        }
                    }
                    let embedding = output.embedding.as_ref().unwrap_or(&output.logits);
                    seen.embeddings.extend_from_slice(embedding);
                    seen.tokens.extend_from_slice(output.tokens.as_deref().unwrap_or_default());
                }
                Ok(seen)
            })
            .collect();
        let mut all = Seen::default();
        for part in parts? {
            all.embeddings.extend(part.embeddings);
            all.tokens.extend(part.tokens);
        }
        Ok(all)
    }
}

fn refused(place: &str, error: &smalti_runtime::Error) -> Error {
    Error::Teacher { place: place.into(), problem: error.to_string(), code: error.exit_code() }
}

/// The input: its size from the graph, mean and standard deviation as [`OnnxTeacher::open`] says.
fn preprocess(model: &Model, graph: &GraphProto, hints: &Hints, place: &str) -> Result<Preprocess> {
    let input = model.input();
    let [width, height] = input.size();
    if width != height {
        let problem = format!("its input is {width}x{height}: expected a square one");
        return Err(Error::Teacher { place: place.into(), problem, code: 3 });
    }
    let record = model.preprocess();
    let scale_255 = input.form == Form::U8Nhwc || normalises_itself(graph);
    let mut preprocess = match record {
        Some(record) => record.clone(),
        None => {
            let [mean, std] = if scale_255 { [[0.0; 3], [1.0 / 255.0; 3]] } else { IMAGENET };
            Preprocess {
                img_size: width,
                channels: input.channels,
                fit: FitMode::Crop,
                resize: None,
                interpolation: Interpolation::Bicubic,
                mean: mean[..input.channels.min(3)].to_vec(),
                std: std[..input.channels.min(3)].to_vec(),
            }
        }
    };
    if input.form == Form::U8Nhwc {
        // The model takes bytes and normalises them.
        preprocess.mean = vec![0.0; input.channels];
        preprocess.std = vec![1.0 / 255.0; input.channels];
    } else if let (Some(mean), Some(std)) = (&hints.mean, &hints.std) {
        (preprocess.mean, preprocess.std) = (mean.clone(), std.clone());
    }
    preprocess.check()?;
    Ok(preprocess)
}

/// Whether the graph's first operations on its input are arithmetic with constants above 1, so that it takes the scale 0 to
/// 255.
fn normalises_itself(graph: &GraphProto) -> bool {
    let Some(mut value) = graph.input.first().map(|input| input.name.clone()) else { return false };
    for node in &graph.node {
        if !node.input.contains(&value) {
            continue;
        }
        if !matches!(node.op_type.as_str(), "Sub" | "Add" | "Div" | "Mul") {
            return false;
        }
        let constant = node.input.iter().find(|name| **name != value).and_then(|name| constant(graph, name));
        let values = constant.map(|tensor| floats(tensor).collect::<Vec<_>>()).unwrap_or_default();
        let is_divided = node.op_type == "Mul" && values.iter().any(|x| *x > 0.0 && *x < 0.1);
        if is_divided || values.iter().any(|x| x.abs() > 1.5) && node.op_type != "Mul" {
            return true;
        }
        let Some(output) = node.output.first() else { return false };
        value = output.clone();
    }
    false
}

/// A constant by its name: an initializer, or the value of a Constant node.
fn constant<'g>(graph: &'g GraphProto, name: &str) -> Option<&'g TensorProto> {
    let of_node = || {
        let node = graph.node.iter().find(|node| node.output.iter().any(|output| output == name))?;
        node.attribute.iter().find(|attribute| attribute.name == "value")?.t.as_deref()
    };
    graph.initializer.iter().find(|tensor| tensor.name == name).or_else(of_node)
}

impl Teacher for OnnxTeacher {
    fn config(&self) -> &TeacherConfig {
        &self.config
    }

    fn embed(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        Ok(self.run(pixels)?.embeddings)
    }

    fn grid(&self) -> Option<Grid> {
        let tokens = self.model.tokens()?;
        let is_averaged = tokens.rows == tokens.columns && tokens.dim == self.config.width;
        is_averaged.then_some(Grid { side: tokens.rows, values: tokens.dim })
    }

    fn see(&self, pixels: &[f32]) -> Result<Seen> {
        self.run(pixels)
    }
}

/// Values `[channel, row, column]` on the scale 0 to 255 as bytes `[row, column, channel]`.
fn bytes(image: &[f32], channels: usize) -> Vec<u8> {
    let pixels = image.len() / channels.max(1);
    let at = |i: usize| image[i % channels * pixels + i / channels].round().clamp(0.0, 255.0) as u8;
    (0..image.len()).map(at).collect()
}
