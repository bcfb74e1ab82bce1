//! The writing half runs inside an allocator, so it must not allocate. A counting allocator checks
//! this in a process of its own.

mod made;

use std::alloc::System;

use alloc_dump::frame::FrameHeader;
use alloc_dump::header::Header;
use alloc_dump::layout::FRAME_RECORDS;
use alloc_dump::sidecar;
use alloc_dump::write::{Encoder, seal_trailer};
use alloc_oracle::{Counting, snapshot};

#[global_allocator]
static ALLOC: Counting<System> = Counting::new(System);

#[test]
fn the_writer_allocates_nothing() {
    let records = made::one_of_each();
    let trailer = made::trailer();
    // A buffer of 200 bytes holds some of the records and is full soon. So every path is taken,
    // also those of full and of sealed frames.
    let mut buffers = [vec![0u8; 1 << 16], vec![0u8; 200], vec![0u8; 3]];
    // The thread of the test harness may allocate at the same time. A writer that allocates would
    // do so in every round.
    let fewest = (0..5).map(|_| allocations_of(|| write(&records, &trailer, &mut buffers))).min();
    assert_eq!(fewest, Some(0));
    assert_ne!(allocations_of(|| drop(std::hint::black_box(vec![1u8; 10]))), 0);
}

fn write(
    records: &[alloc_dump::record::Record<'_>],
    trailer: &alloc_dump::trailer::Trailer,
    buffers: &mut [Vec<u8>],
) {
    for buffer in buffers {
        let mut encoder = Encoder::new();
        for seq in 0..20 {
            for record in records {
                if encoder.push(buffer, record).is_err() {
                    encoder.seal(buffer, seq);
                    let _ = encoder.push(buffer, record);
                }
            }
        }
        encoder.seal(buffer, 0);
        let _ = seal_trailer(buffer, 1, trailer);
        if let Some(room) = buffer.get_mut(..64) {
            room.copy_from_slice(&Header { session: [1; 16], created_unix_ns: 2 }.encode());
            room[..32].copy_from_slice(&sidecar::encode_identity(&[1; 16]));
            room[..32].copy_from_slice(&FrameHeader::raw(FRAME_RECORDS, 1, b"payload").encode());
        }
    }
}

fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = snapshot();
    work();
    let after = snapshot();
    (after.allocations - before.allocations) + (after.reallocations - before.reallocations)
}
