//! Measures how many records a second the writer and the reader of the format process. The stream
//! is shaped like that of a program: blocks are reused, sizes and stacks repeat, a new node comes
//! now and then, and the time moves on by a few microseconds every few events.
//!
//!     cargo bench -p alloc-dump
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use alloc_dump::write::Encoder;

const RECORDS: usize = 5_000_000;
const ROUNDS: usize = 10;
/// How many records are written over and over. They stay in the CPU's cache.
const CACHED: usize = 20_000;
/// Size of the buffer in bytes, and so of a frame.
const FRAME: usize = 256 << 10;

fn main() {
    let records = stream();
    let dump = write(&records);
    let events = expected(&records);
    println!("{:.2} bytes a record", dump.len() as f64 / RECORDS as f64);

    let passes = RECORDS * ROUNDS / CACHED;
    let start = Instant::now();
    for _ in 0..passes {
        black_box(write(black_box(&records[..CACHED])));
    }
    report("write", start);

    let start = Instant::now();
    for _ in 0..ROUNDS {
        assert_eq!(read_all(black_box(&dump)), events);
    }
    report("read", start);
}

fn report(what: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:5} {:7.1} million records/s", (RECORDS * ROUNDS) as f64 / seconds / 1e6);
}

/// Reads all records and looks at every field of every event, which is the least that a replay
/// does.
fn read_all(dump: &[u8]) -> (u64, u64) {
    let mut reader = Reader::new(dump).unwrap();
    let (mut events, mut sum) = (0u64, 0u64);
    while let Some(records) = reader.next_frame().unwrap() {
        for record in records {
            add(&record, &mut events, &mut sum);
        }
    }
    assert_eq!(reader.damage(), Default::default());
    (events, sum)
}

/// Returns the result that [`read_all`] must have.
fn expected(records: &[Record<'_>]) -> (u64, u64) {
    let (mut events, mut sum) = (0, 0);
    for record in records {
        add(record, &mut events, &mut sum);
    }
    (events, sum)
}

#[inline]
fn add(record: &Record<'_>, events: &mut u64, sum: &mut u64) {
    match *record {
        Record::Alloc { addr, size, stack, .. } => {
            *events += 1;
            *sum = sum.wrapping_add(addr ^ size).wrapping_add(u64::from(stack.0));
        }
        Record::Dealloc { addr, stack, .. } => {
            *events += 1;
            *sum = sum.wrapping_add(addr).wrapping_add(u64::from(stack.0));
        }
        Record::Realloc { old, new, size, stack, .. } => {
            *events += 1;
            *sum = sum.wrapping_add(old ^ new ^ size).wrapping_add(u64::from(stack.0));
        }
        Record::Node { pc, .. } => *sum = sum.wrapping_add(pc),
        Record::Time { us } => *sum = sum.wrapping_add(us),
        _ => {}
    }
}

fn write(records: &[Record<'_>]) -> Vec<u8> {
    let mut dump = Header { session: [0; 16], created_unix_ns: 0 }.encode().to_vec();
    let mut buffer = vec![0u8; FRAME];
    let (mut encoder, mut seq) = (Encoder::new(), 0);
    for record in records {
        if encoder.push(&mut buffer, record).is_err() {
            let len = encoder.seal(&mut buffer, seq);
            dump.extend_from_slice(&buffer[..len]);
            seq += 1;
            encoder.push(&mut buffer, record).unwrap();
        }
    }
    let len = encoder.seal(&mut buffer, seq);
    dump.extend_from_slice(&buffer[..len]);
    dump
}

/// Returns the records, the same ones in every run.
fn stream() -> Vec<Record<'static>> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut records = vec![Record::Thread { id: 1 }];
    let (mut live, mut us, mut nodes) = (Vec::new(), 0, StackId::FIRST.0);
    while records.len() < RECORDS {
        let dice = random();
        if dice % 16 == 0 {
            us += dice >> 32 & 7;
            records.push(Record::Time { us });
        }
        if dice % 61 == 0 {
            let parent = StackId(nodes - random() as u32 % 3);
            records.push(Record::Node {
                id: StackId(nodes),
                parent,
                pc: 0x5555_0000_0000 + random() % 0x10_0000,
            });
            nodes += 1;
        }
        let stack = StackId(nodes.saturating_sub(random() as u32 % 40));
        match dice >> 8 & 15 {
            0..=6 if !live.is_empty() => {
                let addr = live.swap_remove(random() as usize % live.len());
                records.push(Record::Dealloc { addr, size: None, stack });
            }
            7 if !live.is_empty() => {
                let at = random() as usize % live.len();
                let (old, new) = (live[at], 0x7F00_0000_0000 + (random() % 0x4_0000) * 16);
                live[at] = new;
                records.push(Record::Realloc { old, old_size: None, new, size: 64 + random() % 4096, stack });
            }
            _ => {
                let addr = 0x7F00_0000_0000 + (random() % (16 << (random() % 5 * 4))) * 16;
                live.push(addr);
                records.push(Record::Alloc {
                    addr,
                    size: 8 + random() % (16 << (random() % 3 * 4)),
                    stack,
                    zeroed: false,
                });
            }
        }
        live.truncate(4096);
    }
    records.truncate(RECORDS);
    records
}
