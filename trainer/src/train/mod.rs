//! Training: [`step`] sums gradients over threads and [`ranks`], [`optim`] updates the parameters, [`trainer`] is the loop
//! around them, [`memory`] computes how much memory it takes.

pub mod memory;
pub mod optim;
pub mod ranks;
pub mod step;
pub mod trainer;
