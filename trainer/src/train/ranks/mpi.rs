//! Messages over MPI. One thread makes every call into the library and has nothing else to do; it sleeps between looks
//! at what has arrived, so that the threads that compute have the processor.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use ::mpi::Threading;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, Destination, Equivalence, Source};

use super::{Kind, Message, Ranks, gone};
use crate::error::{Error, Result};

/// The shortest and the longest sleep: the first while messages travel, the second while everyone computes.
const SLEEP: [Duration; 2] = [Duration::from_micros(20), Duration::from_millis(1)];
/// What messages are about, in the order of their tags.
const KINDS: [Kind; 3] = [Kind::Partial, Kind::Total, Kind::Word];

/// What the thread is asked to do.
enum Order {
    Send(usize, Message),
    /// Ends MPI, together with all other ranks.
    Leave,
}

/// Joins the job that this process was started in.
pub fn join() -> Result<Ranks> {
    let no_thread = |e| Error::Usage(format!("cannot start a thread for MPI: {e}"));
    let (orders, ordered) = channel();
    let (deliver, arriving) = channel();
    let (tell, hear) = channel();
    let delivered = deliver.clone();
    let thread = std::thread::Builder::new()
        .name("ranks".into())
        .spawn(move || serve(&tell, &ordered, &delivered))
        .map_err(no_thread)?;
    let (rank, size) =
        hear.recv().map_err(|_| Error::Usage("MPI cannot be started: see its own message".into()))?;
    let leave = orders.clone();
    let post = move |to: usize, message: Message| {
        let sent = match to == rank {
            true => deliver.send(message).is_ok(),
            false => orders.send(Order::Send(to, message)).is_ok(),
        };
        if sent { Ok(()) } else { Err(gone()) }
    };
    let end = move || {
        // A thread that is gone has nothing to end.
        if leave.send(Order::Leave).is_ok() {
            let _ = thread.join();
        }
    };
    Ok(Ranks::new(rank, size, Box::new(post), arriving).ending(end))
}

/// The thread's work, to the end of the job.
fn serve(tell: &Sender<(usize, usize)>, orders: &Receiver<Order>, deliver: &Sender<Message>) {
    let Some((universe, _)) = ::mpi::initialize_with_threading(Threading::Funneled) else { return };
    let world = universe.world();
    // Numbers of ranks are positive, and whoever does not hear them does not order anything.
    let _ = tell.send((world.rank() as usize, world.size() as usize));
    let mut sleep = SLEEP[0];
    loop {
        sleep = (sleep * 2).min(SLEEP[1]);
        match orders.recv_timeout(sleep) {
            Ok(Order::Send(to, message)) => {
                send(&world, to, &message, deliver);
                sleep = SLEEP[0];
            }
            Ok(Order::Leave) => return,
            Err(RecvTimeoutError::Timeout) => {}
            // This rank ends and others do not: to end MPI would be to wait for them.
            Err(RecvTimeoutError::Disconnected) => return std::mem::forget(universe),
        }
        while receive(&world, deliver) {
            sleep = SLEEP[0];
        }
    }
}

/// Sends a message and takes in what arrives meanwhile: two ranks may send to each other at once.
fn send(world: &SimpleCommunicator, to: usize, message: &Message, deliver: &Sender<Message>) {
    let kind = KINDS.iter().position(|kind| *kind == message.kind).unwrap_or_default();
    let tag = (message.part * KINDS.len() + kind) as i32;
    ::mpi::request::scope(|scope| {
        let process = world.process_at_rank(to as i32);
        let mut request = process.immediate_send_with_tag(scope, &message.bytes[..], tag);
        while let Err(under_way) = request.test() {
            request = under_way;
            if !receive(world, deliver) {
                std::thread::sleep(SLEEP[0]);
            }
        }
    });
}

/// Takes in one message, if one has arrived.
fn receive(world: &SimpleCommunicator, deliver: &Sender<Message>) -> bool {
    let Some((message, status)) = world.any_process().immediate_matched_probe() else { return false };
    let mut bytes = vec![0u8; status.count(u8::equivalent_datatype()) as usize];
    message.matched_receive_into(&mut bytes[..]);
    let tag = status.tag() as usize;
    let (part, kind) = (tag / KINDS.len(), KINDS[tag % KINDS.len()]);
    // Whoever has stopped listening is about to end.
    let _ = deliver.send(Message { from: status.source_rank() as usize, kind, part, bytes });
    true
}
