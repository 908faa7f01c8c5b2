//! Messages over MPI. One thread makes every call into the library and does nothing else. It sleeps between checks for
//! messages, to leave the processor to the threads that compute.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use ::mpi::Threading;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, Destination, Equivalence, Source};

use super::{Kind, Message, Ranks, disconnected};
use crate::error::{Error, Result};

/// The sleep between checks while messages travel.
const MIN_SLEEP: Duration = Duration::from_micros(20);
/// The sleep between checks while all ranks compute.
const MAX_SLEEP: Duration = Duration::from_millis(1);
/// The kinds of messages, in the order of their tags.
const KINDS: [Kind; 3] = [Kind::Partial, Kind::Total, Kind::Control];

/// A request to the thread.
enum Request {
    Send(usize, Message),
    /// Finalize MPI, together with all other ranks.
    Leave,
}

/// Joins the job that this process was started in.
pub fn join() -> Result<Ranks> {
    let no_thread = |e| Error::Usage(format!("cannot start a thread for MPI: {e}"));
    let (requests, requested) = channel();
    let (deliver, arriving) = channel();
    let (started, start) = channel();
    let delivered = deliver.clone();
    let thread = std::thread::Builder::new()
        .name("ranks".into())
        .spawn(move || serve(&started, &requested, &delivered))
        .map_err(no_thread)?;
    let (rank, size) =
        start.recv().map_err(|_| Error::Usage("cannot start MPI: see its own message".into()))?;
    let leave = requests.clone();
    let post = move |to: usize, message: Message| {
        let sent = match to == rank {
            true => deliver.send(message).is_ok(),
            false => requests.send(Request::Send(to, message)).is_ok(),
        };
        if sent { Ok(()) } else { Err(disconnected()) }
    };
    let end = move || {
        // A thread that has ended has nothing to finalize.
        if leave.send(Request::Leave).is_ok() {
            let _ = thread.join();
        }
    };
    Ok(Ranks::new(rank, size, Box::new(post), arriving).on_leave(end))
}

/// The thread: initializes MPI, reports rank and size, and serves requests until the job ends.
fn serve(started: &Sender<(usize, usize)>, requests: &Receiver<Request>, deliver: &Sender<Message>) {
    let Some((universe, _)) = ::mpi::initialize_with_threading(Threading::Funneled) else { return };
    let world = universe.world();
    // If nobody receives them, no request follows either.
    let _ = started.send((world.rank() as usize, world.size() as usize));
    let mut sleep = MIN_SLEEP;
    loop {
        sleep = (sleep * 2).min(MAX_SLEEP);
        match requests.recv_timeout(sleep) {
            Ok(Request::Send(to, message)) => {
                send(&world, to, &message, deliver);
                sleep = MIN_SLEEP;
            }
            Ok(Request::Leave) => return,
            Err(RecvTimeoutError::Timeout) => {}
            // This rank ends without the others: finalizing MPI would wait for them.
            Err(RecvTimeoutError::Disconnected) => return std::mem::forget(universe),
        }
        while receive(&world, deliver) {
            sleep = MIN_SLEEP;
        }
    }
}

/// Sends a message, and receives others meanwhile: two ranks may send to each other at once.
fn send(world: &SimpleCommunicator, to: usize, message: &Message, deliver: &Sender<Message>) {
    let kind = KINDS.iter().position(|kind| *kind == message.kind).unwrap_or_default();
    let tag = (message.part * KINDS.len() + kind) as i32;
    ::mpi::request::scope(|scope| {
        let process = world.process_at_rank(to as i32);
        let mut request = process.immediate_send_with_tag(scope, &message.bytes[..], tag);
        while let Err(pending) = request.test() {
            request = pending;
            if !receive(world, deliver) {
                std::thread::sleep(MIN_SLEEP);
            }
        }
    });
}

/// Receives one message, if one has arrived.
fn receive(world: &SimpleCommunicator, deliver: &Sender<Message>) -> bool {
    let Some((message, status)) = world.any_process().immediate_matched_probe() else { return false };
    let mut bytes = vec![0u8; status.count(u8::equivalent_datatype()) as usize];
    message.matched_receive_into(&mut bytes[..]);
    let tag = status.tag() as usize;
    let (part, kind) = (tag / KINDS.len(), KINDS[tag % KINDS.len()]);
    // A receiver that is gone is about to end the process.
    let _ = deliver.send(Message { from: status.source_rank() as usize, kind, part, bytes });
    true
}
