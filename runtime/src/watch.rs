//! A model file that is replaced while its model runs.
//!
//! [`ModelWatcher::poll`] looks whether another file is at the model's place, and makes a session of it if it is as good as
//! the running one: it passes the gate, is signed and new enough where that is asked for, is no older than the running
//! model, takes and gives tensors of the same shapes, and passes its own self-test. [`WatchHandle`] does that on a thread of
//! its own. Whoever replaces the file should write another beside it and rename that: then there is no moment at which
//! half a file could be read. One that is written in place is read again when it changes, and the digest of its weights
//! and the self-test stand between half a file and use.
//!
//! Looking (a `stat` a second) takes less than inotify would cost in dependencies, and works where that does not: on
//! network file systems, on overlays, and where the whole folder is replaced.

use std::fs::{File, Metadata};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gate::{self, Input, Limits};
use crate::inspect;
use crate::load::{Model, OpenOptions};
use crate::pieces::Pieces;
use crate::selftest;
use crate::session::Session;
use crate::trust::{Trust, Version, beside};

/// Longer than the steps in which file systems count time: two changes in one step look like one, so a file is read
/// once more when that time has passed.
const STEP: Duration = Duration::from_millis(100);

/// How a model file is opened, each time.
pub struct WatchOptions {
    /// What the file may ask for and must show, and which output answers.
    pub open: OpenOptions,
    /// Threads of a session.
    pub threads: usize,
    /// The last touch, such as preprocessing for a file that says none.
    pub prepare: Box<dyn Fn(Model) -> Result<Model> + Send>,
}

impl Default for WatchOptions {
    fn default() -> WatchOptions {
        WatchOptions { open: OpenOptions::default(), threads: 1, prepare: Box::new(Ok) }
    }
}

/// A model file, and what is known of the model that runs.
pub struct ModelWatcher {
    path: PathBuf,
    options: WatchOptions,
    running: Running,
    /// What was there at the last look.
    seen: Seen,
    /// The refused file that was last told of.
    refused: Option<Digest>,
}

/// What a new model is held against.
struct Running {
    digest: Digest,
    shapes: String,
    version: Option<Version>,
    tests_itself: bool,
}

impl Running {
    fn new(digest: Digest, model: &Model) -> Running {
        let record = model.record();
        Running {
            digest,
            shapes: shapes(model),
            version: record.and_then(|record| Version::parse(&record.version)),
            tests_itself: record.is_some_and(|record| !record.golden.is_empty()),
        }
    }

    /// Refuses a model that is older, or of other shapes.
    fn check(&self, model: &Model) -> Result<()> {
        if self.version.is_some() {
            Trust { min_version: self.version.clone(), key: None }.check_version(model.record())?;
        }
        let (found, wanted) = (shapes(model), &self.shapes);
        if found != *wanted {
            return Err(Error::refused("shapes", found, format!("{wanted}, as the running model")));
        }
        Ok(())
    }
}

/// What goes in and comes out, in words.
fn shapes(model: &Model) -> String {
    let Input { width, height, channels, form, .. } = model.input();
    let (form, classes, embedding) = (form.name(), model.labels().len(), model.embedding_len());
    format!("{width} x {height} x {channels} {form}, {classes} classes, embedding of {embedding}")
}

/// What distinguishes a file from others at the same place; none if nothing is there.
type Stamp = Option<[u64; 6]>;

/// What was there at a look.
#[derive(Clone, Copy)]
struct Seen {
    model: Stamp,
    signature: Stamp,
    /// When it was first seen.
    since: Instant,
    /// Whether it was there [`STEP`] later, too.
    settled: bool,
}

impl Seen {
    fn new(model: Stamp, signature: Stamp) -> Seen {
        Seen { model, signature, since: Instant::now(), settled: false }
    }

    fn is(&self, other: &Seen) -> bool {
        (self.model, self.signature) == (other.model, other.signature)
    }
}

fn stamp(metadata: std::io::Result<Metadata>) -> Stamp {
    let metadata = metadata.ok()?;
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    #[cfg(unix)]
    let of_node = {
        use std::os::unix::fs::MetadataExt;
        [metadata.dev(), metadata.ino(), metadata.ctime() as u64, metadata.ctime_nsec() as u64]
    };
    #[cfg(not(unix))]
    let of_node = [0; 4];
    let [device, number, seconds, nanoseconds] = of_node;
    Some([device, number, seconds, nanoseconds, metadata.len(), modified])
}

impl ModelWatcher {
    /// Opens a model file for the first time.
    pub fn open(path: impl Into<PathBuf>, options: WatchOptions) -> Result<(ModelWatcher, Model)> {
        let path = path.into();
        let (open, (file, seen)) = (&options.open, look(&path, &options.open.limits)?);
        // What was written to while it was read is read again at the first look.
        let seen = seen.unwrap_or(Seen::new(None, None));
        let digest = Digest::of_all(file.iter());
        open.trust.check_pieces(&file, open.trust.signature_of(&path)?.as_deref())?;
        let model = (options.prepare)(Model::from_pieces(open.completed(file, &path)?, open)?)?;
        let running = Running::new(digest, &model);
        Ok((ModelWatcher { path, options, running, seen, refused: None }, model))
    }

    /// The model file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks once. A session if a new model is there and good, which from then on counts as the running one; an error,
    /// once, for one that is not; `None` if all is as it was.
    pub fn poll(&mut self) -> Option<Result<Session>> {
        let there =
            Seen::new(stamp(std::fs::metadata(&self.path)), stamp(std::fs::metadata(beside(&self.path))));
        there.model?; // For a moment there may be none.
        if there.is(&self.seen) && (self.seen.settled || self.seen.since.elapsed() < STEP) {
            return None;
        }
        let file = match look(&self.path, &self.options.open.limits) {
            Ok((file, Some(seen))) => {
                self.see(seen);
                file
            }
            // Written to just now: another look will tell.
            Ok((_, None)) => return None,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.see(there);
                return self.refuse(Digest([0; Digest::LEN]), error);
            }
        };
        let of_file = Digest::of_all(file.iter());
        if of_file == self.running.digest {
            self.refused = None;
            return None;
        }
        let signature = match self.options.open.trust.signature_of(&self.path) {
            Ok(signature) => signature,
            Err(error) => return self.refuse(of_file, error),
        };
        let candidate = Digest::of_all([&of_file.0[..], signature.as_deref().unwrap_or_default().as_bytes()]);
        if self.refused == Some(candidate) {
            return None;
        }
        match self.try_out(file, of_file, signature.as_deref()) {
            Ok((model, session)) => {
                (self.running, self.refused) = (Running::new(of_file, &model), None);
                Some(Ok(session))
            }
            Err(error) => self.refuse(candidate, error),
        }
    }

    fn see(&mut self, seen: Seen) {
        self.seen = if seen.is(&self.seen) { Seen { settled: true, ..self.seen } } else { seen };
    }

    /// Tells of a file that is refused, unless it was told of.
    fn refuse(&mut self, candidate: Digest, error: Error) -> Option<Result<Session>> {
        (self.refused.replace(candidate) != Some(candidate)).then_some(Err(error))
    }

    /// Everything that a new model must stand.
    fn try_out(
        &self,
        file: Pieces<'static>,
        digest: Digest,
        signature: Option<&str>,
    ) -> Result<(Model, Session)> {
        let WatchOptions { open, threads, prepare } = &self.options;
        let OpenOptions { limits, trust, .. } = open;
        trust.check_pieces(&file, signature)?;
        let (proto, summary) = gate::open_pieces(open.completed(file, &self.path)?, limits)?;
        let weights = inspect::weights_sha256(&proto);
        let model = Model::new(proto, summary, digest, open)?;
        if model.record().is_some_and(|record| record.weights_sha256 != weights) {
            let allowed = "those that its record was written for";
            return Err(Error::refused("weights", format!("SHA-256 {weights}"), allowed));
        }
        trust.check_version(model.record())?;
        self.running.check(&model)?;
        if self.running.tests_itself || model.record().is_some_and(|record| !record.golden.is_empty()) {
            selftest::judge(&selftest::run(&model)?)?;
        }
        let model = prepare(model)?;
        let session = model.session_with_threads(*threads)?;
        Ok((model, session))
    }

    /// Goes on looking, on a thread of its own.
    pub fn start(mut self, interval: Duration) -> Result<WatchHandle> {
        let shared = Arc::new(Shared::default());
        let (theirs, path) = (Arc::clone(&shared), self.path.clone());
        let work = move || {
            while theirs.rest(interval) {
                let found = catch_unwind(AssertUnwindSafe(|| self.poll())).unwrap_or_else(|_| {
                    let problem = "a panic".into();
                    Some(Err(Error::Internal { step: "look at the new model", problem }))
                });
                match found {
                    // A model counts as the running one from now on, so it must arrive, whatever comes after it.
                    Some(Ok(session)) => theirs.lock().accepted = Some(session),
                    Some(Err(error)) => theirs.lock().refused = Some(error),
                    None => {}
                }
            }
        };
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(work)
            .map_err(Error::io("start a thread for", &path))?;
        Ok(WatchHandle { shared, path })
    }
}

/// A file's bytes and what distinguishes it; nothing for the latter if it was written to meanwhile.
fn look(path: &Path, limits: &Limits) -> Result<(Pieces<'static>, Option<Seen>)> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let seen = Seen::new(stamp(file.metadata()), stamp(std::fs::metadata(beside(path))));
    let pieces = Pieces::read(&file, path, limits)?;
    let whole = stamp(file.metadata()) == seen.model;
    Ok((pieces, whole.then_some(seen)))
}

/// A model file that is looked at on a thread of its own, until this is dropped.
pub struct WatchHandle {
    shared: Arc<Shared>,
    path: PathBuf,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    accepted: Option<Session>,
    refused: Option<Error>,
    stop: bool,
}

impl Shared {
    /// Nothing is ever left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; false if it is over.
    fn rest(&self, interval: Duration) -> bool {
        let state = self.lock();
        let waited = self.stopped.wait_timeout_while(state, interval, |state| !state.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}

impl WatchHandle {
    /// The model file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What [`ModelWatcher::poll`] has found: the latest model, then the latest refusal. Does not wait.
    pub fn news(&mut self) -> Option<Result<Session>> {
        let mut state = self.shared.lock();
        let accepted = state.accepted.take().map(Ok);
        accepted.or_else(|| state.refused.take().map(Err))
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.stopped.notify_all();
    }
}

#[cfg(test)]
mod tests;
