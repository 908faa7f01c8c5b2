//! A model file's bytes in pieces, which decoding gives up one after another, so that the file and what is made of it are
//! not in memory together.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use prost::bytes::Buf;

use crate::error::{Error, Result};
use crate::gate::Limits;

/// Bytes of a piece: the least that glibc and musl give back to the system as soon as it goes, not only to the program.
pub(crate) const PIECE: usize = 128 << 10;

/// Bytes in pieces. Read as a [`Buf`], they lose each piece as soon as all of it was read.
#[derive(Debug, Default)]
pub(crate) struct Pieces<'a> {
    /// None of them empty.
    pieces: VecDeque<Cow<'a, [u8]>>,
    /// Bytes of the first piece that were read.
    read: usize,
    left: usize,
}

impl<'a> From<&'a [u8]> for Pieces<'a> {
    fn from(bytes: &'a [u8]) -> Pieces<'a> {
        let mut all = Pieces::default();
        all.push(bytes.into());
        all
    }
}

impl From<Vec<u8>> for Pieces<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        let mut all = Pieces::default();
        all.push(bytes.into());
        all
    }
}

impl<'a> Pieces<'a> {
    /// Reads an open file, not more of it than the limits allow and one byte.
    pub(crate) fn read(file: &File, path: &Path, limits: &Limits) -> Result<Pieces<'static>> {
        let most = limits.file_bytes.saturating_add(1);
        let size = file.metadata().map_or(0, |metadata| metadata.len().min(most));
        let refused = |_| Error::refused("file", format!("{size} bytes"), "what fits into memory");
        let (mut file, mut all) = (file.take(most), Pieces::default());
        loop {
            let rest = size.saturating_sub(all.left as u64);
            let mut piece = Vec::new();
            piece.try_reserve_exact(rest.min(PIECE as u64) as usize).map_err(refused)?;
            let count = file.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            if count.map_err(Error::io("read", path))? == 0 {
                return Ok(all);
            }
            all.push(piece.into());
        }
    }

    fn push(&mut self, piece: Cow<'a, [u8]>) {
        if !piece.is_empty() {
            self.left += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The bytes that are left, piece by piece.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let skipped = std::iter::once(self.read).chain(std::iter::repeat(0));
        self.pieces.iter().zip(skipped).map(|(piece, read)| &piece[read..])
    }

    /// The same bytes, to be read without giving them up.
    pub(crate) fn borrowed(&self) -> Pieces<'_> {
        let mut all = Pieces::default();
        self.iter().for_each(|piece| all.push(piece.into()));
        all
    }

    /// The bytes that are left, as one.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.left];
        self.copy_to_slice(&mut bytes);
        bytes
    }
}

impl Buf for Pieces<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece[self.read..])
    }

    fn advance(&mut self, count: usize) {
        self.read += count;
        self.left -= count;
        while let Some(piece) = self.pieces.front().filter(|piece| piece.len() <= self.read) {
            self.read -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use smalti_models::onnx::{GraphProto, ModelProto, TensorProto};
    use std::io::{Seek, Write};

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn read(bytes: &[u8], limits: &Limits) -> Pieces<'static> {
        let file = file(bytes);
        Pieces::read(file.as_file(), file.path(), limits).unwrap()
    }

    #[test]
    fn a_file_is_read_as_it_is() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let pieces = read(&bytes, &Limits::default());
            assert_eq!((pieces.remaining(), pieces.iter().count()), (size, size.div_ceil(PIECE)));
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
            assert_eq!(pieces.borrowed().into_vec(), bytes);
            assert_eq!(pieces.into_vec(), bytes);
        }
    }

    #[test]
    fn no_more_is_read_than_the_limits_allow_and_one_byte() {
        let limits = Limits { file_bytes: 10, ..Limits::default() };
        assert_eq!(read(&[1; 10], &limits).remaining(), 10);
        assert_eq!(read(&[1; 2 * PIECE], &limits).remaining(), 11);
    }

    #[test]
    fn pieces_go_once_they_are_read() {
        let bytes: Vec<u8> = (0..2 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        let mut pieces = read(&bytes, &Limits::default());
        pieces.advance(PIECE - 1);
        assert_eq!((pieces.iter().count(), pieces.chunk()), (3, &bytes[PIECE - 1..PIECE]));
        assert_eq!(&pieces.copy_to_bytes(3)[..], &bytes[PIECE - 1..PIECE + 2]);
        assert_eq!((pieces.iter().count(), pieces.remaining()), (2, PIECE + 3));
        assert_eq!(pieces.borrowed().into_vec(), &bytes[PIECE + 2..]);
        pieces.advance(PIECE + 3);
        assert_eq!((pieces.iter().count(), pieces.chunk()), (0, &[][..]));
    }

    #[test]
    fn a_file_and_what_is_made_of_it_are_not_in_memory_together() {
        const TENSOR: usize = 100_000;
        let tensor = TensorProto { raw_data: vec![7; TENSOR].into(), ..Default::default() };
        let graph = GraphProto { initializer: vec![tensor; 20], ..Default::default() };
        let file = file(&ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec());
        let used = allocation_counter::measure(|| {
            let pieces = Pieces::read(file.as_file(), file.path(), &Limits::default());
            ModelProto::decode(pieces.unwrap()).unwrap();
        });
        let (most, allowed) = (used.bytes_max as usize, 21 * TENSOR + 2 * PIECE);
        assert!(most < allowed, "{most} bytes, {allowed} allowed");
    }

    #[test]
    fn one_slice_is_one_piece() {
        assert_eq!(Pieces::from(&[][..]).iter().count(), 0);
        assert_eq!(Pieces::from(&[1, 2][..]).into_vec(), [1, 2]);
    }
}
