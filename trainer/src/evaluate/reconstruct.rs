//! Images of what an autoencoder makes of hidden patches: original, masked, reconstructed, side by side.

use smalti_models::{Image, Preprocess};

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::model::{Mae, mae};
use crate::objective::{Mask, pixels};
use crate::sheet::{self, GREY};

/// Pixels between images.
const GAP: usize = 2;

/// A trained autoencoder and how it was trained.
pub struct Shown<'a> {
    /// The model.
    pub model: &'a Mae,
    /// Its parameters.
    pub params: &'a [f32],
    /// Its input.
    pub preprocess: &'a Preprocess,
    /// Whether its targets were normalised; then each patch gets its own mean and standard deviation back.
    pub norm_pix_loss: bool,
    /// Share of the patches that is hidden.
    pub mask_ratio: f64,
    /// Seed of the masks.
    pub seed: u64,
}

impl Shown<'_> {
    /// A PNG of the first `count` usable images, one a row.
    pub fn png(&self, data: &Dataset, count: usize) -> Result<Vec<u8>> {
        let (size, channels) = (self.preprocess.img_size, self.preprocess.channels);
        let mut cells = Vec::new();
        let mut acts = mae::Activations::default();
        for i in 0..data.len() {
            if cells.len() == 3 * count {
                break;
            }
            // An unusable image was named in training.
            let Ok(image) = self.input(data, i) else { continue };
            for pixels in self.row(i as u32, image.data(), &mut acts)? {
                cells.push(Image::new(size, size, channels, pixels)?);
            }
        }
        if cells.is_empty() {
            return Err(Error::data(data.root(), "has no usable image to reconstruct"));
        }
        // Small images are shown enlarged.
        Ok(enlarged(&sheet::sheet(&cells, 3, GAP)?, (96 / size).max(1))?.to_png()?)
    }

    /// Image `i` as the model sees it.
    fn input(&self, data: &Dataset, i: usize) -> Result<Image> {
        Ok(self.preprocess.apply(&data.image_for(i, self.preprocess.side())?)?)
    }

    /// Original, masked and reconstructed pixels of one image, HWC.
    fn row(&self, id: u32, bytes: &[u8], acts: &mut mae::Activations<f32>) -> Result<[Vec<u8>; 3]> {
        let config = self.model.config();
        let vit = &config.encoder;
        let mut planes = vec![0.0; bytes.len()];
        self.preprocess.normalise(bytes, &mut planes)?;
        let mask = Mask::draw(self.seed, 0, &[id], vit.patches(), config.visible(self.mask_ratio));
        let mut predicted = self.model.predict(self.params, mask.input(&planes, 1), acts).to_vec();
        if self.norm_pix_loss {
            let mut original = vec![0.0; predicted.len()];
            pixels::patchify(vit, &planes, &mask.hidden, 1, &mut original);
            let len = vit.patch_len();
            for (pred, original) in predicted.chunks_exact_mut(len).zip(original.chunks_exact(len)) {
                let (mean, std) = pixels::patch_statistics(original);
                pred.iter_mut().for_each(|x| *x = *x * std + mean);
            }
        }
        let mut rebuilt = planes.clone();
        pixels::unpatchify(vit, &predicted, &mask.hidden, &mut rebuilt);
        let mut masked = bytes.to_vec();
        for &id in &mask.hidden {
            let (top, left) = (id as usize / vit.grid(), id as usize % vit.grid());
            for y in 0..vit.patch_size {
                let start =
                    ((top * vit.patch_size + y) * vit.img_size + left * vit.patch_size) * vit.channels;
                masked[start..start + vit.patch_size * vit.channels].fill(GREY);
            }
        }
        Ok([bytes.to_vec(), masked, self.denormalise(&rebuilt)])
    }

    /// Normalised planes back to bytes, HWC.
    fn denormalise(&self, planes: &[f32]) -> Vec<u8> {
        let channels = self.preprocess.channels;
        let area = planes.len() / channels;
        let byte = |i: usize| {
            let (pixel, c) = (i / channels, i % channels);
            let value = planes[c * area + pixel] * self.preprocess.std[c] + self.preprocess.mean[c];
            (value * 255.0).round().clamp(0.0, 255.0) as u8
        };
        (0..planes.len()).map(byte).collect()
    }
}

/// Repeats each pixel `zoom` times both ways.
fn enlarged(image: &Image, zoom: usize) -> Result<Image> {
    let rows = image.data().chunks_exact(image.width() * image.channels());
    let pixels = rows.flat_map(|row| {
        let row: Vec<u8> = row.chunks_exact(image.channels()).flat_map(|pixel| pixel.repeat(zoom)).collect();
        row.repeat(zoom)
    });
    Ok(Image::new(image.width() * zoom, image.height() * zoom, image.channels(), pixels.collect())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::{DecoderConfig, Image, MaeConfig, VitConfig};

    #[test]
    fn visible_patches_come_through_untouched() {
        let encoder = VitConfig {
            img_size: 8,
            patch_size: 4,
            channels: 3,
            dim: 8,
            depth: 1,
            heads: 2,
            stem: Default::default(),
            variant: Default::default(),
        };
        let model = Mae::new(&MaeConfig {
            encoder,
            decoder: DecoderConfig { kind: Default::default(), dim: 8, depth: 1, heads: 2 },
        })
        .unwrap();
        let params = model.layout().init::<f32>(1);
        let preprocess = Preprocess {
            img_size: 8,
            channels: 3,
            fit: Default::default(),
            resize: None,
            interpolation: Default::default(),
            mean: vec![0.4, 0.5, 0.6],
            std: vec![0.2, 0.25, 0.3],
        };
        let shown = Shown {
            model: &model,
            params: &params,
            preprocess: &preprocess,
            norm_pix_loss: true,
            mask_ratio: 0.75,
            seed: 1,
        };
        let pixels: Vec<u8> = (0..192).map(|i| (i * 37 % 256) as u8).collect();
        let [original, masked, rebuilt] = shown.row(0, &pixels, &mut mae::Activations::default()).unwrap();
        assert_eq!(original, pixels);
        let kept = (0..64).filter(|p| masked[p * 3..p * 3 + 3] == pixels[p * 3..p * 3 + 3]).count();
        assert!((16..20).contains(&kept), "one patch of four is seen: {kept} pixels");
        for p in (0..64).filter(|p| masked[p * 3..p * 3 + 3] != [GREY; 3]) {
            assert_eq!(rebuilt[p * 3..p * 3 + 3], pixels[p * 3..p * 3 + 3]);
        }

        let image = Image::new(8, 8, 3, pixels).unwrap();
        let data = Dataset::from_images(vec![], vec![(image, None)]).unwrap();
        let png = image::load_from_memory(&shown.png(&data, 4).unwrap()).unwrap();
        assert_eq!((png.width(), png.height()), (28 * 12, 8 * 12));
    }
}
