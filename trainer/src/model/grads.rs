//! The gradients of all parameters during a backward pass.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// The flat gradient vector `[parameters]`, which backward passes add to.
///
/// It dereferences to the vector. A model's tensors lie in the order of its forward pass, so a backward pass completes
/// the vector from its end, and reports after each block how far it is ([`Grads::ready_from`]). A listener can then
/// sum up the finished end while the pass continues; the models do not know who listens.
pub struct Grads<'a, R> {
    values: &'a mut [R],
    on_grads_ready: Option<Listener<'a, R>>,
}

/// Called with the place from which the gradients are complete, and the gradients.
type Listener<'a, R> = &'a mut dyn FnMut(usize, &[R]);

impl<'a, R> Grads<'a, R> {
    /// Gradients that nobody listens to.
    pub fn new(values: &'a mut [R]) -> Grads<'a, R> {
        Grads { values, on_grads_ready: None }
    }

    /// Gradients with a listener: `on_grads_ready(start, gradients)` is called when `gradients[start..]` is complete.
    pub fn with_listener(
        values: &'a mut [R],
        on_grads_ready: &'a mut dyn FnMut(usize, &[R]),
    ) -> Grads<'a, R> {
        Grads { values, on_grads_ready: Some(on_grads_ready) }
    }

    /// Reports that this pass adds nothing more from the value `start` on.
    pub fn ready_from(&mut self, start: usize) {
        if let Some(on_grads_ready) = &mut self.on_grads_ready {
            on_grads_ready(start, self.values);
        }
    }
}

impl<R> Deref for Grads<'_, R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        self.values
    }
}

impl<R> DerefMut for Grads<'_, R> {
    fn deref_mut(&mut self) -> &mut [R] {
        self.values
    }
}

impl<R> fmt::Debug for Grads<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} gradients", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Grads;

    #[test]
    fn the_listener_sees_what_is_complete() {
        let (mut values, mut seen) = ([0.0; 4], Vec::new());
        let mut listen = |start: usize, values: &[f64]| seen.push((start, values[start..].to_vec()));
        let mut grads = Grads::with_listener(&mut values, &mut listen);
        grads[3] += 1.0;
        grads.ready_from(3);
        grads[1] += 2.0;
        grads.ready_from(1);
        assert_eq!(seen, [(3, vec![1.0]), (1, vec![2.0, 0.0, 1.0])]);
    }

    #[test]
    fn nobody_has_to_listen() {
        let mut values = [0.0; 2];
        let mut grads = Grads::new(&mut values);
        grads.ready_from(1);
        grads[0] += 1.0;
        assert_eq!(values, [1.0, 0.0]);
    }
}
