//! In place of tract in a build without it: nothing can be prepared, so nothing needs to run.

use smalti_models::onnx::ModelProto;

use crate::compile::ImageView;
use crate::error::{Error, Result};
use crate::gate::Input;

/// A graph that tract would run: there is none.
#[derive(Clone, Debug)]
pub(crate) enum Plan {}

/// What would run one.
pub(crate) enum Runner {}

impl Plan {
    /// Refuses the graph, and says why it would take tract.
    pub(crate) fn new(_: ModelProto, why: &str) -> Result<Plan> {
        let allowed =
            "what the compiler lowers to our kernels; a build with the feature `tract` runs this model too";
        Err(Error::refused("graph", why, allowed))
    }

    pub(crate) fn runner(&self, _: &Input) -> Result<Runner> {
        match *self {}
    }
}

impl Runner {
    pub(crate) fn run(
        &mut self,
        _: ImageView<'_>,
        _: impl FnMut(usize, &[f32], &[usize]) -> Result<()>,
    ) -> Result<()> {
        match *self {}
    }
}
