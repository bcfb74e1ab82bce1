//! What the program `relay` and its test agree on: the size of a block tells which thread made it
//! or moved it, and in which step of that thread. No other block of that program has such a size.

/// Threads; each one passes blocks to the next, and the last one to the first.
pub const THREADS: usize = 8;
/// Blocks that a thread makes before it takes those of its neighbours.
pub const BATCH: usize = 64;
/// Batches of each thread. All of them make five million events.
pub const BATCHES: usize = 3256;

/// Returns the size of the block that this thread makes in this step.
pub fn made_size(thread: usize, step: usize) -> usize {
    MADE + tag(thread, step)
}

/// Returns the size that this thread, in this step of its own, gives to a block of the thread
/// before it.
pub fn moved_size(thread: usize, step: usize) -> usize {
    MOVED + tag(thread, step)
}

/// Returns the thread that made a block of this size, and its step modulo [`STEPS`].
pub fn made_by(size: u64) -> Option<(usize, usize)> {
    untag(size, MADE)
}

/// Returns the thread that gave this size to a block, and its step modulo [`STEPS`].
pub fn moved_by(size: u64) -> Option<(usize, usize)> {
    untag(size, MOVED)
}

/// Number of consecutive steps that sizes can tell apart.
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
