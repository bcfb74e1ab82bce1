//! Checks that must hold for any bytes that are read as a snapshot. The fuzz target uses them, and
//! so does a test of the package, on inputs from a fixed generator.

use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{FRAME_HEADER_LEN, HEADER_LEN};
use alloc_dump::snapshot::layout::{FRAME_IMAGE, MAX_ENTRIES, MAX_IMAGES};
use alloc_dump::snapshot::{SnapshotContents, SnapshotHeader, SnapshotWriter, visit_words};

/// Reads the bytes as a snapshot, as one with good checksums, and as the payload of one frame of
/// each kind.
pub(crate) fn snapshot(bytes: &[u8]) {
    check(bytes);
    check(&repaired(bytes));
    for kind in 1..=8 {
        let image = [0, 5, 8];
        let frames = [FrameHeader::raw(FRAME_IMAGE, 0, &image), FrameHeader::raw(kind, 1, bytes)];
        let [image_frame, frame] = frames.map(|frame| frame.encode());
        check(&[&header().encode()[..], &image_frame, &image, &frame, bytes].concat());
    }
}

/// Checks what was read: it is in order and within its bounds, and the writer makes the same again.
fn check(bytes: &[u8]) {
    let Ok(contents) = SnapshotContents::read(bytes) else {
        assert!(visit_words(bytes, 0, |_, _| ()).is_err());
        return;
    };
    assert!(contents.images.len() <= MAX_IMAGES);
    let mut writer = SnapshotWriter::new(Vec::new(), &contents.header, &contents.name).unwrap();
    let mut is_whole = contents.complete;
    for (index, image) in contents.images.iter().enumerate() {
        assert!(image.regions.len() + image.threads.len() + image.unread.len() <= 3 * MAX_ENTRIES);
        writer.begin_image(&image.head).unwrap();
        image.regions.iter().for_each(|region| writer.push_region(region).unwrap());
        image.threads.iter().for_each(|thread| writer.push_thread(thread).unwrap());
        image.unread.iter().for_each(|range| writer.push_unread(range.0, range.1).unwrap());
        let mut words = 0;
        is_whole &= visit_words(bytes, index, |place, value| {
            writer.push_word(place, value).unwrap();
            words += 1;
        })
        .unwrap();
        // Words that are only counted may prove to be malformed when they are read.
        assert!(words <= image.words || !contents.complete);
    }
    let again = writer.finish().unwrap();
    let mut read = SnapshotContents::read(again.as_slice()).unwrap();
    assert!(read.complete && read.images.iter().all(|image| image.complete));
    if is_whole {
        assert_eq!(read, contents);
    }
    for (read, image) in read.images.iter_mut().zip(&contents.images) {
        (read.words, read.complete) = (image.words, image.complete);
    }
    assert_eq!(read.images, contents.images);
}

/// Repairs the file header and the checksums that a mutation breaks.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut out = header().encode().to_vec();
    let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
    let mut seq = 0;
    while let Some((head, behind)) = rest.split_at_checked(FRAME_HEADER_LEN) {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (payload, behind) = behind.split_at((word(12) as usize).min(behind.len()));
        let raw = FrameHeader::raw(head[4], seq, payload);
        let frame = FrameHeader { codec: head[5], decoded_len: word(16) & 0x00FF_FFFF, ..raw };
        out.extend_from_slice(&frame.encode());
        out.extend_from_slice(payload);
        (rest, seq) = (behind, seq + 1);
    }
    out.extend_from_slice(rest);
    out
}

fn header() -> SnapshotHeader {
    SnapshotHeader { session: *b"session of tests", snapshot: 3, page_size: 4096, time_us: 1 << 40, pid: 42 }
}
