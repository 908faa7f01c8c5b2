//! Images inside tar shards, read where they lie without unpacking.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use smalti_models::image::Limits;

/// Images inside shards.
pub(crate) struct Shards {
    paths: Vec<PathBuf>,
    members: Vec<Member>,
}

/// Where an image is in its shard.
pub(crate) struct Member {
    /// The number of the shard.
    pub(crate) shard: u32,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) name: Box<str>,
}

impl Shards {
    pub(crate) fn new(paths: Vec<PathBuf>, members: Vec<Member>) -> Shards {
        Shards { paths, members }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The shard and the member's name.
    pub(crate) fn place(&self, i: usize) -> Option<(&Path, &str)> {
        let member = self.members.get(i)?;
        Some((self.paths.get(member.shard as usize)?, &member.name))
    }

    /// The bytes of a member; the size that the shard states is not trusted. The error is the problem alone.
    pub(crate) fn bytes(&self, i: usize) -> Result<Vec<u8>, String> {
        let member = self.members.get(i).ok_or("no such member")?;
        let path = self.paths.get(member.shard as usize).ok_or("no such shard")?;
        let limit = Limits::default().max_bytes;
        if member.size > limit {
            return Err(format!("{} bytes, the limit is {limit}", member.size));
        }
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(member.offset))?;
            let mut bytes = Vec::new();
            file.take(member.size).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e| format!("cannot be read: {e}"))?;
        if bytes.len() as u64 != member.size {
            return Err(format!("the shard ends after {} of {} bytes", bytes.len(), member.size));
        }
        Ok(bytes)
    }
}
