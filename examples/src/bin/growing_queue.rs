//! A queue between a quick producer and a slow consumer: for every `PACE` messages put in, one is
//! taken out.
//!
//! What a profile must show:
//!
//! - The peak is in the queue: `(PACE - 1) * BATCHES + 1` = 3,001 messages of `MESSAGE_BYTES`,
//!   3,073,024 bytes, from the line marked `PLANTED: peak` in `produce`. At that moment the last
//!   batch is in the queue and none of its messages is out yet.
//! - The thread `producer` allocates all messages and the thread `consumer` frees them; there are
//!   `PACE * BATCHES` = 4,000 of them.
//! - The line marked `PLANTED: growth` holds one block, the ring buffer of the queue, which doubles
//!   by reallocation.
//! - Nothing leaks: the consumer empties the queue in the end.
//!
//! The two threads take turns after every batch, so that the figures do not depend on the
//! scheduler. With `rounds` as first argument, there are `BATCHES * rounds` batches.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const PACE: usize = 4;
const BATCHES: usize = 1000;
const MESSAGE_BYTES: usize = 1024;

fn main() {
    examples::begin();
    let batches = BATCHES * examples::rounds();
    let channel = Channel::default();

    let (longest, checksum) = thread::scope(|scope| {
        let producer = thread::Builder::new().name("producer".into());
        let producer = producer.spawn_scoped(scope, || produce(&channel, batches)).expect("a thread starts");
        let consumer = thread::Builder::new().name("consumer".into());
        let consumer = consumer.spawn_scoped(scope, || consume(&channel)).expect("a thread starts");
        (producer.join().expect("the producer ends"), consumer.join().expect("the consumer ends"))
    });
    println!("{} messages, the longest queue {longest}, checksum {checksum}", PACE * batches);
}

/// The queue, and whose turn it is.
#[derive(Default)]
struct Channel {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Box<[u8]>>,
    batch_is_in: bool,
    closed: bool,
}

/// Puts all batches into the queue. Returns the most messages that were in it at once.
#[inline(never)]
fn produce(channel: &Channel, batches: usize) -> usize {
    let mut longest = 0;
    for batch in 0..batches {
        for _ in 0..PACE {
            let message = vec![batch as u8 | 1; MESSAGE_BYTES].into_boxed_slice(); // PLANTED: peak
            channel.push(message);
        }
        let mut state = channel.lock();
        longest = longest.max(state.queue.len());
        state.batch_is_in = true;
        channel.changed.notify_all();
        drop(channel.changed.wait_while(state, |state| state.batch_is_in));
    }
    channel.lock().closed = true;
    channel.changed.notify_all();
    longest
}

/// Takes one message for each batch while the producer works, and the remaining ones once it is
/// done. Returns a checksum over all messages.
#[inline(never)]
fn consume(channel: &Channel) -> u64 {
    let mut checksum = 0;
    loop {
        let state = channel.lock();
        let waiting = channel.changed.wait_while(state, |state| !state.batch_is_in && !state.closed);
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        let Some(message) = state.queue.pop_front() else { return checksum };
        checksum += digest(&message);
        drop(message); // PLANTED: freed
        state.batch_is_in = false;
        channel.changed.notify_all();
    }
}

#[inline(never)]
fn digest(message: &[u8]) -> u64 {
    message.iter().map(|byte| u64::from(*byte)).sum()
}

impl Channel {
    #[inline(never)]
    fn push(&self, message: Box<[u8]>) {
        self.lock().queue.push_back(message); // PLANTED: growth
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
