//! Memory for values that begins with a line of the caches, so that registers of 16 or 32 bytes are not read from two.

use std::ops::{Deref, DerefMut};

/// Bytes of a line.
const LINE: usize = 64;

/// As many values as were asked for, the first of them at the beginning of a line.
#[derive(Debug, Default)]
pub struct Aligned<T> {
    /// With the values before and after those.
    all: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// Zeros, or what else is the type's default.
    pub fn new(len: usize) -> Aligned<T> {
        let all = vec![T::default(); len + Aligned::<T>::SPARE];
        // A vector that is moved keeps its place.
        let start = all.as_ptr().align_offset(LINE).min(Aligned::<T>::SPARE);
        Aligned { all, start, len }
    }
}

impl<T> Aligned<T> {
    /// Bytes that are taken beyond those of the values.
    pub const EXTRA_BYTES: usize = LINE;
    const SPARE: usize = LINE / size_of::<T>();
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.all[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_with_a_line() {
        for len in [0, 1, 15, 4096, 100_000] {
            let (mut floats, bytes) = (Aligned::<f32>::new(len), Aligned::<u8>::new(len));
            floats.fill(1.0);
            let floats = Box::new(floats);
            assert_eq!((floats.len(), bytes.len()), (len, len));
            assert!(floats.as_ptr().addr() % LINE == 0 && bytes.as_ptr().addr() % LINE == 0);
        }
    }
}
