//! Convolutions and what goes with them in front of tokens: padding, pooling.
//!
//! A map `[1, C, H, W]` lies as rows of pixels, `[H · W, C]`, seen through a view.

use smalti_kernels::Windows;
use smalti_models::onnx::NodeProto;

use super::data::{Data, Function, State};
use super::{IMAGE, Lower, Result, Value, input, need};
use crate::compile::constant::Constant;
use crate::compile::step::{Convolution, ImageMap, PixelValues, Span, Step, Target};
use crate::compile::view::View;
use crate::gate::{attribute, windows, windows_touch};

/// Why a padded map is left to others.
pub(super) const PADDED: &str = "a padding that no convolution follows";

/// A map with its channels last.
pub(super) fn turned(data: &Data) -> Option<Data> {
    let is_map = data.dims().len() == 4;
    is_map.then(|| data.map(|view| view.transpose(&[0, 2, 3, 1]))).flatten()
}

/// The same, if the map lies so.
pub(super) fn pixels(data: &Data) -> Option<Data> {
    turned(data).filter(|map| map.view.is_contiguous() && map.buffer != IMAGE)
}

/// A buffer of pixels as maps of `dims`, `[N, C, H, W]`.
pub(super) fn map_view(dims: &[usize]) -> View {
    let [channels, height, width] = [1, 2, 3].map(|axis| dims.get(axis).copied().unwrap_or(1));
    let strides = vec![height * width * channels, 1, width * channels, channels];
    View { offset: 0, dims: dims.to_vec(), strides }
}

impl<'a> Lower<'a> {
    /// A map within zeros, which a convolution takes in.
    pub(super) fn pad(&mut self, node: &'a NodeProto) -> Result<()> {
        let (data, pads) = (self.data(input(node, 0))?, self.ints(node, 1)?);
        if pads.iter().all(|&pad| pad == 0) {
            self.define_data(node, data);
            return Ok(());
        }
        let value = match self.optional(node, 2)? {
            Some(value) => need(value.single(), "a padding of several values")?,
            None => 0.0,
        };
        let axes = match input(node, 3) {
            "" => vec![0, 1, 2, 3],
            _ => self.ints(node, 3)?.to_vec(),
        };
        let mut sides = [[0; 4]; 2];
        for (i, axis) in axes.iter().enumerate() {
            let axis = if *axis < 0 { axis + 4 } else { *axis } as usize;
            for (side, pads) in sides.iter_mut().zip(pads.chunks(axes.len().max(1))) {
                let side = need(side.get_mut(axis), "other axes than an image's")?;
                *side = pads.get(i).copied().unwrap_or_default() as usize;
            }
        }
        let [[0, 0, top, left], [0, 0, bottom, right]] = sides else {
            return Err("padding of other axes than an image's sides".into());
        };
        if data.dims().len() != 4 || value != 0.0 || data.state == State::Quantized {
            return Err("padding other than zeros around an image".into());
        }
        self.define(node, Value::Padded(data, [top, left, bottom, right]));
        Ok(())
    }

    /// A convolution: of patches of the image, where its windows touch but do not overlap; of the image where it lies;
    /// or of a map.
    pub(super) fn conv(&mut self, node: &'a NodeProto) -> Result<()> {
        let (data, pads) = match self.value(input(node, 0))? {
            Value::Padded(data, pads) => (data, pads),
            Value::Data(data) => (data, [0; 4]),
            _ => return Err("an input of another kind".into()),
        };
        let weight = self.constant(node, 1)?;
        let (&[1, outputs, down, across], &[_, channels, height, width]) = (self.dims(node)?, weight.dims())
        else {
            return Err("other axes than an image's".into());
        };
        let &[1, inputs, rows, columns] = data.dims() else { return Err("several images".into()) };
        if data.state == State::Quantized {
            return Err("a convolution of integers".into());
        }
        let weight = weight.map(|view| view.reshape(&[outputs, channels * height * width]));
        let weight = need(weight, "a weight in pieces")?;
        let is_whole = [rows, columns] == [down * height, across * width] && pads == [0; 4];
        if data.buffer == IMAGE && windows_touch(node, [height, width]) && is_whole {
            return self.conv_of_patches(node, &data, [height, width], weight);
        }
        let padded = [rows + pads[0] + pads[2], columns + pads[1] + pads[3]];
        let facts = windows(node, padded, [height, width]).map_err(|(found, _)| found)?;
        let windows = Windows {
            input: [rows, columns],
            output: [down, across],
            kernel: facts.kernel,
            stride: facts.stride,
            dilation: facts.dilation,
            padding: [facts.padding[0] + pads[0], facts.padding[1] + pads[1]],
        };
        let groups = attribute(node, "group").map_or(1, |attribute| attribute.i) as usize;
        if !windows.are_valid() || groups.checked_mul(channels) != Some(inputs) {
            return Err("windows without kernels".into());
        }
        let bias = self.bias(node, outputs)?;
        let image = image_map(&data).filter(|_| !(groups > 1 && channels == 1));
        let is_image = image.is_some();
        let conv = Convolution { windows, groups, channels, image };
        let conv = Some(Box::new(conv)).filter(|_| groups > 1 || is_image || !windows.are_pixels());
        let (x, weight) = if is_image {
            let x = Span { buffer: IMAGE, offset: 0, rows: rows * columns, cols: inputs };
            (x, crate::compile::step::Weight::Floats(weight))
        } else {
            let map = match data.buffer {
                IMAGE => self.patches(&data, [1, 1], [rows * columns, inputs])?,
                _ => need(turned(&data), "other axes than an image's")?,
            };
            self.operands(&map, weight)?
        };
        let out = self.layer(node, x, conv, weight, bias);
        self.define_data(node, Data::new(out, map_view(self.dims(node)?)));
        Ok(())
    }

    /// A linear layer on the patches of the image.
    fn conv_of_patches(
        &mut self,
        node: &'a NodeProto,
        image: &Data,
        sides: [usize; 2],
        weight: Constant,
    ) -> Result<()> {
        let (dims, &[outputs, cols]) = (self.dims(node)?, weight.dims()) else {
            return Err("a weight of other axes".into());
        };
        let rows = dims.iter().skip(2).product();
        let x = self.patches(image, sides, [rows, cols])?;
        let bias = self.bias(node, outputs)?;
        let (x, weight) = self.operands(&x, weight)?;
        let out = self.layer(node, x, None, weight, bias);
        self.define_data(node, Data::new(out, map_view(dims)));
        Ok(())
    }

    /// The largest value in each window.
    pub(super) fn max_pool(&mut self, node: &'a NodeProto) -> Result<()> {
        let (data, dims) = (self.data(input(node, 0))?, self.dims(node)?);
        let (&[1, _, rows, columns], &[_, _, down, across]) = (data.dims(), dims) else {
            return Err("several images".into());
        };
        let kernel = attribute(node, "kernel_shape").map_or(&[][..], |attribute| &attribute.ints);
        let &[height, width] = kernel else { return Err("windows of other axes".into()) };
        let facts = windows(node, [rows, columns], [height as usize, width as usize]);
        let facts = facts.map_err(|(found, _)| found)?;
        let windows = Windows {
            input: [rows, columns],
            output: [down, across],
            kernel: facts.kernel,
            stride: facts.stride,
            dilation: facts.dilation,
            padding: facts.padding,
        };
        if !windows.are_valid() {
            return Err("windows without kernels".into());
        }
        let map = need(turned(&data), "other axes than an image's")?;
        let x = self.span(&map)?;
        let buffer = self.buffer(windows.count(), x.cols);
        self.steps.push(Step::MaxPool { x, windows, out: Target::floats(buffer) });
        self.define_data(node, Data::new(buffer, map_view(dims)));
        Ok(())
    }

    /// The mean of each channel of a map.
    pub(super) fn global_average(&mut self, node: &'a NodeProto) -> Result<()> {
        let (data, dims) = (self.data(input(node, 0))?, self.dims(node)?);
        let places: Vec<usize> = (2..data.dims().len()).collect();
        let mean = self.mean_over(&data, &places, dims)?;
        self.define_data(node, mean);
        Ok(())
    }
}

/// How a convolution of floats reads the image where it lies, if it can: floats under a factor and a shift, or bytes
/// under any function. Levels of a quantization are computed before.
pub(super) fn image_map(data: &Data) -> Option<ImageMap> {
    if data.buffer != IMAGE || data.state != State::Real {
        return None;
    }
    let values = match &data.function {
        Function::Formula(formula) => {
            let [scale, shift] = formula.affine()?.map(|number| number as f32);
            PixelValues::Floats { scale, shift }
        }
        Function::Table(table) if table.levels_of().is_none() => {
            PixelValues::Bytes(Box::new(**table.values()))
        }
        Function::Table(_) => return None,
    };
    Some(ImageMap { view: data.view.pick(0, 0)?, values })
}
