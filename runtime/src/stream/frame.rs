//! One frame of a stream.

use smalti_models::image::{self, Limits, View};
use smalti_models::{Image, Preprocess};

use super::Format;
use crate::error::{Error, Result};
use crate::load::Model;

/// One frame of a stream.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub(super) number: u64,
    pub(super) format: Format,
    pub(super) bytes: Vec<u8>,
}

/// A frame's pixels.
#[derive(Clone, Debug)]
pub enum Pixels<'a> {
    /// Decoded from a file, or converted from other pixels.
    Decoded(Image),
    /// As they are in the frame.
    Raw(View<'a>),
}

impl Pixels<'_> {
    /// The pixels without their memory.
    pub fn view(&self) -> View<'_> {
        match self {
            Pixels::Decoded(image) => image.view(),
            Pixels::Raw(view) => *view,
        }
    }
}

impl Frame {
    /// Which of the stream's frames it is, counted from 1, dropped and bad ones among them.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The pixels; [`Error::Data`] if the frame is damaged.
    pub fn pixels(&self, limits: &Limits) -> Result<Pixels<'_>> {
        self.pixels_at(limits, None)
    }

    /// As [`Frame::pixels`], for a model: of a JPEG that is much larger than what the model sees a smaller picture is
    /// decoded ([`image::decode_for`]).
    pub fn pixels_for(&self, limits: &Limits, model: &Model) -> Result<Pixels<'_>> {
        self.pixels_at(limits, model.preprocess().map(Preprocess::side))
    }

    fn pixels_at(&self, limits: &Limits, side: Option<usize>) -> Result<Pixels<'_>> {
        let pixels = match self.format {
            Format::Mjpeg => image::decode_for(&self.bytes, limits, side).map(Pixels::Decoded),
            Format::Raw { width, height, pixels } => match pixels.channels() {
                Some(channels) => {
                    View::new(width, height, channels, width * channels, &self.bytes).map(Pixels::Raw)
                }
                None => pixels.to_rgb(width, height, &self.bytes, limits).map(Pixels::Decoded),
            },
        };
        pixels.map_err(|error| Error::data(format!("frame {}", self.number), error))
    }
}
