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
