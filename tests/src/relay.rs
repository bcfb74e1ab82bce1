//! What the program `relay` and its judge agree on: how the size of a block tells which thread made or moved it, and as
//! which of its own. No other block of that program has a size in either range.

/// Threads, in a ring.
pub const THREADS: usize = 8;
/// A thread makes so many blocks before it looks at those of its neighbours.
pub const BATCH: usize = 64;
/// And does that so often: five million events in all.
pub const BATCHES: usize = 3256;

/// The size of the block that this thread makes in this step.
pub fn made_size(thread: usize, step: usize) -> usize {
    MADE + tag(thread, step)
}

/// The size that this thread gives, in this step of its own, to a block of the thread before it.
pub fn moved_size(thread: usize, step: usize) -> usize {
    MOVED + tag(thread, step)
}

/// The thread that has made a block of this size, and its step modulo [`STEPS`].
pub fn made_by(size: u64) -> Option<(usize, usize)> {
    untag(size, MADE)
}

/// The thread that has given this size to a block, and its step modulo [`STEPS`].
pub fn moved_by(size: u64) -> Option<(usize, usize)> {
    untag(size, MOVED)
}

/// Steps that sizes can tell apart.
pub const STEPS: usize = 128;

const MADE: usize = 1024;
const MOVED: usize = MADE + RANGE;
const RANGE: usize = STEPS * THREADS;

fn tag(thread: usize, step: usize) -> usize {
    step % STEPS * THREADS + thread
}

fn untag(size: u64, base: usize) -> Option<(usize, usize)> {
    let tag = usize::try_from(size).ok()?.checked_sub(base).filter(|tag| *tag < RANGE)?;
    Some((tag % THREADS, tag / THREADS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_tell_thread_and_step() {
        assert_eq!(made_by(made_size(7, 130) as u64), Some((7, 2)));
        assert_eq!(moved_by(moved_size(0, 127) as u64), Some((0, 127)));
        assert_eq!(made_by(moved_size(0, 0) as u64), None);
        assert_eq!(moved_by(made_size(7, 127) as u64), None);
    }
}
