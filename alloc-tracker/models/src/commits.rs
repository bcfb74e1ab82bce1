//! Paired commits, read while they are written: a reader finds one commit whole, or begins anew.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

use crate::output::commit_pair::{begin, copy_of, publish};

/// Words of a copy: they stand for those in the header and for those in the rings.
const WORDS: usize = 2;
/// The third commit fills the copy of the first one again.
const COMMITS: u64 = 3;

struct Sidecar {
    number: AtomicU64,
    copies: [[AtomicU64; WORDS]; 2],
}

/// Writes commits whose words all are the commit's number, and reads beside it once, as a reader of the
/// sidecar does. Panics if the reader accepts words of another commit.
fn check(begin: fn(u64) -> usize) {
    loom::model(move || {
        let new = || AtomicU64::new(0);
        let sidecar = Arc::new(Sidecar { number: new(), copies: [[new(), new()], [new(), new()]] });
        let written = Arc::clone(&sidecar);
        let writer = thread::spawn(move || {
            for commits in 0..COMMITS {
                for word in &written.copies[begin(commits)] {
                    word.store(commits + 1, Ordering::Relaxed);
                }
                assert_eq!(publish(&written.number, commits), commits + 1);
            }
        });
        let number = sidecar.number.load(Ordering::Acquire);
        let words = sidecar.copies[copy_of(number)].each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if sidecar.number.load(Ordering::Relaxed) == number {
            assert_eq!(words, [number; WORDS], "words of another commit");
        }
        writer.join().unwrap();
        let number = sidecar.number.load(Ordering::Relaxed);
        assert_eq!(number, COMMITS);
        let words = sidecar.copies[copy_of(number)].each_ref().map(|word| word.load(Ordering::Relaxed));
        assert_eq!(words, [number; WORDS], "words of another commit");
    });
}

#[test]
fn a_reader_finds_one_commit_whole() {
    check(begin);
}

#[test]
#[should_panic(expected = "words of another commit")]
fn without_the_fence_at_the_begin_a_commit_is_torn() {
    check(|commits| copy_of(commits + 1));
}

#[test]
#[should_panic(expected = "words of another commit")]
fn filling_the_valid_copy_tears_a_commit() {
    check(copy_of);
}
