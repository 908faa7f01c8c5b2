//! Values inside a graph that a program shows while it runs, in the shape and the order that the graph gives them.

use super::exec::{Arena, ImageView};
use super::program::Location;
use super::step::{Buffer, PixelValues};
use super::view::View;

/// A value that is shown.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    /// Its place among those asked for.
    pub(super) index: usize,
    pub(super) source: Source,
    /// Where its elements lie, in the graph's order.
    pub(super) view: View,
    /// Zeros around a map: lines above, columns to the left, lines below, columns to the right.
    pub(super) pads: [usize; 4],
}

/// What a value is read from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Buffer(Buffer),
    /// The image, with what is made of its values.
    Image(PixelValues),
}

/// The same for a buffer that has its place.
#[derive(Debug)]
pub(crate) struct PlacedTap {
    pub(super) tap: Tap,
    pub(super) at: Location,
    /// The steps after which the value is there; the next one may write over it.
    pub(super) after: usize,
    dims: Vec<usize>,
    /// Whether its elements lie in the graph's order, without gaps.
    is_in_order: bool,
}

impl Tap {
    /// The buffer that is read; none where that is the image.
    pub(super) fn buffer(&self) -> Option<Buffer> {
        match self.source {
            Source::Buffer(buffer) => Some(buffer),
            Source::Image(_) => None,
        }
    }
}

impl PlacedTap {
    pub(super) fn new(tap: Tap, at: Location, after: usize) -> PlacedTap {
        let [top, left, bottom, right] = tap.pads;
        let mut dims = tap.view.dims.clone();
        if let [.., height, width] = &mut dims[..] {
            (*height, *width) = (*height + top + bottom, *width + left + right);
        }
        let is_in_order = tap.view.is_contiguous() && tap.pads == [0; 4];
        PlacedTap { tap, at, after, dims, is_in_order }
    }

    /// The value's place among those asked for.
    pub(crate) fn index(&self) -> usize {
        self.tap.index
    }

    /// The steps to run before the value is read.
    pub(crate) fn after(&self) -> usize {
        self.after
    }

    /// The shape in the graph.
    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements in the graph's order: where they lie so, or in `copy`.
    pub(crate) fn read<'a>(
        &self,
        arena: &'a Arena,
        image: ImageView<'_>,
        copy: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let view = &self.tap.view;
        match (&self.tap.source, image) {
            (Source::Buffer(_), _) => {
                let floats = arena.read(&self.at);
                if self.is_in_order {
                    return &floats[view.offset..view.offset + view.len()];
                }
                self.copy(copy, |place| floats[place]);
            }
            (Source::Image(PixelValues::Bytes(values)), ImageView::U8(pixels)) => {
                self.copy(copy, |place| values[usize::from(pixels[place])]);
            }
            (&Source::Image(PixelValues::Floats { scale, shift }), ImageView::F32(pixels)) => {
                self.copy(copy, |place| pixels[place] * scale + shift);
            }
            // The gate knows which kind of image the model takes.
            (Source::Image(_), _) => copy.clear(),
        }
        copy
    }

    /// The elements one by one, within zeros.
    fn copy(&self, copy: &mut Vec<f32>, element: impl Fn(usize) -> f32) {
        let (view, mut elements) = (&self.tap.view, self.tap.view.places().map(element));
        copy.clear();
        let (&[.., height, width], &[.., high, wide]) = (&view.dims[..], &self.dims[..]) else {
            copy.extend(elements);
            return;
        };
        let [top, left, ..] = self.tap.pads;
        copy.resize(self.dims.iter().product(), 0.0);
        for line in 0..view.len() / width.max(1) {
            let start = (line / height * high + line % height + top) * wide + left;
            copy[start..start + width].iter_mut().zip(&mut elements).for_each(|(to, from)| *to = from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::Slot;
    use super::*;

    fn placed(source: Source, view: View, pads: [usize; 4]) -> PlacedTap {
        let at = Location { slot: Slot::Floats(0), offset: 0, cols: 1 };
        PlacedTap::new(Tap { index: 0, source, view, pads }, at, 0)
    }

    /// What is shown of a buffer of 0, 1, 2, ... or of such an image of floats.
    fn shown(tap: &PlacedTap) -> Vec<f32> {
        let mut arena = Arena::new(&[12], &[], Default::default(), 1);
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        arena.write(0, &values);
        tap.read(&arena, ImageView::F32(&values), &mut vec![7.0; 3]).to_vec()
    }

    #[test]
    fn elements_come_in_the_graphs_order() {
        let rows = placed(Source::Buffer(1), View { offset: 4, ..View::whole(&[2, 3]) }, [0; 4]);
        assert_eq!((shown(&rows), rows.dims()), (vec![4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &[2, 3][..]));
        // Two channels of two by two pixels, a row for each pixel.
        let map = View { offset: 0, dims: vec![1, 2, 2, 2], strides: vec![0, 1, 4, 2] };
        let turned = placed(Source::Buffer(1), map, [0; 4]);
        assert_eq!(shown(&turned), [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        let column = View { offset: 1, dims: vec![3], strides: vec![4] };
        assert_eq!(shown(&placed(Source::Buffer(1), column, [0; 4])), [1.0, 5.0, 9.0]);
    }

    #[test]
    fn a_padded_map_has_zeros_around_it() {
        let tap = placed(Source::Buffer(1), View { offset: 2, ..View::whole(&[1, 2, 1, 2]) }, [1, 0, 0, 1]);
        let zero = [0.0; 3];
        assert_eq!(tap.dims(), [1, 2, 2, 3]);
        assert_eq!(shown(&tap), [zero, [2.0, 3.0, 0.0], zero, [4.0, 5.0, 0.0]].as_flattened());
    }

    #[test]
    fn of_the_image_the_function_is_computed() {
        let floats = Source::Image(PixelValues::Floats { scale: 2.0, shift: -1.0 });
        let tap = placed(floats, View { offset: 3, dims: vec![2], strides: vec![2] }, [0; 4]);
        assert_eq!(shown(&tap), [5.0, 9.0]);
        let mut table = Box::new([0.0; 256]);
        table[200] = 0.5;
        let tap = placed(Source::Image(PixelValues::Bytes(table)), View::whole(&[2]), [0; 4]);
        let arena = Arena::new(&[], &[], Default::default(), 1);
        assert_eq!(tap.read(&arena, ImageView::U8(&[200, 3]), &mut Vec::new()), [0.5, 0.0]);
    }
}
