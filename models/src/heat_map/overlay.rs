//! A heat map over its image.

use super::HeatMap;
use super::palette::palette;
use crate::error::Result;
use crate::image::{Image, View};

/// How much of the map's colour covers the image, where values are small and where they are large.
const COVER: [f32; 2] = [0.5, 0.8];

/// How bright the image is beneath the map, and outside of it.
const BENEATH: [f32; 2] = [0.75, 0.3];

impl HeatMap {
    /// The map over an image, in RGB: the image in grey, and over it dark blue where the value is 0 or less, rose at half of
    /// `full`, and pale yellow from `full` on. The map lies over `region` of the image (left, top, right, bottom as fractions
    /// of width and height); the rest is darkened.
    ///
    /// # Errors
    /// An image that takes too much memory.
    pub fn over(&self, image: View<'_>, region: [f64; 4], full: f32) -> Result<Image> {
        let (width, height) = (image.width(), image.height());
        let mut greys = Vec::new();
        image.convert(1, &mut greys)?;
        let colours = palette();
        let [left, top, right, bottom] = region;
        let mut pixels = Vec::with_capacity(3 * greys.len());
        for (i, grey) in greys.into_iter().enumerate() {
            let grey = f32::from(grey);
            let [x, y] =
                [(i % width, width), (i / width, height)].map(|(i, side)| (i as f64 + 0.5) / side as f64);
            let Some(value) = self.at([(x - left) / (right - left), (y - top) / (bottom - top)]) else {
                pixels.extend([(BENEATH[1] * grey) as u8; 3]);
                continue;
            };
            let strength =
                Some(value / full).filter(|part| !part.is_nan()).map_or(0.0, |part| part.clamp(0.0, 1.0));
            let cover = COVER[0] + strength * (COVER[1] - COVER[0]);
            let colour = colours[(255.0 * strength).round() as usize];
            let mixed = |colour: u8| cover * f32::from(colour) + (1.0 - cover) * BENEATH[0] * grey;
            pixels.extend(colour.map(|colour| mixed(colour).round() as u8));
        }
        Image::new(width, height, 3, pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_values_are_pale_yellow_and_what_is_outside_is_dark() {
        let map = HeatMap::new([2, 1], vec![-1.0, 9.0]).unwrap();
        let image = Image::new(40, 10, 3, vec![200; 1200]).unwrap();
        let drawn = map.over(image.view(), [0.25, 0.0, 0.75, 1.0], 1.0).unwrap();
        let pixel = |x: usize| [0, 1, 2].map(|channel| i32::from(drawn.data()[3 * (5 * 40 + x) + channel]));
        assert_eq!((pixel(2), pixel(37)), ([60; 3], [60; 3]));
        let [small, large] = [pixel(12), pixel(27)];
        assert!(small[2] > small[0] && small[0] < 100, "{small:?}");
        assert!(large[0] > 200 && large[0] > large[2] + 30, "{large:?}");
    }

    #[test]
    fn a_map_of_nothing_is_drawn() {
        for (value, full) in [(f32::NAN, 1.0), (0.0, 0.0), (f32::INFINITY, f32::INFINITY)] {
            let map = HeatMap::new([1, 1], vec![value]).unwrap();
            let image = Image::new(1, 1, 1, vec![0]).unwrap();
            assert_eq!(map.over(image.view(), [0.0, 0.0, 1.0, 1.0], full).unwrap().channels(), 3);
        }
    }
}
