//! Values inside models: what our own program shows is what tract shows.

use std::path::{Path, PathBuf};

use smalti_runtime::gate::{self, Limits};
use smalti_runtime::models::contract::golden_image;
use smalti_runtime::models::preprocess::FitMode;
use smalti_runtime::models::resize::Interpolation;
use smalti_runtime::taps::Taps;
use smalti_runtime::{Model, Preprocess};

/// The largest difference in relation to the largest element of a value.
const TOLERANCE: f32 = 1e-5;

/// A value's shape and elements.
type Shown = (Vec<usize>, Vec<f32>);

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "onnx")).collect();
    found.sort();
    found
}

/// A model with preprocessing, its own or this.
fn open(bytes: &[u8]) -> smalti_runtime::Result<Model> {
    let model = Model::from_bytes(bytes)?;
    if model.preprocess().is_some() {
        return Ok(model);
    }
    let (img_size, channels) = (model.input().width.max(model.input().height), model.input().channels);
    let (mean, std) = (vec![0.5; channels], vec![0.5; channels]);
    let (fit, interpolation) = (FitMode::Squash, Interpolation::Bilinear);
    model.with_preprocess(Preprocess { img_size, channels, fit, resize: None, interpolation, mean, std })
}

/// What goes into the layers of a graph that a quantizer finds.
fn inputs(bytes: &[u8]) -> Vec<String> {
    let (proto, summary) = gate::open(bytes, &Limits::default()).unwrap();
    let graph = proto.graph.unwrap();
    let mut names: Vec<String> = Vec::new();
    for node in &graph.node {
        let is_constant = |name: &String| graph.initializer.iter().any(|tensor| tensor.name == *name);
        let depends = summary.nodes.iter().any(|known| known.name == node.output[0]);
        let ("MatMul" | "Gemm" | "Conv", [input, weight, ..]) = (&*node.op_type, &node.input[..]) else {
            continue;
        };
        if depends && is_constant(weight) && !is_constant(input) && !names.contains(input) {
            names.push(input.clone());
        }
    }
    names
}

fn show(taps: &mut Taps, model: &Model, count: usize, pattern: u64) -> Vec<Shown> {
    let image = golden_image(pattern, 2 * model.input().width, model.input().channels).unwrap();
    let mut shown = vec![Shown::default(); count];
    taps.run_image(image.view(), |i, values, shape| {
        shown[i] = (shape.to_vec(), values.to_vec());
        Ok(())
    })
    .unwrap();
    shown
}

/// What our program shows, held to what tract shows; the number of values, and whether tract was there to compare with.
fn compare(path: &Path) -> (usize, bool) {
    let (bytes, name) = (std::fs::read(path).unwrap(), path.display());
    let Ok(model) = open(&bytes) else { return (0, false) };
    let names = inputs(&bytes);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if model.fallback_reason().is_some() || names.is_empty() {
        return (0, false);
    }
    // Values that no step computes, such as the image turned, are tract's to show.
    let ours = Taps::new(&bytes, &model, &names);
    let Some(mut ours) = ours.ok().filter(|ours| ours.fallback_reason().is_none()) else { return (0, false) };
    let found = [0, 1, 0].map(|pattern| show(&mut ours, &model, names.len(), pattern));
    assert_eq!(found[0], found[2], "{name}: a run leaves nothing behind");
    for (name_of, (shape, values)) in names.iter().zip(&found[0]) {
        assert!(!values.is_empty() && values.len() == shape.iter().product::<usize>(), "{name}: {name_of}");
    }
    // tract fails at some graphs once values inside them are outputs.
    let tract = Taps::new_on_tract(&bytes, &model, &names);
    let is_compared = tract.is_ok();
    if let Ok(mut tract) = tract {
        assert_eq!(tract.fallback_reason(), Some("as asked"));
        for (pattern, found) in (0..2).zip(&found) {
            let wanted = show(&mut tract, &model, names.len(), pattern);
            for ((found, wanted), value) in found.iter().zip(&wanted).zip(&names) {
                assert_eq!(found.0, wanted.0, "{name}: {value}");
                let size = wanted.1.iter().fold(1e-6, |most: f32, x| most.max(x.abs()));
                let off = found.1.iter().zip(&wanted.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off <= TOLERANCE * size, "{name}: {value} is off by {off:.1e}, it reaches {size}");
            }
        }
    }
    (names.len(), is_compared)
}

#[test]
fn exports_of_vision_transformers_show_what_goes_into_their_layers() {
    let exports = files("models");
    for path in exports.iter().filter(|path| !path.ends_with("colours_qdq.onnx")) {
        // Patches, query with key and value, projection, two of the perceptron, head.
        let (count, is_compared) = compare(path);
        assert!(count >= 6 && is_compared == cfg!(feature = "tract"), "{}", path.display());
    }
    assert!(exports.len() > 10);
}

#[test]
fn operators_and_convolutions_show_what_goes_into_their_layers() {
    let values: Vec<(PathBuf, (usize, bool))> = files("operators/graphs")
        .into_iter()
        .filter(|path| {
            let opened = gate::open(&std::fs::read(path).unwrap(), &Limits::default());
            // A form that is refused shows nothing.
            let Ok((proto, _)) = opened else { return false };
            proto.graph.unwrap().node.iter().all(|node| node.op_type != "QuantizeLinear")
        })
        .map(|path| (path.clone(), compare(&path)))
        .collect();
    // Convolutions in front of tokens; a map within padding; a depthwise convolution.
    for (name, least) in [
        ("residual_stages_f32.onnx", 5),
        ("pad_of_a_map_zeros.onnx", 2),
        ("convolution_of_a_map_depthwise.onnx", 2),
    ] {
        let (_, (count, is_compared)) = values.iter().find(|(path, _)| path.ends_with(name)).unwrap();
        assert!(*count >= least && *is_compared == cfg!(feature = "tract"), "{name}: {count}");
    }
    assert!(values.iter().filter(|(_, (count, _))| *count > 0).count() > 100, "{values:?}");
    let compared = values.iter().filter(|(_, (_, is_compared))| *is_compared).count();
    assert!(!cfg!(feature = "tract") || compared > 80, "tract ran {compared}");
}

#[test]
fn a_value_that_no_kernel_computes_takes_tract() {
    let path = files("operators/graphs").into_iter().find(|path| path.ends_with("other_function_tanh.onnx"));
    let bytes = std::fs::read(path.unwrap()).unwrap();
    match open(&bytes) {
        Ok(model) => {
            let taps = Taps::new(&bytes, &model, &["nowhere"]);
            assert!(taps.is_err());
            let names = inputs(&bytes);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let taps = Taps::new(&bytes, &model, &names).unwrap();
            assert!(
                taps.fallback_reason().is_some_and(|why| why.contains("node `")),
                "{:?}",
                taps.fallback_reason()
            );
        }
        Err(error) => assert!(!cfg!(feature = "tract") && error.exit_code() == 3, "{error}"),
    }
}
