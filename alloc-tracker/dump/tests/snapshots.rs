//! A snapshot comes back as it was written. Damage never makes words up, and never goes unnoticed.
#![cfg(feature = "compression")]

mod made;
#[path = "../fuzz/snapshot_harness.rs"]
mod snapshot_harness;

use std::alloc::System;
use std::sync::Mutex;

use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{FRAME_HEADER_LEN, HEADER_LEN};
use alloc_dump::snapshot::layout::{
    FRAME_END, FRAME_IMAGE, FRAME_NAME, FRAME_REGIONS, FRAME_THREADS, FRAME_UNREAD, FRAME_WORDS, MAX_ENTRIES,
    MAX_IMAGES, MAX_REGISTERS, MAX_TABLE_BYTES, SNAPSHOT_MAGIC, SNAPSHOT_MAJOR, SNAPSHOT_MINOR,
    WORDS_IN_FRAME,
};
use alloc_dump::snapshot::{
    ImageHead, MemoryRegion, SnapshotContents, SnapshotError, SnapshotHeader, SnapshotThread, SnapshotWriter,
    visit_words,
};
use alloc_oracle::Counting;
use proptest::prelude::*;

use made::{Random, SESSION};

#[global_allocator]
static ALLOC: Counting<System> = Counting::new(System);

/// What an image begins with.
const HEAD: ImageHead = ImageHead { time_us: 0, step: 8, misses_tracker_mappings: false };

/// The tests of this program run one after the other, because one of them counts allocations.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_snapshot_comes_back() {
    let _alone = ALONE.lock();
    let images = [image(1, 300), image(2, 7)];
    let file = written(&images);
    let contents = SnapshotContents::read(file.as_slice()).unwrap();
    assert_eq!((contents.header, contents.name.as_slice()), (header(), &b"warm"[..]));
    assert!(contents.complete && contents.images.len() == 2);
    assert!(contents.images.iter().zip(&images).all(|(read, made)| made.is_read_as(read)));
    for (index, image) in images.iter().enumerate() {
        assert_eq!(words_of(&file, index), (image.words.clone(), true));
    }
    assert_eq!(words_of(&file, 2), (Vec::new(), false));
}

#[test]
fn more_words_than_a_frame_holds_come_back() {
    let _alone = ALONE.lock();
    let made = image(3, 2 * WORDS_IN_FRAME + 5);
    let file = written(std::slice::from_ref(&made));
    assert_eq!(words_of(&file, 0), (made.words, true));
}

#[test]
fn a_word_allocates_nothing() {
    let _alone = ALONE.lock();
    let made = image(4, 3 * WORDS_IN_FRAME);
    let writes = || {
        let mut writer = SnapshotWriter::new(std::io::sink(), &header(), b"").unwrap();
        writer.begin_image(&made.head).unwrap();
        let before = alloc_oracle::snapshot();
        made.words.iter().for_each(|&(place, value)| writer.push_word(place, value).unwrap());
        let after = alloc_oracle::snapshot();
        (after.allocations - before.allocations) + (after.reallocations - before.reallocations)
    };
    // The thread of the test harness may allocate at the same time, but not in every round.
    assert_eq!((0..5).map(|_| writes()).min(), Some(0));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let _alone = ALONE.lock();
    let mut writer = SnapshotWriter::new(Vec::new(), &header(), b"").unwrap();
    assert!(writer.begin_image(&ImageHead { step: 3, ..HEAD }).is_err());
    writer.begin_image(&HEAD).unwrap();
    let region = |start, end| MemoryRegion { start, end, ..MemoryRegion::default() };
    writer.push_region(&region(16, 32)).unwrap();
    assert!(writer.push_region(&region(24, 48)).is_err());
    assert!(writer.push_region(&region(48, 48)).is_err());
    assert!(writer.push_unread(8, 8).is_err());
    writer.push_word(16, 1).unwrap();
    assert!(writer.push_word(16, 1).is_err());
    assert!(writer.push_word(20, 1).is_err());
    for _ in 1..MAX_IMAGES {
        writer.begin_image(&HEAD).unwrap();
    }
    assert!(writer.begin_image(&HEAD).is_err());
    assert!(SnapshotContents::read(writer.finish().unwrap().as_slice()).unwrap().complete);
}

#[test]
fn a_file_that_is_cut_short_is_not_complete() {
    let _alone = ALONE.lock();
    let images = [image(5, 40), image(6, 40)];
    let file = written(&images);
    for len in 0..file.len() {
        let cut = &file[..len];
        let contents = match SnapshotContents::read(cut) {
            Err(SnapshotError::NotASnapshot) => {
                assert_eq!(len, 0);
                continue;
            }
            Err(SnapshotError::DamagedHeader) => {
                assert!(len < HEADER_LEN);
                continue;
            }
            other => other.unwrap(),
        };
        assert!(!contents.complete);
        for (index, image) in contents.images.iter().enumerate() {
            let (words, is_whole) = words_of(cut, index);
            assert!(images[index].words.starts_with(&words));
            assert_eq!(is_whole, image.complete);
            assert!(!is_whole || images[index].is_read_as(image));
        }
    }
}

#[test]
fn a_flipped_bit_costs_what_follows_and_is_noticed() {
    let _alone = ALONE.lock();
    let images = [image(7, 60)];
    let file = written(&images);
    let mut random = Random(8);
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << random.below(8);
        let Ok(contents) = SnapshotContents::read(damaged.as_slice()) else {
            assert!(at < HEADER_LEN);
            continue;
        };
        // Nothing checks bytes that are ignored: there are none but zeros under a checksum.
        assert!(!contents.complete, "byte {at}");
        let (words, is_whole) = words_of(&damaged, 0);
        assert!(images[0].words.starts_with(&words));
        // Only the end frame is behind the words.
        assert!(!is_whole);
    }
}

#[test]
fn unknown_kinds_and_longer_headers_are_skipped_and_newer_majors_refused() {
    let _alone = ALONE.lock();
    let file = written(&[image(9, 10)]);
    // A header of 72 bytes, of a later minor version.
    let mut longer = file[..HEADER_LEN].to_vec();
    (longer[10], longer[12]) = (9, 72);
    seal_header(&mut longer);
    longer.extend_from_slice(&[0xEE; 8]);
    // A frame of an unknown kind before the others, which get the next numbers.
    longer.extend_from_slice(&FrameHeader::raw(99, 0, b"new").encode());
    longer.extend_from_slice(b"new");
    let mut rest = &file[HEADER_LEN..];
    while !rest.is_empty() {
        let frame = FrameHeader::decode(rest).unwrap();
        let len = FRAME_HEADER_LEN + frame.len as usize;
        longer.extend_from_slice(&FrameHeader { seq: frame.seq + 1, ..frame }.encode());
        longer.extend_from_slice(&rest[FRAME_HEADER_LEN..len]);
        rest = &rest[len..];
    }
    let expected = SnapshotContents::read(file.as_slice()).unwrap();
    assert_eq!(SnapshotContents::read(longer.as_slice()).unwrap(), expected);

    let mut newer = file;
    newer[8] = 2;
    seal_header(&mut newer);
    let error = SnapshotContents::read(newer.as_slice()).unwrap_err();
    assert!(matches!(error, SnapshotError::NewerVersion { major: 2, minor: 0 }));
}

#[test]
fn mutated_snapshots_break_nothing() {
    let _alone = ALONE.lock();
    let seeds =
        [written(&[image(10, 30), image(11, 3)]), written(&[]), vec![0, 1, 0x80, 3, 5, 2, 7, 1, 1, 1]];
    let mut random = Random(12);
    seeds.iter().for_each(|seed| snapshot_harness::snapshot(seed));
    for round in 0..1500 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => bytes.insert(at, random.next() as u8 & 0x81),
                3 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        snapshot_harness::snapshot(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_words_come_back(
        places in proptest::collection::btree_set(any::<u64>(), 0..200),
        values in proptest::collection::vec(any::<u64>(), 200),
        shift in 0u32..=3,
    ) {
        let _alone = ALONE.lock();
        let mut words: Vec<(u64, u64)> =
            places.iter().map(|place| place >> shift << shift).zip(values).collect();
        words.dedup_by_key(|word| word.0);
        let head = ImageHead { step: 1 << shift, ..HEAD };
        let made = MadeImage { head, regions: vec![], threads: vec![], unread: vec![], words };
        let file = written(std::slice::from_ref(&made));
        prop_assert_eq!(words_of(&file, 0), (made.words, true));
    }
}

#[test]
fn the_page_states_the_constants_of_snapshots() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FORMAT.md");
    let page = std::fs::read_to_string(path).unwrap();
    let page = page.split("\n## Snapshots\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |text: &str| assert!(page.contains(text), "docs/FORMAT.md does not say {text:?}");
    let hex = SNAPSHOT_MAGIC.map(|byte| format!("{byte:02X}")).join(" ");
    says(&format!("| 0 | 8 | magic: `{hex}`"));
    says(&format!("| 8 | 2 | major version: {SNAPSHOT_MAJOR}"));
    says(&format!("| 10 | 2 | minor version: {SNAPSHOT_MINOR}"));
    for (kind, name) in [
        (FRAME_NAME, "name"),
        (FRAME_IMAGE, "an image begins"),
        (FRAME_REGIONS, "regions"),
        (FRAME_THREADS, "threads"),
        (FRAME_WORDS, "words"),
        (FRAME_UNREAD, "unread ranges"),
        (FRAME_END, "end"),
    ] {
        says(&format!("| {kind} | {name}"));
    }
    says(&format!("at most {MAX_IMAGES} images"));
    says(&format!("at most {MAX_REGISTERS} registers"));
    assert_eq!((MAX_ENTRIES, MAX_TABLE_BYTES), (1_048_576, 67_108_864));
    says("1,048,576 regions, as many threads and as many unread ranges");
    says("67,108,864 bytes once decoded");
}

/// An image to write.
struct MadeImage {
    head: ImageHead,
    regions: Vec<MemoryRegion>,
    threads: Vec<SnapshotThread>,
    unread: Vec<(u64, u64)>,
    words: Vec<(u64, u64)>,
}

impl MadeImage {
    fn is_read_as(&self, read: &alloc_dump::snapshot::ImageContents) -> bool {
        read.head == self.head
            && read.regions == self.regions
            && read.threads == self.threads
            && read.unread == self.unread
            && read.words == self.words.len() as u64
            && read.complete
    }
}

fn image(seed: u64, words: usize) -> MadeImage {
    let mut random = Random(seed);
    let regions = (0..20u64).map(|index| MemoryRegion {
        start: 0x5000_0000_0000 + index * 0x10_0000,
        end: 0x5000_0000_0000 + index * 0x10_0000 + 0x8000,
        readable: true,
        writable: index % 2 == 0,
        executable: index % 3 == 0,
        shared: index % 5 == 0,
        of_tracker: index % 7 == 0,
        offset: index << 12,
        inode: index,
        name: format!("/lib/{index}.so").into_bytes(),
    });
    let threads = (0..3u32).map(|index| SnapshotThread {
        tid: 100 + index,
        name: b"worker".to_vec(),
        stack_pointer: (index > 0).then_some(0x7000_0000_0000 + u64::from(index)),
        thread_pointer: u64::from(index) << 40,
        registers: (index > 1).then(|| vec![0, u64::MAX, 7]),
    });
    let mut place = 0x5000_0000_0000;
    let words = (0..words).map(|_| {
        place += 8 * (1 + random.below(5) as u64);
        (place, 0x5000_0000_0000 + (random.next() >> 40))
    });
    MadeImage {
        head: ImageHead { time_us: seed, misses_tracker_mappings: seed.is_multiple_of(2), ..HEAD },
        regions: regions.collect(),
        threads: threads.collect(),
        unread: vec![(0x6000, 0x7000)],
        words: words.collect(),
    }
}

fn written(images: &[MadeImage]) -> Vec<u8> {
    let mut writer = SnapshotWriter::new(Vec::new(), &header(), b"warm").unwrap();
    for image in images {
        writer.begin_image(&image.head).unwrap();
        image.regions.iter().for_each(|region| writer.push_region(region).unwrap());
        image.threads.iter().for_each(|thread| writer.push_thread(thread).unwrap());
        image.unread.iter().for_each(|range| writer.push_unread(range.0, range.1).unwrap());
        image.words.iter().for_each(|word| writer.push_word(word.0, word.1).unwrap());
    }
    writer.finish().unwrap()
}

fn words_of(file: &[u8], image: usize) -> (Vec<(u64, u64)>, bool) {
    let mut words = Vec::new();
    let is_whole = visit_words(file, image, |place, value| words.push((place, value))).unwrap();
    (words, is_whole)
}

fn header() -> SnapshotHeader {
    SnapshotHeader { session: SESSION, snapshot: 9, page_size: 4096, time_us: 1 << 33, pid: 4242 }
}

fn seal_header(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
}
