//! The gradients of a batch, summed over threads and ranks: the same bits for any number of them.
//!
//! A batch is cut into micro-batches of a fixed size, which are assigned in order to a fixed number of lanes ([`plan`]). A
//! lane is a fixed-order accumulator: a gradient vector to which its micro-batches are added one after the other. A thread
//! computes whole lanes; a rank has a share of them ([`lanes`]). The lanes are added in order ([`sum`]). So the batch alone
//! decides which numbers are added, and in which order.
//!
//! The vector is summed in parts. A backward pass completes a lane's gradients from the end of the vector
//! ([`Grads`](crate::model::Grads)); a part is added as soon as it is complete, and with several ranks
//! ([`crate::train::ranks`]) it travels while the rest is computed.

mod lanes;
mod plan;
mod sum;

pub use lanes::GradLanes;
pub use plan::{BatchPlan, micro_batch};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. A panic of another thread leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
