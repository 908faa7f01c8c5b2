//! Sessions, each on a thread of its own, that share the work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use hyper::StatusCode;
use hyper::body::Bytes;
use smalti_runtime::{Error, Model, Session};
use tokio::sync::oneshot;

use super::answer::Answering;
use super::learned::Learned;
use super::lock;
use super::reply::Reply;
use super::route::Task;

/// A request to be answered.
struct Job {
    task: Task,
    body: Bytes,
    reply: oneshot::Sender<Reply>,
}

/// The sessions. They end when this is dropped.
pub(super) struct Pool {
    jobs: Sender<Job>,
    current: Arc<Current>,
}

/// The model that answers, and how many came before it.
struct Current {
    model: Mutex<Model>,
    swaps: AtomicUsize,
    learned: Learned,
}

impl Pool {
    /// Starts that many sessions.
    ///
    /// # Errors
    /// [`Error::Io`] where the system has no thread left, and what making a session gives.
    pub(super) fn start(model: Model, learned: Learned, sessions: usize) -> Result<Pool, Error> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let swaps = AtomicUsize::new(0);
        let current = Arc::new(Current { model: Mutex::new(model.clone()), swaps, learned });
        for i in 0..sessions {
            let (current, queue, session) = (Arc::clone(&current), Arc::clone(&queue), model.session()?);
            let worker =
                Builder::new().name(format!("session {i}")).spawn(move || work(&current, &queue, session));
            worker.map_err(|source| Error::Io { action: "start", path: "a thread".into(), source })?;
        }
        Ok(Pool { jobs, current })
    }

    /// Hands in a request. Whoever drops the receiver takes it back.
    pub(super) fn submit(&self, task: Task, body: Bytes) -> oneshot::Receiver<Reply> {
        let (reply, receiver) = oneshot::channel();
        // Without a session the receiver says so.
        let _ = self.jobs.send(Job { task, body, reply });
        receiver
    }

    /// The model that answers.
    pub(super) fn model(&self) -> Model {
        lock(&self.current.model).clone()
    }

    /// What was learned beside the model.
    pub(super) fn learned(&self) -> &Learned {
        &self.current.learned
    }

    /// Lets another model answer from now on.
    pub(super) fn replace(&self, model: Model) {
        *lock(&self.current.model) = model;
        self.current.swaps.fetch_add(1, Ordering::Release);
    }

    /// How often another model has taken over.
    pub(super) fn swaps(&self) -> usize {
        self.current.swaps.load(Ordering::Acquire)
    }
}

/// Answers one request after another.
fn work(current: &Current, queue: &Mutex<Receiver<Job>>, mut session: Session) {
    let mut swaps = 0;
    loop {
        let Ok(Job { task, body, reply }) = lock(queue).recv() else { return };
        if reply.is_closed() {
            continue;
        }
        let newest = current.swaps.load(Ordering::Acquire);
        if newest != swaps {
            renew(&mut session, current);
            swaps = newest;
        }
        let wanted = || !reply.is_closed();
        let answered = catch_unwind(AssertUnwindSafe(|| {
            Answering::new(&mut session, &current.learned, &wanted).answer(&task, &body)
        }));
        let answered = answered.unwrap_or_else(|_| {
            log::error!("a panic while a request was answered (see -vv)");
            renew(&mut session, current);
            Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        });
        // A client may have gone.
        let _ = reply.send(answered);
    }
}

/// A fresh session of the model that answers; without one the old one goes on.
fn renew(session: &mut Session, current: &Current) {
    let model = lock(&current.model).clone();
    match model.session() {
        Ok(fresh) => *session = fresh,
        Err(error) => log::error!("no session of the new model: {error}"),
    }
}
