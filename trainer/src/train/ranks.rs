//! The ranks of a job: several processes, on one machine or on many, that train one model together.
//!
//! Each rank computes the gradients of its own lanes of every batch ([`crate::train::step`]). They are summed along a
//! chain: rank 0 sends the sum over its lanes to rank 1, which adds its own, and so on. The last rank has the total, which
//! goes back along the chain. One process adds its lanes in the same order, so the sum has the same bits. The vector
//! travels in parts, from its end, while the backward pass continues.
//!
//! Rank 0 plans, reads checkpoints and writes every file. It broadcasts the arguments and the state to start from.
//!
//! This module does not know how messages travel. The `mpi` module carries them between machines (feature `mpi`),
//! [`Ranks::threads`] between threads for tests.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};

#[cfg(feature = "mpi")]
pub mod mpi;

/// Bytes of a control message, at most. Longer data is sent as several.
const MAX_MESSAGE: usize = 1 << 24;
/// How often a waiting rank checks whether it is to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Joins the job that this process was started in, if it has several ranks.
pub fn join() -> Result<Option<Ranks>> {
    match started() {
        size @ 2.. => job(size),
        _ => Ok(None),
    }
}

/// Number of processes of the job, from the environment variables that mpirun and srun set.
pub fn started() -> usize {
    started_by(|name| std::env::var(name).ok())
}

fn started_by(variable: impl Fn(&str) -> Option<String>) -> usize {
    let number = |name: &str| variable(name).and_then(|text| text.parse().ok());
    let by_mpirun = number("OMPI_COMM_WORLD_SIZE").or_else(|| number("PMI_SIZE"));
    by_mpirun.or_else(|| number("PMIX_RANK").and_then(|_: usize| number("SLURM_NTASKS"))).unwrap_or(1)
}

#[cfg(feature = "mpi")]
fn job(_size: usize) -> Result<Option<Ranks>> {
    mpi::join().map(Some)
}

#[cfg(not(feature = "mpi"))]
fn job(size: usize) -> Result<Option<Ranks>> {
    Err(Error::Usage(format!(
        "started as one of {size} processes, but this smalti was built without MPI: build it with --features mpi, see \
         docs/many-machines.md"
    )))
}

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of the sum over the lanes of all ranks up to the sender.
    Partial,
    /// A part of the sum over all lanes.
    Total,
    /// Anything else: arguments, states, counts.
    Control,
}

/// A message from one rank to another. Messages between the same two ranks arrive in the order in which they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: usize,
    /// What it holds.
    pub kind: Kind,
    /// The number of its part of the sum.
    pub part: usize,
    /// Numbers are little-endian.
    pub bytes: Vec<u8>,
}

/// Sends a message to a rank, without waiting for its arrival.
pub type Post = Box<dyn Fn(usize, Message) -> Result<()> + Send + Sync>;

/// Messages that arrived.
struct Inbox {
    arriving: Receiver<Message>,
    /// Messages that nobody has waited for yet.
    pending: VecDeque<Message>,
}

/// Leaves the job, together with all other ranks.
type End = Box<dyn FnOnce() + Send>;
/// The exit code to stop with, if the rank is to stop.
type Stop = Box<dyn Fn() -> Option<u8> + Send + Sync>;

/// This rank, and its connection to the others.
pub struct Ranks {
    rank: usize,
    size: usize,
    post: Post,
    inbox: Mutex<Inbox>,
    stop: OnceLock<Stop>,
    end: Mutex<Option<End>>,
}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size)
    }
}

impl Ranks {
    /// Rank `rank` of `size`, which sends by `post` and receives from `arriving`. Messages to itself must arrive too.
    pub fn new(rank: usize, size: usize, post: Post, arriving: Receiver<Message>) -> Ranks {
        let inbox = Mutex::new(Inbox { arriving, pending: VecDeque::new() });
        Ranks { rank, size, post, inbox, stop: OnceLock::new(), end: Mutex::new(None) }
    }

    /// Calls `end` when the rank leaves the job.
    pub fn on_leave(self, end: impl FnOnce() + Send + 'static) -> Ranks {
        Ranks { end: Mutex::new(Some(Box::new(end))), ..self }
    }

    /// Leaves the job and waits until all ranks have. A rank that ends without it ends the whole job.
    pub fn leave(&self) {
        if let Some(end) = self.end.lock().unwrap_or_else(PoisonError::into_inner).take() {
            end();
        }
    }

    /// The ranks of a job within this process, one for each of `size` threads.
    pub fn threads(size: usize) -> Vec<Ranks> {
        let (senders, receivers): (Vec<Sender<Message>>, Vec<_>) = (0..size).map(|_| channel()).unzip();
        let ranks = receivers.into_iter().enumerate().map(|(rank, arriving)| {
            let senders = senders.clone();
            let post = move |to: usize, message| senders[to].send(message).map_err(|_| disconnected());
            Ranks::new(rank, size, Box::new(post), arriving)
        });
        ranks.collect()
    }

    /// This rank's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// From now on the rank stops waiting when `stop` returns an exit code. Only the first call has an effect.
    pub fn on_stop(&self, stop: impl Fn() -> Option<u8> + Send + Sync + 'static) {
        // Only a second call fails.
        let _ = self.stop.set(Box::new(stop));
    }

    /// The exit code to stop with, if the rank is to stop at once.
    pub fn stopping(&self) -> Option<u8> {
        self.stop.get().and_then(|stop| stop())
    }

    /// This rank's share of `items`. Shares are in order, and rank 0's is empty only without items.
    pub fn share(&self, items: usize) -> Range<usize> {
        let start = |rank: usize| (rank * items).div_ceil(self.size);
        start(self.rank)..start(self.rank + 1)
    }

    /// Sends a message.
    pub fn send_message(&self, to: usize, kind: Kind, part: usize, bytes: Vec<u8>) -> Result<()> {
        (self.post)(to, Message { from: self.rank, kind, part, bytes })
    }

    /// Waits for the next message that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] when the rank is to stop; [`Error::Usage`] when the other ranks are lost.
    pub fn recv_message(&self, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        self.recv_message_unless(wanted, || false)
    }

    /// [`Ranks::recv_message`], which also fails, as if the other ranks were lost, when `give_up` says so.
    pub fn recv_message_unless(
        &self,
        wanted: impl Fn(&Message) -> bool,
        give_up: impl Fn() -> bool,
    ) -> Result<Message> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = inbox.pending.iter().position(&wanted)
            && let Some(message) = inbox.pending.remove(place)
        {
            return Ok(message);
        }
        loop {
            match inbox.arriving.recv_timeout(POLL_INTERVAL) {
                Ok(message) if wanted(&message) => return Ok(message),
                Ok(message) => inbox.pending.push_back(message),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(code) = self.stopping() {
                        return Err(Error::Interrupted { step: 0, code });
                    }
                    if give_up() {
                        return Err(disconnected());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(disconnected()),
            }
        }
    }

    /// Returns rank 0's bytes on every rank. Those of the other ranks are ignored.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.rank > 0 {
            return self.recv(0);
        }
        for to in 1..self.size {
            self.send(to, &bytes)?;
        }
        Ok(bytes)
    }

    /// Returns on every rank the sums over all ranks, element by element.
    pub fn all_reduce_sum(&self, counts: &[u64]) -> Result<Vec<u64>> {
        let mut sums = counts.to_vec();
        if self.rank > 0 {
            let bytes: Vec<u8> = counts.iter().flat_map(|n| n.to_le_bytes()).collect();
            self.send(0, &bytes)?;
        } else {
            for from in 1..self.size {
                let bytes = self.recv(from)?;
                let theirs = bytes.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n));
                sums.iter_mut().zip(theirs).for_each(|(sum, n)| *sum += n);
            }
        }
        let bytes = self.broadcast(sums.iter().flat_map(|n| n.to_le_bytes()).collect())?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n)).collect())
    }

    /// Checks on rank 0 that `mine` is the same on all ranks. The error names `what` differs, and ends with `advice`.
    pub fn assert_same(&self, what: &str, mine: &str, advice: &str) -> Result<()> {
        if self.rank > 0 {
            return self.send(0, mine.as_bytes());
        }
        let mut found = Ok(());
        for from in 1..self.size {
            let theirs = self.recv(from)?;
            if theirs != mine.as_bytes() && found.is_ok() {
                found = Err(Error::Usage(format!(
                    "rank {from} has {what} {}, rank 0 has {mine}: {advice}",
                    String::from_utf8_lossy(&theirs)
                )));
            }
        }
        found
    }

    /// Sends bytes of any length: first their number, then messages of at most [`MAX_MESSAGE`].
    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.send_message(to, Kind::Control, 0, (bytes.len() as u64).to_le_bytes().to_vec())?;
        bytes
            .chunks(MAX_MESSAGE)
            .try_for_each(|chunk| self.send_message(to, Kind::Control, 0, chunk.to_vec()))
    }

    /// Waits for the bytes of one [`Ranks::send`].
    fn recv(&self, from: usize) -> Result<Vec<u8>> {
        let next = || self.recv_message(|message| message.kind == Kind::Control && message.from == from);
        let length = next()?.bytes.try_into().map_or(0, u64::from_le_bytes);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            bytes.extend(next()?.bytes);
        }
        Ok(bytes)
    }
}

/// The error of a rank that has lost the others.
fn disconnected() -> Error {
    Error::Usage("lost the connection to the other ranks: they have ended; continue with --resume".into())
}

/// Values as little-endian bytes.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 4];
    bytes.as_chunks_mut::<4>().0.iter_mut().zip(values).for_each(|(to, x)| *to = x.to_le_bytes());
    bytes
}

/// Values from little-endian bytes.
pub fn from_bytes(bytes: &[u8], values: &mut [f32]) {
    values.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(x, from)| *x = f32::from_le_bytes(*from));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `work` returns on each rank, in order.
    fn on_each_rank<T: Send>(size: usize, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
        let ranks = Ranks::threads(size);
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = ranks.iter().map(|ranks| scope.spawn(move || work(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn the_environment_says_how_many_were_started() {
        let size = |set: &[(&str, &str)]| {
            started_by(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
        };
        assert_eq!(size(&[]), 1);
        assert_eq!(size(&[("OMPI_COMM_WORLD_SIZE", "4")]), 4);
        assert_eq!(size(&[("SLURM_NTASKS", "8")]), 1);
        assert_eq!(size(&[("SLURM_NTASKS", "8"), ("PMIX_RANK", "3")]), 8);
    }

    #[test]
    fn shares_cover_all_items_and_the_first_is_not_empty() {
        for (size, items) in [(1, 5), (2, 1), (3, 8), (4, 4), (8, 3), (5, 0)] {
            let shares: Vec<_> = Ranks::threads(size).iter().map(|ranks| ranks.share(items)).collect();
            assert_eq!(shares.iter().cloned().flatten().collect::<Vec<_>>(), (0..items).collect::<Vec<_>>());
            assert_eq!(shares[0].is_empty(), items == 0);
        }
    }

    #[test]
    fn broadcasts_and_sums_reach_every_rank() {
        let found = on_each_rank(3, |ranks| {
            // Longer than one message, and empty.
            let long = ranks.broadcast(vec![ranks.rank() as u8 + 7; MAX_MESSAGE + 3]).unwrap();
            let sums = ranks.all_reduce_sum(&[1, ranks.rank() as u64]).unwrap();
            (long.len(), long[MAX_MESSAGE], ranks.broadcast(Vec::new()).unwrap(), sums)
        });
        assert_eq!(found, vec![(MAX_MESSAGE + 3, 7, Vec::new(), vec![3, 3]); 3]);
    }

    #[test]
    fn the_rank_that_differs_is_named() {
        let found = on_each_rank(3, |ranks| {
            let mine = if ranks.rank() == 2 { "avx2" } else { "avx512" };
            ranks.assert_same("instruction set", mine, "use one").map_err(|e| e.to_string())
        });
        let error = found[0].as_ref().unwrap_err();
        assert!(error.contains("rank 2 has instruction set avx2, rank 0 has avx512: use one"), "{error}");
        assert!(found[1].is_ok() && found[2].is_ok());
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let ranks = &Ranks::threads(2)[0];
        ranks.on_stop(|| Some(143));
        assert!(matches!(ranks.recv_message(|_| true), Err(Error::Interrupted { code: 143, .. })));
    }

    #[test]
    fn values_keep_all_their_bits() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 3.0, f32::INFINITY];
        let mut back = [1.0; 5];
        from_bytes(&to_bytes(&values), &mut back);
        assert_eq!(back.map(f32::to_bits), values.map(f32::to_bits));
    }
}
