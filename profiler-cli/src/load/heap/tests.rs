//! The live set after hand-made events.

use super::*;

const THREAD: ThreadRef = ThreadRef { id: 1, index: 0, is_selected: true };
const STACK: StackId = StackId(3);
const OWNER: BlockOwner = BlockOwner { stack: STACK, context: ContextId::NONE };

fn heap() -> Heap {
    let mut heap = Heap { from_first_event: true, ..Heap::default() };
    heap.add_thread();
    heap
}

fn at(us: u64) -> EventOrigin {
    EventOrigin { us, thread: THREAD, stack: STACK }
}

/// Returns address, size and birth of every live block, by address.
fn live(heap: &Heap) -> Vec<(u64, u64, u64)> {
    let mut live: Vec<_> = heap.blocks().map(|(at, block)| (at, block.size, block.birth.us())).collect();
    live.sort_unstable();
    live
}

#[test]
fn an_event_says_what_it_added_and_what_it_removed() {
    let mut heap = heap();
    let (first, _) = heap.alloc(at(1), OWNER, 0x10, 100);
    assert_eq!((first.allocated, first.freed, first.removed, first.is_peak), (100, 0, None, true));
    let (second, lost) = heap.realloc(at(2), OWNER, (0x10, None), (0x20, 70));
    assert_eq!((second.allocated, second.freed, second.number), (70, 100, 2));
    // 70 is no new peak.
    assert_eq!((second.removed, second.is_peak, lost.is_some()), (first.added, false, false));
    assert_eq!(live(&heap), [(0x20, 70, 1)]);
    let third = heap.dealloc(at(3), 0x20, None);
    assert_eq!((third.freed, third.removed, third.is_temporary), (70, second.added, false));
    assert_eq!((heap.live_bytes(), heap.live_blocks(), heap.peak().bytes, heap.peak().us), (0, 0, 100, 1));
    assert_eq!(heap.contradictions(), 0);
}

#[test]
fn a_failed_realloc_changes_nothing() {
    let mut heap = heap();
    heap.alloc(at(1), OWNER, 0x10, 100);
    heap.begin_realloc(THREAD, 0x10, None);
    assert_eq!((live(&heap), heap.live_bytes()), (vec![(0x10, 100, 1)], 100));
    heap.cancel_realloc(THREAD);
    assert_eq!((live(&heap), heap.live_bytes()), (vec![(0x10, 100, 1)], 100));
    // A realloc that failed is no event, so the free is the next one after the alloc.
    assert!(heap.dealloc(at(2), 0x10, None).is_temporary);
    assert_eq!(heap.contradictions(), 0);
}

#[test]
fn a_block_at_the_address_of_a_failed_realloc_is_a_contradiction() {
    let mut heap = heap();
    heap.alloc(at(1), OWNER, 0x10, 100);
    heap.begin_realloc(THREAD, 0x10, None);
    heap.alloc(at(2), OWNER, 0x10, 5);
    assert_eq!(heap.contradictions(), 0);
    heap.cancel_realloc(THREAD);
    assert_eq!(heap.contradictions(), 1);
}

#[test]
fn a_block_that_was_freed_elsewhere_is_returned() {
    let mut heap = heap();
    heap.alloc(at(1), OWNER, 0x10, 100);
    let (event, lost) = heap.alloc(at(2), OWNER, 0x10, 7);
    assert_eq!(lost.map(|LostBlock(block)| (block.size, block.birth.us())), Some((100, 1)));
    // 7 bytes are live, not 107, so this is no peak.
    assert_eq!((event.is_peak, heap.live_bytes(), heap.live_blocks()), (false, 7, 1));
    assert_eq!((heap.freed_elsewhere(), heap.contradictions(), heap.is_consistent()), (1, 0, false));
}

#[test]
fn a_free_of_a_block_that_was_allocated_elsewhere_subtracts_nothing() {
    let mut heap = heap();
    heap.alloc(at(1), OWNER, 0x10, 100);
    let event = heap.dealloc(at(2), 0x20, Some(30));
    assert_eq!((event.freed, event.removed, heap.live_bytes(), heap.live_blocks()), (30, None, 100, 1));
    // Moved by a realloc, such a block is a block of the recording from then on.
    heap.begin_realloc(THREAD, 0x30, Some(8));
    let (event, _) = heap.end_realloc(at(3), OWNER, 0x40, 9);
    assert_eq!((event.freed, heap.live_bytes(), heap.live_blocks()), (8, 109, 2));
    assert_eq!((heap.allocated_elsewhere(), heap.contradictions(), heap.is_consistent()), (2, 0, false));
}

#[test]
fn a_size_that_no_block_can_have_counts_as_zero() {
    let mut heap = heap();
    let (event, _) = heap.alloc(at(1), OWNER, 0x10, MAX_SIZE + 1);
    assert_eq!((event.allocated, heap.live_bytes(), heap.live_blocks()), (0, 0, 1));
    heap.alloc(at(1), OWNER, 0x20, MAX_SIZE);
    assert_eq!((heap.live_bytes(), heap.contradictions()), (MAX_SIZE, 1));
}
