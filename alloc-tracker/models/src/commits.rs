//! Paired commits, read while they are written: a reader finds one whole commit, or must read
//! again.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

use crate::output::commit_pair::{next_copy, publish};

/// Words of a copy. They stand for the words in the sidecar's header and for those in the rings.
const WORDS: usize = 2;
/// The third commit fills the copy of the first one again.
const COMMITS: u64 = 3;

struct Sidecar {
    number: AtomicU64,
    copies: [[AtomicU64; WORDS]; 2],
}

/// Writes commits whose words are all the commit's number. Meanwhile reads once, as a reader of the
/// sidecar does. Panics if the reader accepts words of another commit.
fn check(next_copy: fn(u64) -> usize, publish: fn(&AtomicU64, u64) -> u64) {
    loom::model(move || {
        let new = || AtomicU64::new(0);
        let sidecar = Arc::new(Sidecar { number: new(), copies: [[new(), new()], [new(), new()]] });
        let written = Arc::clone(&sidecar);
        let writer = thread::spawn(move || {
            let mut commits = 0;
            while commits < COMMITS {
                for word in &written.copies[next_copy(commits)] {
                    word.store(commits + 1, Ordering::Relaxed);
                }
                commits = publish(&written.number, commits);
            }
        });
        let number = sidecar.number.load(Ordering::Acquire);
        let words = sidecar.copies[valid_copy(number)].each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if sidecar.number.load(Ordering::Relaxed) == number {
            assert_eq!(words, [number; WORDS], "words of another commit");
        }
        writer.join().unwrap();
        let number = sidecar.number.load(Ordering::Relaxed);
        let words = sidecar.copies[valid_copy(number)].each_ref().map(|word| word.load(Ordering::Relaxed));
        assert_eq!((number, words), (COMMITS, [number; WORDS]), "words of another commit");
    });
}

/// Returns the copy in which readers find the commit with this number, as docs/FORMAT.md says.
fn valid_copy(commits: u64) -> usize {
    (commits & 1) as usize
}

#[test]
fn a_reader_finds_one_commit_whole() {
    check(next_copy, publish);
}

#[test]
#[should_panic(expected = "words of another commit")]
fn without_the_fence_behind_it_a_commit_is_torn() {
    check(next_copy, |number, commits| {
        number.store(commits + 1, Ordering::Release);
        commits + 1
    });
}

#[test]
#[should_panic(expected = "words of another commit")]
fn published_without_release_a_commit_is_torn() {
    check(next_copy, |number, commits| {
        number.store(commits + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        commits + 1
    });
}

#[test]
#[should_panic(expected = "words of another commit")]
fn filling_the_valid_copy_tears_a_commit() {
    check(valid_copy, publish);
}
