//! A model file made complete before anything else reads it: weights that lie in files beside it are put in, and an image
//! of open height and width gets a size.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use prost::Message as _;
use smalti_models::onnx::tensor_proto::DataLocation;
use smalti_models::onnx::tensor_shape_proto::dimension::Value as Dimension;
use smalti_models::onnx::{GraphProto, ModelProto, TensorProto};

use crate::error::{Error, Result};
use crate::gate::{self, Limits};

/// The bytes of a model file with what is missing in it. `beside` is the file's path where weights may come from files in
/// its folder; `size`, width and height, is that of the image.
///
/// # Errors
/// [`Error::Refused`] for no model, or for weights that are elsewhere or not there; [`Error::Usage`] for a size that
/// contradicts the file's.
pub(crate) fn complete(
    bytes: Vec<u8>,
    beside: Option<&Path>,
    size: Option<[usize; 2]>,
    limits: &Limits,
) -> Result<Vec<u8>> {
    let mut model = gate::decode(bytes[..].into(), limits)?;
    let Some(graph) = &mut model.graph else { return Ok(bytes) };
    let is_whole = !tensors(graph).any(|tensor| is_external(tensor));
    if size.is_none() && (beside.is_none() || is_whole) {
        return Ok(bytes);
    }
    drop(bytes);
    if let Some(path) = beside {
        let folder = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let mut files = Files { folder, open: HashMap::new(), left: limits.file_bytes };
        tensors(graph).filter(|tensor| is_external(tensor)).try_for_each(|tensor| files.fill(tensor))?;
    }
    if let Some(size) = size {
        fix_size(graph, size)?;
    }
    Ok(ModelProto::encode_to_vec(&model))
}

/// All tensors of a graph.
fn tensors(graph: &mut GraphProto) -> impl Iterator<Item = &mut TensorProto> {
    let attached = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    graph.initializer.iter_mut().chain(attached.filter_map(|attribute| attribute.t.as_deref_mut()))
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// The files with weights, in the model's folder.
struct Files<'a> {
    folder: &'a Path,
    open: HashMap<String, File>,
    /// Bytes that may still be read.
    left: u64,
}

impl Files<'_> {
    /// Puts a tensor's data in.
    fn fill(&mut self, tensor: &mut TensorProto) -> Result<()> {
        let place = format!("weight `{}`", tensor.name);
        let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|e| &*e.value);
        let number = |key: &str| match entry(key).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(Error::refused(&place, format!("no number in `{key}`"), "bytes")),
        };
        let name = entry("location").unwrap_or_default().to_owned();
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let file = match self.open.entry(name) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let file = open(self.folder, new.key(), &place)?;
                new.insert(file)
            }
        };
        let wrong =
            |source: std::io::Error| Error::refused(&place, source.to_string(), "its data beside the model");
        let rest = file.metadata().map_err(wrong)?.len().checked_sub(offset);
        let length = length.or(rest).filter(|&length| rest.is_some_and(|rest| length <= rest));
        let Some(length) = length else {
            return Err(Error::refused(
                &place,
                "a file that is too short",
                "all of its data beside the model",
            ));
        };
        let left = self.left.checked_sub(length);
        self.left =
            left.ok_or_else(|| Error::refused(&place, "more data than a model may have", "its limits"))?;
        let mut data = Vec::new();
        file.seek(SeekFrom::Start(offset)).map_err(wrong)?;
        file.take(length).read_to_end(&mut data).map_err(wrong)?;
        tensor.raw_data = data.into();
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    }
}

/// Opens a file of the model's folder, links followed, and no other.
fn open(folder: &Path, name: &str, place: &str) -> Result<File> {
    let refuse = |found: String| Error::refused(place, found, "the name of a file in the model's folder");
    let is_plain = |part| matches!(part, Component::Normal(_));
    if name.is_empty() || !Path::new(name).components().all(is_plain) {
        return Err(refuse(format!("its data in `{name}`")));
    }
    let real = |path: PathBuf| {
        path.canonicalize()
            .map_err(|error| refuse(format!("its data in `{name}`, which cannot be opened ({error})")))
    };
    let (folder, path) = (real(folder.to_owned())?, real(folder.join(name))?);
    if !path.starts_with(&folder) || !path.is_file() {
        return Err(refuse(format!("its data in `{name}`")));
    }
    File::open(&path)
        .map_err(|error| refuse(format!("its data in `{name}`, which cannot be opened ({error})")))
}

/// Gives the image a size where the file leaves it open.
fn fix_size(graph: &mut GraphProto, [width, height]: [usize; 2]) -> Result<()> {
    let [info] = &mut graph.input[..] else { return Ok(()) };
    let Some(shape) = gate::image_axes(info) else { return Ok(()) };
    let first = if gate::channels_are_last(shape) { 1 } else { 2 };
    let own = [first + 1, first].map(|axis| gate::fixed(shape, axis));
    let size = [width as i64, height as i64];
    if own.iter().zip(size).any(|(own, size)| own.is_some_and(|own| own != size)) {
        let side = |own: Option<i64>| own.map_or("any".into(), |own| own.to_string());
        let found = format!("the model takes {} x {} pixels", side(own[0]), side(own[1]));
        return Err(Error::Usage(format!("a size of {width} x {height}: {found}")));
    }
    for (axis, side) in [(first + 1, width), (first, height)] {
        shape.dim[axis].value = Some(Dimension::DimValue(side as i64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use smalti_models::onnx::StringStringEntryProto;
    use smalti_models::onnx::tensor_shape_proto::dimension::Value;

    use super::*;

    fn bytes() -> Vec<u8> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        std::fs::read(models.join("torch_vit.onnx")).unwrap()
    }

    /// The model with its first weight in another file, of that name and place.
    fn apart(location: &str, offset: u64) -> (Vec<u8>, Vec<u8>) {
        let mut model = ModelProto::decode(&bytes()[..]).unwrap();
        let weight = &mut model.graph.as_mut().unwrap().initializer[0];
        let data = std::mem::take(&mut weight.raw_data).to_vec();
        weight.data_location = Some(DataLocation::External as i32);
        let entries = [
            ("location", location.to_owned()),
            ("offset", offset.to_string()),
            ("length", data.len().to_string()),
        ];
        weight.external_data =
            entries.map(|(key, value)| StringStringEntryProto { key: key.into(), value }).to_vec();
        (model.encode_to_vec(), data)
    }

    #[test]
    fn weights_in_the_folder_are_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let (model, data) = apart("model.onnx.data", 3);
        std::fs::write(folder.path().join("model.onnx.data"), [&[0; 3][..], &data].concat()).unwrap();
        let whole = complete(model, Some(&path), None, &Limits::default()).unwrap();
        assert_eq!(ModelProto::decode(&whole[..]), ModelProto::decode(&bytes()[..]));
        // What is whole stays as it is, bit for bit.
        assert_eq!(complete(bytes(), Some(&path), None, &Limits::default()).unwrap(), bytes());
    }

    #[test]
    fn no_other_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let (_, data) = apart("", 0);
        for place in ["data", "inner/data"] {
            std::fs::write(folder.path().join(place), &data).unwrap();
        }
        let refused = |location: &str, offset, limits: &Limits| {
            let error = complete(apart(location, offset).0, Some(&inner.join("model.onnx")), None, limits);
            let error = error.unwrap_err();
            assert_eq!(error.exit_code(), 3, "{error}");
            error.to_string()
        };
        let (limits, absolute) = (Limits::default(), folder.path().join("data"));
        for elsewhere in ["../data", absolute.to_str().unwrap(), "", ".", "nowhere", "../inner/data"] {
            assert!(refused(elsewhere, 0, &limits).contains("model's folder"), "{elsewhere}");
        }
        assert!(refused("data", 1, &limits).contains("too short"));
        assert!(refused("data", u64::MAX, &limits).contains("too short"));
        assert!(refused("data", 0, &Limits { file_bytes: 1 << 10, ..limits }).contains("bytes"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../data", inner.join("link")).unwrap();
            assert!(refused("link", 0, &limits).contains("model's folder"), "a link to another folder");
        }
    }

    #[test]
    fn an_open_size_is_fixed_and_another_is_an_error() {
        let open = |names: [Option<&str>; 2]| {
            let mut model = ModelProto::decode(&bytes()[..]).unwrap();
            let info = &mut model.graph.as_mut().unwrap().input[0];
            for (dim, name) in gate::image_axes(info).unwrap().dim[2..].iter_mut().zip(names) {
                dim.value = name.map(|name| Value::DimParam(name.into()));
            }
            model.encode_to_vec()
        };
        let fixed = |bytes, size| complete(bytes, None, Some(size), &Limits::default());
        for names in [[Some("height"), Some("width")], [None, None]] {
            let found = fixed(open(names), [8, 8]).unwrap();
            assert_eq!(ModelProto::decode(&found[..]), ModelProto::decode(&bytes()[..]));
        }
        let error = fixed(bytes(), [16, 8]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("takes 8 x 8 pixels"), "{error}");
    }
}
