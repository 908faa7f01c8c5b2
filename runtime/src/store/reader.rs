//! Reads numbers, texts and lists; nothing is allocated that the file does not hold.

use crate::error::{Error, Result};

/// What is left of a file.
pub(crate) struct Reader<'a> {
    /// The kind of file, for messages.
    name: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(name: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { name, bytes }
    }

    /// A refusal of what a place holds.
    pub(crate) fn refused(&self, place: &str, found: impl Into<String>, allowed: &str) -> Error {
        Error::refused(place, found, allowed).about(self.name)
    }

    pub(crate) fn bytes(&mut self, count: usize, place: &str) -> Result<&'a [u8]> {
        let Some((found, rest)) = self.bytes.split_at_checked(count) else {
            let found = format!("{} bytes", self.bytes.len());
            return Err(self.refused(place, found, &format!("{count}; the file is cut off")));
        };
        self.bytes = rest;
        Ok(found)
    }

    fn array<const N: usize>(&mut self, place: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N, place)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, place: &str) -> Result<u32> {
        self.array(place).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, place: &str) -> Result<u64> {
        self.array(place).map(u64::from_le_bytes)
    }

    /// A number of things, at most `most`.
    pub(crate) fn count(&mut self, most: usize, place: &str) -> Result<usize> {
        let found = self.u32(place)? as usize;
        if found <= most {
            return Ok(found);
        }
        Err(self.refused(place, found.to_string(), &format!("at most {most}")))
    }

    /// A finite number.
    pub(crate) fn float(&mut self, place: &str) -> Result<f32> {
        let found = f32::from_le_bytes(self.array(place)?);
        if found.is_finite() {
            Ok(found)
        } else {
            Err(self.refused(place, found.to_string(), "a finite number"))
        }
    }

    /// That many finite numbers.
    pub(crate) fn floats(&mut self, count: usize, place: &str) -> Result<Vec<f32>> {
        let bytes = self.bytes(count.saturating_mul(size_of::<f32>()), place)?;
        let floats: Vec<f32> = bytes
            .chunks_exact(size_of::<f32>())
            .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap_or_default()))
            .collect();
        match floats.iter().find(|value| !value.is_finite()) {
            Some(found) => Err(self.refused(place, found.to_string(), "finite numbers")),
            None => Ok(floats),
        }
    }

    /// Text of at most that many bytes.
    pub(crate) fn text(&mut self, most: usize, place: &str) -> Result<String> {
        let length = self.count(most, place)?;
        let bytes = self.bytes(length, place)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.refused(place, "other bytes", "text in UTF-8"))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<()> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(self.refused("end", format!("{left} bytes more"), "none")),
        }
    }
}
