//! Dumps that are written piece by piece, followed meanwhile, and compared with one full load.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, StackId};
use alloc_dump::record::Record;
use alloc_dump::sidecar::{
    COMMIT_OFFSETS, COMMITS_OFFSET, Commit, PAYLOAD_OFFSET, RINGS_START, encode_identity,
};
use alloc_dump::trailer::{EndReason, Trailer};
use alloc_dump::write::{Encoder, seal_trailer};

use super::*;
use crate::dumps::sidecar::sidecar_path;
use crate::load::{LoadOptions, load};

const SESSION: [u8; 16] = [7; 16];

/// Numbers that look random and are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A dump that is being made: whole frames, in order.
struct Frames {
    numbers: Numbers,
    live: Vec<u64>,
    next_address: u64,
    us: u64,
    nodes: u32,
    seq: u32,
}

impl Frames {
    fn new(seed: u64) -> Frames {
        let nodes = StackId::FIRST.0;
        Frames { numbers: Numbers(seed), live: Vec::new(), next_address: 0x1000, us: 0, nodes, seq: 0 }
    }

    /// Makes the next frame, with this many events.
    fn frame(&mut self, events: u64) -> Vec<u8> {
        let (mut buffer, mut encoder) = (vec![0; 1 << 16], Encoder::new());
        let mut push = |record| encoder.push(&mut buffer, &record).expect("the buffer is large enough");
        for _ in 0..events {
            self.us += self.numbers.below(50);
            push(Record::Thread { id: 1 + self.numbers.below(3) as u32 });
            push(Record::Time { us: self.us });
            if self.nodes == StackId::FIRST.0 || self.numbers.below(8) == 0 {
                let parent = match self.nodes {
                    3 => StackId::ROOT,
                    nodes => StackId(3 + self.numbers.below(u64::from(nodes - 3)) as u32),
                };
                push(Record::Node { id: StackId(self.nodes), parent, pc: u64::from(self.nodes) });
                self.nodes += 1;
            }
            let stack = StackId(3 + self.numbers.below(u64::from(self.nodes - 3)) as u32);
            let size = self.numbers.below(1000);
            let kind = self.numbers.below(5);
            if self.live.is_empty() || kind < 3 {
                let addr = self.new_address();
                push(Record::Alloc { addr, size, stack, zeroed: kind == 0 });
                self.live.push(addr);
                continue;
            }
            let at = self.numbers.below(self.live.len() as u64) as usize;
            if kind == 3 {
                push(Record::Dealloc { addr: self.live.swap_remove(at), size: None, stack });
            } else {
                let new = self.new_address();
                let old = std::mem::replace(&mut self.live[at], new);
                push(Record::Realloc { old, old_size: None, new, size, stack });
            }
        }
        let len = encoder.seal(&mut buffer, self.seq);
        self.seq += 1;
        buffer.truncate(len);
        buffer
    }

    fn new_address(&mut self) -> u64 {
        self.next_address += 16;
        self.next_address
    }

    fn trailer(&self) -> Vec<u8> {
        let mut buffer = vec![0; FRAME_HEADER_LEN + 256];
        let trailer = Trailer::new(EndReason::Finished, self.us + 1);
        let len = seal_trailer(&mut buffer, self.seq, &trailer).expect("the buffer is large enough");
        buffer.truncate(len);
        buffer
    }
}

fn header(session: [u8; 16]) -> Vec<u8> {
    Header { session, created_unix_ns: 5 }.encode().to_vec()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

fn options() -> LoadOptions {
    LoadOptions { blocks: KeepBlocks::AtEnd, ..LoadOptions::default() }
}

/// Everything in a profile, for comparison.
fn shown(profile: &Profile) -> String {
    format!("{profile:#?}")
}

fn loaded(path: &Path) -> String {
    shown(&load(path, &options(), &mut |_, _| {}).unwrap())
}

#[test]
fn following_in_pieces_of_any_length_is_the_same_as_one_load() {
    for seed in 1..40 {
        let folder = Folder::new();
        let (path, whole_frames) = (folder.path("a.alloc"), folder.path("whole.alloc"));
        let mut frames = Frames::new(seed);
        let mut numbers = Numbers(seed * 7919);
        let mut dump = header(SESSION);
        let mut ends = vec![dump.len()];
        for _ in 0..numbers.below(12) {
            let events = numbers.below(40);
            dump.extend(frames.frame(events));
            ends.push(dump.len());
        }
        dump.extend(frames.trailer());
        let mut written = ends[0] + numbers.below(20).min((dump.len() - ends[0]) as u64) as usize;
        fs::write(&path, &dump[..written]).unwrap();
        let mut followed = FollowedDump::open(&path, KeepBlocks::AtEnd).unwrap();
        let mut seen = 0;
        while written < dump.len() {
            let piece = (numbers.below(700) as usize).min(dump.len() - written);
            append(&path, &dump[written..written + piece]);
            written += piece;
            seen += followed.read_on().unwrap();
            // A frame that is cut short is neither damage nor read in part.
            let whole = ends.iter().filter(|end| **end <= written).count() - 1;
            if written < dump.len() {
                assert_eq!(seen, whole as u64, "seed {seed}, {written} bytes");
                fs::write(&whole_frames, &dump[..ends[whole]]).unwrap();
                assert_eq!(shown(&followed.profile_of_frames().unwrap()), loaded(&whole_frames));
                assert!(!followed.is_ended());
            }
        }
        assert!(followed.is_ended());
        assert_eq!(shown(&followed.profile_now().unwrap()), loaded(&path));
        assert_eq!(shown(&followed.finish().unwrap()), loaded(&path), "seed {seed}");
    }
}

#[test]
fn a_frame_that_stays_cut_short_is_damage_only_at_the_end() {
    let folder = Folder::new();
    let path = folder.path("a.alloc");
    let mut frames = Frames::new(3);
    let (first, second) = (frames.frame(20), frames.frame(20));
    fs::write(&path, [&header(SESSION)[..], &first, &second[..second.len() - 1]].concat()).unwrap();
    let mut followed = FollowedDump::open(&path, KeepBlocks::AtEnd).unwrap();
    assert_eq!((followed.read_on().unwrap(), followed.read_on().unwrap()), (1, 0));
    assert_eq!(followed.profile_of_frames().unwrap().trust.loss.dropped_bytes, 0);
    let profile = followed.finish().unwrap();
    assert_eq!(profile.trust.loss.dropped_bytes, second.len() as u64 - 1);
    assert_eq!(shown(&profile), loaded(&path));
}

#[test]
fn a_frame_that_was_cut_short_and_truncated_away_is_read_when_it_is_written_again() {
    let folder = Folder::new();
    let path = folder.path("a.alloc");
    let mut frames = Frames::new(4);
    let (first, second) = (frames.frame(20), frames.frame(20));
    let whole = [&header(SESSION)[..], &first].concat();
    fs::write(&path, [&whole[..], &second[..second.len() / 2]].concat()).unwrap();
    let mut followed = FollowedDump::open(&path, KeepBlocks::AtEnd).unwrap();
    assert_eq!(followed.read_on().unwrap(), 1);
    // The disk was full, so the recorder has truncated the first half away.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(whole.len() as u64).unwrap();
    assert_eq!(followed.read_on().unwrap(), 0);
    append(&path, &second);
    assert_eq!(followed.read_on().unwrap(), 1);
    assert_eq!(shown(&followed.finish().unwrap()), loaded(&path));
}

/// Writes the sidecar of a recorder that is filling this frame.
fn write_sidecar(path: &Path, seq: u32, frame: &[u8]) {
    let mut bytes = vec![0; RINGS_START];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &encode_identity(&SESSION));
    let payload = &frame[FRAME_HEADER_LEN..];
    put(PAYLOAD_OFFSET, payload);
    let commit = Commit { len: payload.len() as u64, seq: u64::from(seq), ..Commit::default() };
    for (index, word) in commit.words().into_iter().enumerate() {
        put(COMMIT_OFFSETS[1] + 8 * index, &word.to_le_bytes());
    }
    put(COMMITS_OFFSET, &1u64.to_le_bytes());
    fs::write(sidecar_path(path), bytes).unwrap();
}

#[test]
fn the_rest_in_the_sidecar_is_read_and_not_consumed() {
    let folder = Folder::new();
    let path = folder.path("a.alloc");
    let mut frames = Frames::new(5);
    fs::write(&path, header(SESSION)).unwrap();
    let mut followed = FollowedDump::open(&path, KeepBlocks::AtEnd).unwrap();
    for seq in 0..6 {
        let frame = frames.frame(30);
        write_sidecar(&path, seq, &frame);
        let sidecar = fs::read(sidecar_path(&path)).unwrap();
        let (once, twice) = (followed.profile_now().unwrap(), followed.profile_now().unwrap());
        assert_eq!(once.trust.recovered_bytes, frame.len() as u64);
        assert_eq!((shown(&once), shown(&twice)), (loaded(&path), loaded(&path)));
        assert_eq!(fs::read(sidecar_path(&path)).unwrap(), sidecar);
        // Without the sidecar the events of this frame are not there yet.
        let events = |profile: &Profile| profile.stacks.iter().map(|stats| stats.events()).sum::<u64>();
        assert_eq!(events(&followed.profile_of_frames().unwrap()), 30 * u64::from(seq));
        assert_eq!(events(&once), 30 * u64::from(seq) + 30);
        append(&path, &frame);
    }
    // The last frame is in the dump and still in the sidecar: it counts once.
    assert_eq!(shown(&followed.profile_now().unwrap()), loaded(&path));
    append(&path, &frames.trailer());
    fs::remove_file(sidecar_path(&path)).unwrap();
    assert_eq!(shown(&followed.profile_now().unwrap()), loaded(&path));
    assert!(followed.is_ended());
}

#[test]
fn a_dump_that_shrank_or_was_replaced_is_an_error_of_one_line() {
    let folder = Folder::new();
    let path = folder.path("a.alloc");
    let mut frames = Frames::new(6);
    let dump = [header(SESSION), frames.frame(20), frames.frame(20)].concat();
    let follow = || {
        fs::write(&path, &dump).unwrap();
        let mut followed = FollowedDump::open(&path, KeepBlocks::Nothing).unwrap();
        assert_eq!(followed.read_on().unwrap(), 2);
        followed
    };
    let error_of = |mut followed: FollowedDump| followed.read_on().unwrap_err().to_string();

    let followed = follow();
    fs::write(&path, &dump[..dump.len() - 1]).unwrap();
    assert!(error_of(followed).contains("became shorter"));

    // Another recorder reuses the file, and has already written as many bytes.
    let followed = follow();
    fs::write(&path, [&header([8; 16]), &dump[64..]].concat()).unwrap();
    assert!(error_of(followed).contains("another recording has replaced it"));

    // A new file under the same name.
    let followed = follow();
    fs::write(folder.path("b.alloc"), [&header([8; 16]), &dump[64..]].concat()).unwrap();
    fs::rename(folder.path("b.alloc"), &path).unwrap();
    let error = error_of(followed);
    assert!(error.contains("another recording") && error.lines().count() == 1, "{error}");

    // The same recording, compressed: the opened file stays complete.
    let mut followed = follow();
    fs::write(folder.path("b.alloc"), &dump).unwrap();
    fs::rename(folder.path("b.alloc"), &path).unwrap();
    assert_eq!(followed.read_on().unwrap(), 0);
}

#[test]
fn a_file_that_is_no_dump_cannot_be_followed() {
    let folder = Folder::new();
    let path = folder.path("a.alloc");
    for content in [&b""[..], b"notes", &header(SESSION)[..40]] {
        fs::write(&path, content).unwrap();
        let error = FollowedDump::open(&path, KeepBlocks::Nothing).unwrap_err().to_string();
        assert_eq!(error, load(&path, &options(), &mut |_, _| {}).unwrap_err().to_string());
    }
}
