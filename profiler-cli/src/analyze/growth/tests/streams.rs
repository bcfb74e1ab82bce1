//! Generated programs: heap events of many sites over one hour, as the bytes of a dump. Each site
//! has a habit and numbers of its own. The dump has a node for each site, from
//! [`StackId::FIRST`] on.

use std::collections::VecDeque;

use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, StackId};
use alloc_dump::record::{Process, Record};
use alloc_dump::trailer::{EndReason, Trailer};
use alloc_dump::write::{Encoder, seal_trailer};

/// What a site does with its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Blocks live for a time with an exponential distribution.
    Steady,
    /// Lifetimes have a Pareto distribution: a few blocks live hundreds of times longer than most.
    HeavyTailed,
    /// Blocks of the first part are kept. What comes later is as steady as anything.
    WarmUp,
    /// A cache that is full early. A hit uses an entry again; a miss throws out the entry that was
    /// not used for the longest time.
    FullCache,
    /// Blocks pile up, and all of them are freed every 130 seconds.
    Cleared,
    /// As steady, but blocks come three times as often at the end as at the beginning.
    RisingLoad,
    /// Each step either makes a block or frees any one of the blocks, by a coin.
    RandomWalk,
    /// As steady, but one of so many blocks is kept for ever.
    Leak(u64),
    /// As a leak, but blocks come in bursts with pauses in between.
    BurstyLeak(u64),
}

impl Habit {
    /// Number of blocks that a site makes.
    fn births(self) -> u64 {
        match self {
            Habit::Leak(one_of) | Habit::BurstyLeak(one_of) => LEAKED_BLOCKS * one_of,
            _ => 800,
        }
    }
}

/// Length of every recording.
pub(super) const HOUR_US: u64 = 3_600_000_000;

/// Returns a dump with one site for each habit.
pub(super) fn dump_of(habits: &[Habit], seed: u64) -> Vec<u8> {
    let mut numbers = SeededNumbers(seed);
    let mut events = Vec::new();
    for (site, habit) in habits.iter().enumerate() {
        let stack = StackId(StackId::FIRST.0 + site as u32);
        let mut stream =
            Stream { stack, numbers: SeededNumbers(numbers.next()), blocks: 0, events: &mut events };
        stream.live(*habit);
    }
    // Stable, so a block that is freed in the microsecond of its birth is born first.
    events.sort_by_key(|event| event.us);
    let mut dump = DumpBytes::new();
    for site in 0..habits.len() as u32 {
        let id = StackId(StackId::FIRST.0 + site);
        dump.push(&Record::Node { id, parent: StackId::ROOT, pc: 0x1000 + u64::from(site) });
    }
    for event in &events {
        dump.push(&Record::Time { us: event.us });
        let (addr, stack) = (event.addr(), event.stack);
        dump.push(&match event.size {
            Some(size) => Record::Alloc { addr, size, stack, zeroed: false },
            None => Record::Dealloc { addr, size: None, stack },
        });
    }
    dump.finish()
}

/// One event of one site.
struct StreamEvent {
    us: u64,
    stack: StackId,
    /// Number of the block at its site.
    block: u64,
    /// `None` for a free.
    size: Option<u64>,
}

impl StreamEvent {
    /// No two blocks share an address.
    fn addr(&self) -> u64 {
        (u64::from(self.stack.0) << 32 | self.block) << 4
    }
}

/// The events of one site that are being made.
struct Stream<'a> {
    stack: StackId,
    numbers: SeededNumbers,
    blocks: u64,
    events: &'a mut Vec<StreamEvent>,
}

impl Stream<'_> {
    fn live(&mut self, habit: Habit) {
        let births = habit.births();
        match habit {
            Habit::Steady => self.blocks_with(births, uniform, |numbers, _| Some(numbers.lifetime())),
            Habit::HeavyTailed => self.blocks_with(births, uniform, |numbers, _| {
                Some(numbers.unit().powf(-1.0 / HEAVY_SHAPE) * HEAVY_LEAST_US)
            }),
            Habit::WarmUp => {
                let warm_us = HOUR_US as f64 * (0.15 + 0.25 * self.numbers.unit());
                self.blocks_with(births, uniform, |numbers, us| (us > warm_us).then(|| numbers.lifetime()));
            }
            Habit::FullCache => self.full_cache(births),
            Habit::Cleared => {
                self.blocks_with(births, uniform, |_, us| Some(CLEARED_EVERY_US - us % CLEARED_EVERY_US));
            }
            // The density rises from 1 to 3: by inversion of x + x^2 = 2 u.
            Habit::RisingLoad => self.blocks_with(
                births,
                |numbers| ((1.0 + 8.0 * numbers.unit()).sqrt() - 1.0) / 2.0,
                |numbers, _| Some(numbers.lifetime()),
            ),
            Habit::RandomWalk => self.random_walk(births),
            Habit::Leak(one_of) => {
                self.blocks_with(births, uniform, |numbers, _| numbers.lifetime_unless_leaked(one_of))
            }
            Habit::BurstyLeak(one_of) => {
                let bursts: Vec<f64> = (0..BURSTS).map(|_| self.numbers.unit()).collect();
                let near_a_burst = move |numbers: &mut SeededNumbers| {
                    let burst = bursts[numbers.below(BURSTS) as usize];
                    (burst + numbers.unit() / 500.0).min(1.0)
                };
                self.blocks_with(births, near_a_burst, |numbers, _| numbers.lifetime_unless_leaked(one_of));
            }
        }
    }

    /// Makes blocks. `when` returns the part of the hour that has passed at a birth; `lifetime` the
    /// microseconds that a block lives that was born then, or `None` if it is kept.
    fn blocks_with(
        &mut self,
        births: u64,
        when: impl Fn(&mut SeededNumbers) -> f64,
        lifetime: impl Fn(&mut SeededNumbers, f64) -> Option<f64>,
    ) {
        for _ in 0..births {
            let us = when(&mut self.numbers) * HOUR_US as f64;
            let block = self.alloc(us);
            if let Some(lifetime) = lifetime(&mut self.numbers, us) {
                self.free(block, us + lifetime);
            }
        }
    }

    fn full_cache(&mut self, births: u64) {
        let mut cache: VecDeque<(u64, u64)> = VecDeque::new();
        let mut at = 0.0;
        while self.blocks < births {
            // Half of the requests hit.
            at += HOUR_US as f64 / (births as f64 * 2.0);
            if at >= HOUR_US as f64 {
                return;
            }
            let key = self.numbers.below(2 * CACHE_ENTRIES as u64);
            let entry = match cache.iter().position(|(other, _)| *other == key) {
                Some(found) => cache.remove(found).map_or(0, |(_, block)| block),
                None => {
                    if cache.len() == CACHE_ENTRIES {
                        let oldest = cache.pop_front().map_or(0, |(_, block)| block);
                        self.free(oldest, at);
                    }
                    self.alloc(at)
                }
            };
            cache.push_back((key, entry));
        }
    }

    fn random_walk(&mut self, births: u64) {
        let mut live: Vec<u64> = (0..100).map(|_| self.alloc(0.0)).collect();
        for step in 1..2 * births {
            let us = HOUR_US as f64 * step as f64 / (2.0 * births as f64);
            if live.is_empty() || self.numbers.below(2) == 0 {
                live.push(self.alloc(us));
            } else {
                let at = self.numbers.below(live.len() as u64) as usize;
                self.free(live.swap_remove(at), us);
            }
        }
    }

    fn alloc(&mut self, us: f64) -> u64 {
        self.blocks += 1;
        let size = 64 + self.numbers.below(1000);
        self.add(us, self.blocks, Some(size));
        self.blocks
    }

    /// Frees a block, unless the recording ends before.
    fn free(&mut self, block: u64, us: f64) {
        if us < HOUR_US as f64 {
            self.add(us, block, None);
        }
    }

    fn add(&mut self, us: f64, block: u64, size: Option<u64>) {
        self.events.push(StreamEvent { us: us as u64, stack: self.stack, block, size });
    }
}

fn uniform(numbers: &mut SeededNumbers) -> f64 {
    numbers.unit()
}

/// Numbers that look random and are the same in every run (splitmix64, by S. Vigna).
pub(super) struct SeededNumbers(pub(super) u64);

impl SeededNumbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number above 0 and at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Microseconds that a block lives, with an exponential distribution.
    fn lifetime(&mut self) -> f64 {
        -self.unit().ln() * MEAN_LIFETIME_US
    }

    /// Returns `None` for one of so many blocks. The others live for a short time, as the blocks of
    /// requests do, and there are about 20 of them at any time.
    fn lifetime_unless_leaked(&mut self, one_of: u64) -> Option<f64> {
        let mean_us = HOUR_US as f64 / (5 * one_of) as f64;
        (self.below(one_of) > 0).then(|| -self.unit().ln() * mean_us)
    }
}

/// The bytes of a dump that is being made.
struct DumpBytes {
    bytes: Vec<u8>,
    buffer: Vec<u8>,
    encoder: Encoder,
    frames: u32,
}

impl DumpBytes {
    fn new() -> DumpBytes {
        let bytes = Header { session: [7; 16], created_unix_ns: 0 }.encode().to_vec();
        let mut dump = DumpBytes { bytes, buffer: vec![0; 256 << 10], encoder: Encoder::new(), frames: 0 };
        dump.begin();
        dump.push(&Record::Process(Process { from_first_event: true, ..Process::default() }));
        dump
    }

    fn begin(&mut self) {
        self.encoder.push(&mut self.buffer, &Record::Thread { id: 1 }).expect("an empty frame has room");
    }

    fn push(&mut self, record: &Record<'_>) {
        if self.encoder.push(&mut self.buffer, record).is_err() {
            self.seal();
            self.begin();
            self.encoder.push(&mut self.buffer, record).expect("an empty frame has room");
        }
    }

    fn seal(&mut self) {
        let len = self.encoder.seal(&mut self.buffer, self.frames);
        self.bytes.extend_from_slice(&self.buffer[..len]);
        self.frames += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.push(&Record::Time { us: HOUR_US });
        self.seal();
        let mut last = [0; FRAME_HEADER_LEN + 256];
        let trailer = Trailer::new(EndReason::Finished, HOUR_US);
        let len = seal_trailer(&mut last, self.frames, &trailer).expect("a trailer is short");
        self.bytes.extend_from_slice(&last[..len]);
        self.bytes
    }
}

/// A fiftieth of the hour.
const MEAN_LIFETIME_US: f64 = HOUR_US as f64 / 50.0;
/// Shape of the distribution of heavy-tailed lifetimes: their variance is infinite.
const HEAVY_SHAPE: f64 = 1.2;
const HEAVY_LEAST_US: f64 = HOUR_US as f64 / 1000.0;
const CLEARED_EVERY_US: f64 = 130e6;
const CACHE_ENTRIES: usize = 100;
const BURSTS: u64 = 200;
/// Blocks that a leaking site keeps, on average: six or seven for each window.
const LEAKED_BLOCKS: u64 = 100;
