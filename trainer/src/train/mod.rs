//! From gradients to moved parameters: [`step`] sums gradients over threads and [`ranks`], [`optim`] moves the
//! parameters, [`trainer`] is the loop around them.

pub mod memory;
pub mod optim;
pub mod ranks;
pub mod step;
pub mod trainer;
