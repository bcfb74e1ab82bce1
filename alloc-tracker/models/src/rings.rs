//! Thread rings: the entries that the drainer takes are whole and in the order of their timestamps,
//! whatever the threads are doing meanwhile.

use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::output::ring_protocol::{
    ENTRY_WORDS, HeaderWord, RingWords, entry, limit, release, released, store, stored,
};

/// A ring with room for two entries.
struct Ring {
    stored: AtomicU64,
    intent: AtomicU64,
    released: AtomicU64,
    entries: [[AtomicU64; ENTRY_WORDS]; 2],
}

impl Ring {
    fn new() -> Ring {
        let new = || AtomicU64::new(0);
        let entries = [[new(), new(), new()], [new(), new(), new()]];
        Ring { stored: new(), intent: new(), released: new(), entries }
    }
}

impl RingWords for Ring {
    const CAPACITY: u64 = 2;

    fn header(&self, word: HeaderWord) -> &AtomicU64 {
        match word {
            HeaderWord::Stored => &self.stored,
            HeaderWord::Intent => &self.intent,
            HeaderWord::Released => &self.released,
        }
    }

    fn entry_word(&self, index: u64, word: usize) -> &AtomicU64 {
        &self.entries[(index % Ring::CAPACITY) as usize][word]
    }
}

/// Stands in for the clock that all threads share: each read returns a later time.
struct Clock(AtomicU64);

impl Clock {
    fn new() -> Arc<Clock> {
        Arc::new(Clock(AtomicU64::new(1)))
    }

    fn read(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Returns the words of an entry. They differ from the words of any other entry, and from a
/// mixture.
fn words(timestamp: u64) -> [u64; ENTRY_WORDS] {
    [timestamp, timestamp + 100, timestamp + 200]
}

/// Returns the timestamp of an entry with these words. Panics if the words are those of no single
/// entry.
fn timestamp_of([timestamp, rest @ ..]: [u64; ENTRY_WORDS]) -> u64 {
    assert_eq!([timestamp, rest[0], rest[1]], words(timestamp), "a torn entry");
    timestamp
}

/// Runs a model. Three preemptions suffice to show every fault that was ever put into a protocol on
/// trial, and bound the time to some seconds.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// Two threads store an entry each while the drainer takes the entries that it may take. When both
/// threads have ended it takes the rest.
fn take_while_two_threads_store(with_fences: bool) {
    model(move || {
        let clock = Clock::new();
        let rings = [Arc::new(Ring::new()), Arc::new(Ring::new())];
        let threads = rings.each_ref().map(|ring| {
            let (ring, clock) = (Arc::clone(ring), Arc::clone(&clock));
            thread::spawn(move || store(&*ring, 0, with_fences, || clock.read(), words))
        });
        let mut horizon = clock.read();
        if with_fences {
            fence(Ordering::SeqCst);
        }
        let limits = rings.each_ref().map(|ring| {
            let (stored, lowered) = limit(&**ring, horizon, |word| word);
            horizon = lowered;
            stored
        });
        let mut taken = [0, 0];
        let mut first = Vec::new();
        for (index, ring) in rings.iter().enumerate() {
            while taken[index] < limits[index] {
                let timestamp = timestamp_of(entry(&**ring, taken[index]));
                if timestamp >= horizon {
                    break;
                }
                first.push(timestamp);
                taken[index] += 1;
            }
        }
        let mut times = threads.map(|thread| thread.join().unwrap());
        times.sort_unstable();
        let mut rest: Vec<u64> = Vec::new();
        for (ring, taken) in rings.iter().zip(taken) {
            rest.extend((taken..stored(&**ring)).map(|index| timestamp_of(entry(&**ring, index))));
        }
        first.sort_unstable();
        rest.sort_unstable();
        first.append(&mut rest);
        assert_eq!(first, times, "an entry came too late, was lost or was taken twice");
    });
}

#[test]
fn no_entry_comes_below_the_horizon() {
    take_while_two_threads_store(true);
}

#[test]
#[should_panic(expected = "came too late")]
fn without_fences_an_entry_comes_too_late() {
    take_while_two_threads_store(false);
}

/// A thread stores one entry more than its ring has room for, and waits for room.
fn store_into_a_full_ring(release_early: bool) {
    model(move || {
        let (clock, ring) = (Clock::new(), Arc::new(Ring::new()));
        let thread = {
            let (clock, ring) = (Arc::clone(&clock), Arc::clone(&ring));
            thread::spawn(move || {
                for index in 0..3 {
                    while index >= released(&*ring) + Ring::CAPACITY {
                        thread::yield_now();
                    }
                    store(&*ring, index, true, || clock.read(), words);
                }
            })
        };
        let mut last = 0;
        for index in 0..3 {
            while stored(&*ring) <= index {
                thread::yield_now();
            }
            if release_early {
                release(&*ring, index + 1);
            }
            let timestamp = timestamp_of(entry(&*ring, index));
            assert!(timestamp > last, "an entry was overwritten before it was read");
            last = timestamp;
            release(&*ring, index + 1);
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_full_ring_is_not_overwritten() {
    store_into_a_full_ring(false);
}

#[test]
#[should_panic(expected = "entry")]
fn releasing_before_reading_loses_an_entry() {
    store_into_a_full_ring(true);
}

/// A thread ends and hands its ring on, under a lock, to the next thread, which may begin before,
/// during or after that. With `too_early` it does so before it has stored its entry.
fn hand_the_ring_on(too_early: bool) {
    model(move || {
        let (clock, ring) = (Clock::new(), Arc::new(Ring::new()));
        let free = Arc::new(Mutex::new(None));
        let next = |is_first: bool| {
            let (clock, ring, free) = (Arc::clone(&clock), Arc::clone(&ring), Arc::clone(&free));
            thread::spawn(move || {
                let begun = if is_first { Some(0) } else { free.lock().unwrap().take() };
                if let Some(index) = begun {
                    if too_early {
                        *free.lock().unwrap() = Some(index + 1);
                    }
                    store(&*ring, index, true, || clock.read(), words);
                    if !too_early {
                        *free.lock().unwrap() = Some(index + 1);
                    }
                }
                begun.is_some()
            })
        };
        let threads = [next(true), next(false)];
        let horizon = clock.read();
        fence(Ordering::SeqCst);
        let (until, horizon) = limit(&*ring, horizon, |word| word);
        let below: Vec<u64> = (0..until)
            .map(|index| timestamp_of(entry(&*ring, index)))
            .take_while(|timestamp| *timestamp < horizon)
            .collect();
        let came = threads.map(|thread| thread.join().unwrap());
        let all: Vec<u64> = (0..stored(&*ring)).map(|index| timestamp_of(entry(&*ring, index))).collect();
        let expected = came.iter().filter(|came| **came).count();
        assert_eq!(all.len(), expected, "an entry was lost or counted twice");
        assert!(all.is_sorted(), "an entry is out of order");
        let late = all[below.len()..].iter().any(|timestamp| *timestamp < horizon);
        assert!(!late, "an entry came below the horizon");
    });
}

#[test]
fn a_ring_is_handed_to_the_next_thread() {
    hand_the_ring_on(false);
}

#[test]
#[should_panic(expected = "entry")]
fn a_ring_handed_on_too_early_has_two_writers() {
    hand_the_ring_on(true);
}
