//! Values that the program shows while it runs.

use super::convolution::image_map;
use super::{IMAGE, Lower, Result, Value, need};
use crate::compile::tap::{Source, Tap};

impl Lower<'_> {
    /// Notes a value that has just been defined, if it is asked for. Functions are computed at once, so that the value is
    /// shown early and its buffer lives no longer than others need it.
    pub(super) fn tap(&mut self, name: &str) -> Result<()> {
        let Some(index) = self.wanted.iter().position(|wanted| *wanted == name) else { return Ok(()) };
        let (data, pads) = match self.value(name)? {
            Value::Data(data) => (data, [0; 4]),
            Value::Padded(data, pads) => (data, pads),
            Value::Constant(_) | Value::Scores(..) | Value::Norm(_) | Value::IsNan(_) => {
                return Err("a value that no step computes".into());
            }
        };
        let tap = if data.buffer == IMAGE {
            let map = need(image_map(&data), "a function of the image itself")?;
            Tap { index, source: Source::Image(map.values), view: data.view, pads }
        } else {
            let data = self.plain(&data)?;
            Tap { index, source: Source::Buffer(data.buffer), view: data.view, pads }
        };
        self.taps.push(tap);
        Ok(())
    }

    /// Whether every value that is asked for was noted.
    pub(super) fn check_taps(&self) -> Result<()> {
        let noted = |index: usize| self.taps.iter().any(|tap| tap.index == index);
        match self.wanted.iter().enumerate().find(|&(index, _)| !noted(index)) {
            Some((_, name)) => Err(format!("`{name}` is no value of the graph, or asked for twice")),
            None => Ok(()),
        }
    }
}
