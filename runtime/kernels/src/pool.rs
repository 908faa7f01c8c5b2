//! Threads that share the rows of one step after another.
//!
//! A step of a small model takes microseconds, less than waking a thread; so helpers wait busily for the next step
//! for a moment before they sleep. Cores differ, by design or by what else runs on them: each thread gets rows by the
//! speed that it has shown lately.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::quantize::Out;

/// What all threads do: the argument is the thread's number.
type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// How often a thread looks for work before it sleeps: some tens of microseconds.
const LOOKS: u32 = 20_000;

/// What the newest step counts for a thread's share: a thread that was interrupted once has lost little of it.
const NEWEST: f32 = 0.125;
/// Rows a thread below which a step's times say more of waiting than of speed.
const TELLING: usize = 8;

/// What the threads share.
struct Shared {
    /// Counts the steps; a change means work, or the end.
    step: AtomicU32,
    /// Helpers that have not finished the step.
    busy: AtomicUsize,
    /// The step's task. Only read between a change of `step` and the thread's report in `busy`.
    task: Mutex<Option<&'static Task<'static>>>,
    panicked: AtomicBool,
    over: AtomicBool,
}

/// A thread, the caller's, and its helpers.
pub struct ThreadPool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Each thread's part of the speed of all.
    shares: Vec<f32>,
    /// The process that the helpers live in.
    process: u32,
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl ThreadPool {
    /// The most threads.
    pub const MAX: usize = 256;

    /// A pool of that many threads, the caller's among them; as many as the system gives.
    pub fn new(threads: usize) -> ThreadPool {
        let shared = Arc::new(Shared {
            step: AtomicU32::new(0),
            busy: AtomicUsize::new(0),
            task: Mutex::new(None),
            panicked: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let helper = |number: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("smalti-{number}"))
                .spawn(move || help(&shared, number))
                .ok()
        };
        let helpers: Vec<_> = (1..threads.clamp(1, ThreadPool::MAX)).map_while(helper).collect();
        let threads = helpers.len() + 1;
        // WebAssembly has neither threads nor processes, and asking for a number ends it.
        let process = if helpers.is_empty() { 0 } else { std::process::id() };
        ThreadPool { shared, helpers, shares: vec![1.0 / threads as f32; threads], process }
    }

    /// Goes on with the caller's thread alone if the process was forked: helpers stayed behind in the other one, and a run would
    /// wait for them for ever.
    pub fn check_process(&mut self) {
        if !self.helpers.is_empty() && std::process::id() != self.process {
            // They are threads of the other process: neither joined nor detached here.
            self.helpers.drain(..).for_each(std::mem::forget);
            self.shares = vec![1.0];
        }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs a task on every thread and waits for all of them. Panics if one of them did.
    pub fn run(&mut self, task: &Task<'_>) {
        if self.helpers.is_empty() {
            return task(0);
        }
        // SAFETY: only the lifetime changes. The helpers use the task before they report in `busy`, and this function
        // does not end, by return or by panic, before all have reported.
        let erased: &'static Task<'static> = unsafe { std::mem::transmute(task) };
        *self.shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(erased);
        self.shared.busy.store(self.helpers.len(), Ordering::Relaxed);
        self.shared.step.fetch_add(1, Ordering::Release);
        self.helpers.iter().for_each(|helper| helper.thread().unpark());
        let own = catch_unwind(AssertUnwindSafe(|| task(0)));
        let mut looks = 0u32;
        while self.shared.busy.load(Ordering::Acquire) > 0 {
            looks = looks.wrapping_add(1);
            if looks < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        // Cleared whichever thread panicked: the next run starts afresh.
        let helper_panicked = self.shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!helper_panicked, "a helper thread panicked");
    }

    /// Shares `rows` rows out: calls `part` on each thread with its number, its rows and its piece of `out`, whose
    /// rows have `values` values.
    pub fn rows(
        &mut self,
        rows: usize,
        values: usize,
        out: &mut Out<'_>,
        part: &(dyn Fn(usize, Range<usize>, &mut Out<'_>) + Sync),
    ) {
        if self.helpers.is_empty() {
            return part(0, 0..rows, out);
        }
        let stride = out.row_stride(values);
        let pieces = Pieces::of(out, rows * stride);
        let ends = self.ends(rows);
        let times = [const { AtomicU64::new(0) }; ThreadPool::MAX];
        self.run(&|thread| {
            let rows = ends[thread]..ends[thread + 1];
            if !rows.is_empty() {
                let start = Instant::now();
                // SAFETY: the threads' rows are disjoint and within the rows that `Pieces::of` has checked.
                let mut piece = unsafe { pieces.get(rows.start * stride..rows.end * stride) };
                part(thread, rows, &mut piece);
                times[thread].store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
        });
        if rows >= TELLING * self.threads() {
            self.learn(&ends, &times);
        }
    }

    /// Where each thread's rows begin, and where the last one's end.
    fn ends(&self, rows: usize) -> [usize; ThreadPool::MAX + 1] {
        let mut ends = [rows; ThreadPool::MAX + 1];
        let mut sum = 0.0;
        for (end, share) in ends.iter_mut().zip(&self.shares) {
            *end = ((sum * rows as f32).round() as usize).min(rows);
            sum += share;
        }
        ends
    }

    /// Moves the shares towards the speeds that were seen.
    fn learn(&mut self, ends: &[usize], times: &[AtomicU64]) {
        let mut speeds = [0f32; ThreadPool::MAX];
        let speeds = &mut speeds[..self.shares.len()];
        for (t, speed) in speeds.iter_mut().enumerate() {
            *speed = (ends[t + 1] - ends[t]) as f32 / times[t].load(Ordering::Relaxed).max(1) as f32;
        }
        let all: f32 = speeds.iter().sum();
        // A thread without rows would never show what it can.
        let least = 0.25 / self.shares.len() as f32;
        for (share, speed) in self.shares.iter_mut().zip(speeds) {
            *share = (*share + NEWEST * (*speed / all - *share)).max(least);
        }
        let sum: f32 = self.shares.iter().sum();
        self.shares.iter_mut().for_each(|share| *share /= sum);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.check_process();
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.step.fetch_add(1, Ordering::Release);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            let _ = helper.join();
        }
    }
}

/// A helper's life.
fn help(shared: &Shared, number: usize) {
    let mut seen = 0;
    loop {
        let mut looks = 0;
        while shared.step.load(Ordering::Acquire) == seen {
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
            } else {
                std::thread::park();
                looks = 0;
            }
        }
        seen = seen.wrapping_add(1);
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let task = *shared.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(number)))
        {
            shared.panicked.store(true, Ordering::Relaxed);
            // What a panic carries may itself panic when it is dropped; this thread must report all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(std::mem::forget);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// A result that threads write disjoint pieces of.
#[derive(Clone, Copy)]
enum Pieces {
    F32(*mut f32),
    U8(*mut u8, crate::QuantParams),
}

// SAFETY: `get` asks its callers for disjoint ranges, which makes writing through the pointer as safe as through the
// slices that it stands for.
unsafe impl Sync for Pieces {}

impl Pieces {
    /// The first `len` values of a result. Panics if it has fewer.
    fn of(out: &mut Out<'_>, len: usize) -> Pieces {
        match out {
            Out::F32(out) => Pieces::F32(out[..len].as_mut_ptr()),
            Out::U8(out, quantize) => Pieces::U8(out[..len].as_mut_ptr(), *quantize),
        }
    }

    /// # Safety
    /// The range lies within the length that was asked for in `of`, no other use overlaps it, and the result still
    /// lives.
    unsafe fn get<'a>(self, range: Range<usize>) -> Out<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Pieces::F32(all) => {
                    Out::F32(std::slice::from_raw_parts_mut(all.add(range.start), range.len()))
                }
                Pieces::U8(all, quantize) => {
                    Out::U8(std::slice::from_raw_parts_mut(all.add(range.start), range.len()), quantize)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_done_once() {
        for threads in [1, 2, 3, 7] {
            let mut pool = ThreadPool::new(threads);
            for rows in (0..40).cycle().take(2000) {
                let mut y = vec![0f32; rows * 3];
                pool.rows(rows, 3, &mut Out::F32(&mut y), &|_, rows, out| {
                    let Out::F32(out) = out else { panic!("floats") };
                    for (row, out) in rows.zip(out.chunks_exact_mut(3)) {
                        out.iter_mut().for_each(|y| *y += row as f32 + 1.0);
                    }
                });
                assert!((0..rows * 3).all(|i| y[i] == (i / 3) as f32 + 1.0));
            }
        }
    }

    #[test]
    fn slow_threads_get_fewer_rows() {
        let mut pool = ThreadPool::new(2);
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        for _ in 0..40 {
            let mut y = vec![0f32; 40];
            pool.rows(40, 1, &mut Out::F32(&mut y), &|thread, rows, _| {
                std::thread::sleep(std::time::Duration::from_micros(rows.len() as u64 * [100, 2000][thread]));
                counts[thread].store(rows.len(), Ordering::Relaxed);
            });
        }
        let [fast, slow] = counts.map(AtomicUsize::into_inner);
        // Far fewer are due, but a busy machine is slow to wake either.
        assert!(slow >= 4 && fast > slow, "{fast} {slow}");
    }

    #[test]
    fn sleepers_wake_up() {
        let mut pool = ThreadPool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let count = AtomicUsize::new(0);
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = ThreadPool::new(3);
        for bad in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(&|thread| assert_ne!(thread, bad))));
            assert!(result.is_err());
        }
        pool.run(&|_| {});
    }

    #[test]
    fn several_panics_in_one_run_leave_none_for_the_next() {
        let mut pool = ThreadPool::new(3);
        for _ in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(&|_| panic!("all of them"))));
            assert!(result.is_err());
            pool.run(&|_| {});
        }
    }

    #[test]
    fn a_panic_that_panics_when_dropped_does_not_stop_the_pool() {
        struct Twice;
        impl Drop for Twice {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let mut pool = ThreadPool::new(2);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|thread| {
                if thread == 1 {
                    std::panic::panic_any(Twice)
                }
            });
        }));
        assert!(result.is_err());
        pool.run(&|_| {});
    }
}
