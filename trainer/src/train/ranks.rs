//! Several processes, on one machine or on many, that train one model together: the ranks of a job.
//!
//! Each rank computes the gradients of its own lanes of every batch ([`crate::train::step`]). They are added up along a
//! chain: rank 0 sends the sum over its lanes to rank 1, which adds its own, and so on; the last rank has the sum over
//! all, and it goes back along the chain. That is the order in which one process adds its lanes, so the sum has the
//! same bits. The vector travels in parts, from its end, and so while the way back through the layers goes on.
//!
//! Rank 0 plans, reads checkpoints and writes every file; it tells the others what to do and where to start.
//!
//! Nothing here knows how messages travel: the `mpi` module carries them between machines (feature `mpi`),
//! [`Ranks::threads`] within a process for tests.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};

#[cfg(feature = "mpi")]
pub mod mpi;

/// Bytes of one message of a long text, at most.
const PIECE: usize = 1 << 24;
/// How long a rank waits before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(20);

/// The job that this process was started in, if there is one of several ranks.
pub fn join() -> Result<Option<Ranks>> {
    match started() {
        size @ 2.. => job(size),
        _ => Ok(None),
    }
}

/// How many processes were started together with this one, itself counted, by what mpirun and srun leave in the
/// environment.
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

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of the sum over the lanes of all ranks up to the sender.
    Partial,
    /// A part of the sum over all lanes.
    Total,
    /// Anything else: plans, states, counts.
    Word,
}

/// What one rank sends another. Messages from one to another arrive in the order in which they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub from: usize,
    /// What it is about.
    pub kind: Kind,
    /// Which part of the sum it holds.
    pub part: usize,
    /// Numbers are little-endian.
    pub bytes: Vec<u8>,
}

/// Carries a message to a rank, without waiting for it to arrive.
pub type Post = Box<dyn Fn(usize, Message) -> Result<()> + Send + Sync>;

/// Messages that arrived.
struct Inbox {
    arriving: Receiver<Message>,
    /// Those that nobody has asked for yet.
    aside: VecDeque<Message>,
}

/// Ends the job, together with all other ranks.
type End = Box<dyn FnOnce() + Send>;
/// Asks whether the rank is to stop, and with which exit code.
type Stop = Box<dyn Fn() -> Option<u8> + Send + Sync>;

/// This rank, and its way to the others.
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
    /// Rank `rank` of `size`, with a way to send and one to receive; what it posts to itself arrives too.
    pub fn new(rank: usize, size: usize, post: Post, arriving: Receiver<Message>) -> Ranks {
        let inbox = Mutex::new(Inbox { arriving, aside: VecDeque::new() });
        Ranks { rank, size, post, inbox, stop: OnceLock::new(), end: Mutex::new(None) }
    }

    /// With something to do at the job's end.
    pub fn ending(self, end: impl FnOnce() + Send + 'static) -> Ranks {
        Ranks { end: Mutex::new(Some(Box::new(end))), ..self }
    }

    /// Ends the job well; returns when all ranks have. A rank that ends without it takes the others with it.
    pub fn leave(&self) {
        if let Some(end) = self.end.lock().unwrap_or_else(PoisonError::into_inner).take() {
            end();
        }
    }

    /// All ranks of a job within this process, one for each of `size` threads.
    pub fn threads(size: usize) -> Vec<Ranks> {
        let (senders, receivers): (Vec<Sender<Message>>, Vec<_>) = (0..size).map(|_| channel()).unzip();
        let ranks = receivers.into_iter().enumerate().map(|(rank, arriving)| {
            let senders = senders.clone();
            let post = move |to: usize, message| senders[to].send(message).map_err(|_| gone());
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

    /// From now on waiting ends when `stop` gives an exit code. The first call counts.
    pub fn heed(&self, stop: impl Fn() -> Option<u8> + Send + Sync + 'static) {
        // A second call finds the first one's answer, which is what it would have set.
        let _ = self.stop.set(Box::new(stop));
    }

    /// The exit code to stop with, if the rank is to stop at once, within a step.
    pub fn stopping(&self) -> Option<u8> {
        self.stop.get().and_then(|stop| stop())
    }

    /// The part of `items`, in order, that is this rank's. The first rank has one if there is any.
    pub fn share(&self, items: usize) -> Range<usize> {
        let start = |rank: usize| (rank * items).div_ceil(self.size);
        start(self.rank)..start(self.rank + 1)
    }

    /// Sends a message.
    pub fn send(&self, to: usize, kind: Kind, part: usize, bytes: Vec<u8>) -> Result<()> {
        (self.post)(to, Message { from: self.rank, kind, part, bytes })
    }

    /// Waits for the next message that is `wanted`. Ends early with [`Error::Interrupted`] when the rank is to stop.
    pub fn receive(&self, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        self.receive_unless(wanted, || false)
    }

    /// [`Ranks::receive`], which also ends, as if the others were gone, when there is a reason to give up.
    pub fn receive_unless(
        &self,
        wanted: impl Fn(&Message) -> bool,
        give_up: impl Fn() -> bool,
    ) -> Result<Message> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = inbox.aside.iter().position(&wanted)
            && let Some(message) = inbox.aside.remove(place)
        {
            return Ok(message);
        }
        loop {
            match inbox.arriving.recv_timeout(PATIENCE) {
                Ok(message) if wanted(&message) => return Ok(message),
                Ok(message) => inbox.aside.push_back(message),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(code) = self.stopping() {
                        return Err(Error::Interrupted { step: 0, code });
                    }
                    if give_up() {
                        return Err(gone());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }

    /// Gives everyone rank 0's bytes; the others' are not looked at.
    pub fn tell(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.rank > 0 {
            return self.listen(0);
        }
        for to in 1..self.size {
            self.say(to, &bytes)?;
        }
        Ok(bytes)
    }

    /// Gives everyone the sums of all ranks' counts, one by one.
    pub fn count(&self, counts: &[u64]) -> Result<Vec<u64>> {
        let mut sums = counts.to_vec();
        if self.rank > 0 {
            let bytes: Vec<u8> = counts.iter().flat_map(|n| n.to_le_bytes()).collect();
            self.say(0, &bytes)?;
        } else {
            for from in 1..self.size {
                let bytes = self.listen(from)?;
                let theirs = bytes.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n));
                sums.iter_mut().zip(theirs).for_each(|(sum, n)| *sum += n);
            }
        }
        let bytes = self.tell(sums.iter().flat_map(|n| n.to_le_bytes()).collect())?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n)).collect())
    }

    /// Refuses to go on when ranks differ in what must be the same for all; `advice` says what to do about it.
    pub fn agree(&self, what: &str, mine: &str, advice: &str) -> Result<()> {
        if self.rank > 0 {
            return self.say(0, mine.as_bytes());
        }
        let mut found = Ok(());
        for from in 1..self.size {
            let theirs = self.listen(from)?;
            if theirs != mine.as_bytes() && found.is_ok() {
                found = Err(Error::Usage(format!(
                    "rank {from} has {what} {}, rank 0 has {mine}: {advice}",
                    String::from_utf8_lossy(&theirs)
                )));
            }
        }
        found
    }

    /// Sends bytes of any length: first how many, then pieces.
    fn say(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.send(to, Kind::Word, 0, (bytes.len() as u64).to_le_bytes().to_vec())?;
        bytes.chunks(PIECE).try_for_each(|piece| self.send(to, Kind::Word, 0, piece.to_vec()))
    }

    fn listen(&self, from: usize) -> Result<Vec<u8>> {
        let next = || self.receive(|message| message.kind == Kind::Word && message.from == from);
        let length = next()?.bytes.try_into().map_or(0, u64::from_le_bytes);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            bytes.extend(next()?.bytes);
        }
        Ok(bytes)
    }
}

/// The error of a rank that has lost its way to the others.
fn gone() -> Error {
    Error::Usage("the connection to the other ranks is gone: they have ended; continue with --resume".into())
}

/// Floats as they travel.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 4];
    bytes.as_chunks_mut::<4>().0.iter_mut().zip(values).for_each(|(to, x)| *to = x.to_le_bytes());
    bytes
}

/// Floats that have arrived.
pub fn from_bytes(bytes: &[u8], values: &mut [f32]) {
    values.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(x, from)| *x = f32::from_le_bytes(*from));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each rank of a job gives, in order.
    fn together<T: Send>(size: usize, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
        let ranks = Ranks::threads(size);
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = ranks.iter().map(|ranks| scope.spawn(move || work(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn a_job_is_known_by_its_environment() {
        let size = |set: &[(&str, &str)]| {
            started_by(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
        };
        assert_eq!(size(&[]), 1);
        assert_eq!(size(&[("OMPI_COMM_WORLD_SIZE", "4")]), 4);
        assert_eq!(size(&[("SLURM_NTASKS", "8")]), 1);
        assert_eq!(size(&[("SLURM_NTASKS", "8"), ("PMIX_RANK", "3")]), 8);
    }

    #[test]
    fn shares_are_all_and_the_first_is_not_empty() {
        for (size, items) in [(1, 5), (2, 1), (3, 8), (4, 4), (8, 3), (5, 0)] {
            let shares: Vec<_> = Ranks::threads(size).iter().map(|ranks| ranks.share(items)).collect();
            assert_eq!(shares.iter().cloned().flatten().collect::<Vec<_>>(), (0..items).collect::<Vec<_>>());
            assert_eq!(shares[0].is_empty(), items == 0);
        }
    }

    #[test]
    fn everyone_hears_rank_0_and_the_sums() {
        let found = together(3, |ranks| {
            // Longer than a piece, and nothing at all.
            let long = ranks.tell(vec![ranks.rank() as u8 + 7; PIECE + 3]).unwrap();
            let sums = ranks.count(&[1, ranks.rank() as u64]).unwrap();
            (long.len(), long[PIECE], ranks.tell(Vec::new()).unwrap(), sums)
        });
        assert_eq!(found, vec![(PIECE + 3, 7, Vec::new(), vec![3, 3]); 3]);
    }

    #[test]
    fn who_differs_is_named() {
        let found = together(3, |ranks| {
            let mine = if ranks.rank() == 2 { "avx2" } else { "avx512" };
            ranks.agree("instruction set", mine, "use one").map_err(|e| e.to_string())
        });
        let error = found[0].as_ref().unwrap_err();
        assert!(error.contains("rank 2 has instruction set avx2, rank 0 has avx512: use one"), "{error}");
        assert!(found[1].is_ok() && found[2].is_ok());
    }

    #[test]
    fn waiting_ends_when_the_rank_is_to_stop() {
        let ranks = &Ranks::threads(2)[0];
        ranks.heed(|| Some(143));
        assert!(matches!(ranks.receive(|_| true), Err(Error::Interrupted { code: 143, .. })));
    }

    #[test]
    fn floats_travel_with_all_their_bits() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 3.0, f32::INFINITY];
        let mut back = [1.0; 5];
        from_bytes(&to_bytes(&values), &mut back);
        assert_eq!(back.map(f32::to_bits), values.map(f32::to_bits));
    }
}
