//! The budgets of the gate.

/// How much a model may ask for. The defaults carry every vision transformer up to ViT-Large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes that decoding may take beside the weights: a bound on the number of nodes, names and texts.
    pub overhead_bytes: u64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Elements of any one tensor.
    pub tensor: u64,
    /// Elements of all weights together, and of all that follows from weights alone.
    pub weights: u64,
    /// Elements of the tensors that are needed at one time while the model runs.
    pub live: u64,
    /// Estimated work of one run in multiply-adds of a matrix product, other operations by their time; the
    /// default is some ten seconds.
    pub work: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_bytes: 2 << 30,
            overhead_bytes: 256 << 20,
            nodes: 10_000,
            tensor: 64 << 20,
            weights: 512 << 20,
            live: 256 << 20,
            work: 250_000_000_000,
        }
    }
}

/// What a model may ask for beyond what its file stores, so that a few kilobytes cannot ask for gigabytes or minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bytes of all tensors in the file.
    pub(super) stored: u64,
    /// Values of the image.
    pub(super) input: u64,
}

impl Budget {
    /// `base + stored · each_stored + input · each_input`.
    fn sum(self, base: u64, each_stored: u64, each_input: u64) -> u64 {
        let stored = self.stored.saturating_mul(each_stored);
        base.saturating_add(stored).saturating_add(self.input.saturating_mul(each_input))
    }

    /// Bytes of all constants that follow from others. Weights that are dequantized, transposed and scaled in the graph
    /// take a few times what they take in the file.
    pub(crate) fn constants(self) -> u64 {
        self.sum(8 << 20, 32, 0)
    }

    /// Bytes of what runs: packed weights, and what lies between layers at one time.
    pub(crate) fn running(self) -> u64 {
        self.sum(32 << 20, 16, 32)
    }

    /// Work on constants, in the unit of [`Limits::work`].
    pub(super) fn folding(self) -> u64 {
        self.sum(2_000_000_000, 4096, 0)
    }

    /// Work of a run, in the unit of [`Limits::work`]: a second for any file, and more for each weight, which many
    /// tokens may meet.
    pub(super) fn work(self) -> u64 {
        self.sum(10_000_000_000, 500_000, 10_000)
    }
}
