//! docs/FORMAT.md agrees with the code: its hex examples are the encoder's bytes, and its tables
//! have the code's numbers.

#[cfg(feature = "compression")]
#[path = "../fuzz/harness.rs"]
#[allow(dead_code)]
mod harness;
mod made;

use alloc_dump::exchange;
use alloc_dump::header::Header;
use alloc_dump::layout::{
    CODEC_COLUMNS, CODEC_RAW, CODEC_ZSTD, COLUMNS, FRAME_HEADER_LEN, FRAME_MAGIC, FRAME_RECORDS,
    FRAME_SYMBOLS, FRAME_TRAILER, HEADER_LEN, MAGIC, MAJOR, MAX_COLUMNS_RECORDS, MAX_HEADER_LEN, MAX_PAYLOAD,
    MAX_SYMBOLS_BYTES, MAX_SYMBOLS_LISTED, MAX_TEXT, MINOR, SIDECAR_HEADER_LEN, SIDECAR_MAGIC,
    SIDECAR_MAGIC_1, SIDECAR_SUFFIX, StackId,
};
use alloc_dump::record::{FIRST_COLD_TAG, Process, Record};
use alloc_dump::sidecar;
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::write::{Encoder, seal_trailer};

use made::{one_of_each, payload, read, texts};

#[test]
fn the_example_is_what_the_encoder_writes() {
    let dump = hex_of(&page(), 1);
    assert_eq!(dump, example());
    let outcome = read(dump.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&records()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
    assert!(page().contains(&format!("A whole dump of {} bytes", dump.len())));
}

#[test]
#[cfg(feature = "compression")]
fn the_columns_are_what_the_compressor_writes() {
    use alloc_dump::compress::{LEVEL, compress};
    use alloc_dump::frame::FrameHeader;

    let columns = hex_of(&page(), 2);
    let mut smaller = Vec::new();
    compress(example().as_slice(), &mut smaller, LEVEL).unwrap();
    let header = FrameHeader::decode(&smaller[HEADER_LEN..]).unwrap();
    let payload = &smaller[HEADER_LEN + FRAME_HEADER_LEN..][..header.len as usize];
    assert_eq!(columns, zstd::bulk::decompress(payload, header.decoded_len as usize).unwrap());
    assert_eq!(read(smaller.as_slice()).unwrap().records, texts(&records()));
    assert!(page().contains(&format!("before Zstandard: {} bytes", columns.len())));
    // A writer without a compressor stores the columns as they are.
    assert_eq!(read(harness::one_columns_frame(&columns).as_slice()).unwrap().records, texts(&records()));
}

#[test]
fn every_record_stands_in_the_tables_under_its_tag() {
    let page = page();
    for record in one_of_each() {
        let tag = payload(&[record])[0];
        let shown = format!("{record:?}");
        let name = shown.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        let row = page.lines().find(|line| line.starts_with(&format!("| 0x{tag:02X} | {name}")));
        let row = row.unwrap_or_else(|| panic!("no row for 0x{tag:02X} {name}"));
        // A record without a field in the table consists of its tag alone.
        assert_eq!(row.ends_with("| none |"), payload(&[record]).len() == 1, "{row}");
    }
    let tags = page.lines().filter(|line| is_tag_row(line)).count();
    let mut known: Vec<u8> = one_of_each().iter().map(|record| payload(&[*record])[0]).collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(tags, known.len(), "a row for a record that no test makes");
    assert_eq!(FIRST_COLD_TAG, 0x40);
}

#[test]
fn the_page_states_the_constants_of_the_code() {
    // The text may be wrapped anywhere.
    let page = page().split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |text: &str| assert!(page.contains(text), "docs/FORMAT.md does not say {text:?}");
    says(&format!("# The dump format, version {MAJOR}.{MINOR}"));
    says(&format!("| 0 | 8 | magic: `{}`", hex(&MAGIC)));
    says(&format!("| 0 | 8 | magic: `{}`", hex(&SIDECAR_MAGIC)));
    says(&format!("| 0 | 4 | frame magic: `{}`", hex(&FRAME_MAGIC)));
    says(&format!("length of the file header, {HEADER_LEN} in this version"));
    says(&format!("below {HEADER_LEN} or above {MAX_HEADER_LEN} is"));
    says(&format!("A frame is a header of {FRAME_HEADER_LEN} bytes"));
    says(&format!("`x.alloc{SIDECAR_SUFFIX}`"));
    says(&format!("At most {} bytes: a writer cuts", grouped(MAX_TEXT)));
    says(&format!("at most {} (16 MiB)", grouped(MAX_PAYLOAD)));
    for (offset, meaning) in [
        (sidecar::STATE_OFFSET, "state: 0"),
        (sidecar::PID_OFFSET, "process id"),
        (sidecar::COMMITS_OFFSET, "commits:"),
        (sidecar::LOST_OFFSET, "lost events"),
        (sidecar::RING_COUNT_OFFSET, "rings:"),
        (sidecar::NODE_COUNT_OFFSET, "nodes:"),
        (sidecar::PARTIAL_OFFSET, "partial:"),
        (sidecar::UNPROTECTED_OFFSET, "unprotected:"),
        (sidecar::PARTLY_VERIFIED_OFFSET, "partly verified:"),
    ] {
        says(&format!("| {offset} | 8 | {meaning}"));
    }
    says(&format!("| {} | {} | the first commit", sidecar::COMMIT_OFFSETS[0], 8 * sidecar::COMMIT_WORDS));
    says(&format!("| {} | {} | the second commit", sidecar::COMMIT_OFFSETS[1], 8 * sidecar::COMMIT_WORDS));
    says(&format!("| {SIDECAR_HEADER_LEN} | {FRAME_HEADER_LEN} | room for the frame header"));
    says(&format!(
        "| {} | {} | the payload",
        sidecar::PAYLOAD_OFFSET,
        sidecar::FRAME_CAPACITY - FRAME_HEADER_LEN
    ));
    says(&format!(
        "| {} | {} | {} nodes",
        sidecar::NODE_RING_OFFSET,
        sidecar::NODE_RING_CAPACITY * sidecar::NODE_LEN,
        sidecar::NODE_RING_CAPACITY
    ));
    let (header, entry) = (sidecar::RING_HEADER_LEN, alloc_dump::thread_ring::ENTRY_LEN);
    let ring = format!("{header} + {entry} * *room*");
    says(&format!("| {} + ({ring}) * *i* | {ring} | ring *i*", sidecar::RINGS_START));
    assert_eq!(sidecar::RING_LEN, header + entry * sidecar::RING_CAPACITY);
    says(&format!("a power of two, at most {}:", sidecar::RING_CAPACITY));
    says(&format!("begins with `{}`", hex(&SIDECAR_MAGIC_1)));
    says(&format!("| {} | 16 | taken:", sidecar::RING_TAKEN_OFFSET));
    says(&format!("| {} | 16 | threads:", sidecar::RING_THREADS_OFFSET));
    says(&format!("| {header} | {entry} * *room* | *room* entries of {entry} bytes"));
    says(&format!("| {} | root:", StackId::ROOT.0));
    says(&format!("| {} | truncated:", StackId::TRUNCATED.0));
    says(&format!("| {} | none:", StackId::NONE.0));
    says(&format!("| {} ... | defined by Node records |", StackId::FIRST.0));
    says(&format!("| {CODEC_RAW} | stored as it is |"));
    says(&format!("| {CODEC_COLUMNS} | records in [columns]"));
    says(&format!("| {CODEC_ZSTD} | one Zstandard frame"));
    says(&format!("| {FRAME_RECORDS} | [records](#records) |"));
    says(&format!("| {FRAME_TRAILER} | the [trailer](#trailer)"));
    says(&format!("| {FRAME_SYMBOLS} | [symbols](#symbols)"));
    says(&format!("at most {} bytes once decoded", grouped(MAX_SYMBOLS_BYTES)));
    says(&format!("at most {} functions", grouped(MAX_SYMBOLS_LISTED)));
    says(&format!("begins with {COLUMNS} varints"));
    says(&format!("| {} | cold | cold records", COLUMNS - 1));
    says(&format!("at most {} operations", grouped(MAX_COLUMNS_RECORDS)));
    for (offset, meaning) in [
        (exchange::SERVER_OFFSET, "reader | the process id of a reader"),
        (exchange::REQUESTS_OFFSET, "reader | how many requests"),
        (exchange::REQUESTER_OFFSET, "reader | the process id of the last requester"),
        (exchange::COPIES_OFFSET, "writer | how many copies"),
        (exchange::COPY_ERRNO_OFFSET, "writer | the error number"),
        (exchange::COPY_PID_OFFSET, "writer | the process id of the last copy"),
        (exchange::SNAPSHOT_ID_OFFSET, "writer | the id of its Snapshot record"),
        (exchange::REPORT_ADDRESS_OFFSET, "writer | the address of its report"),
        (exchange::RELEASED_OFFSET, "reader | how many copies are not needed"),
        (exchange::HEARTBEAT_OFFSET, "reader | a number that changes about every second"),
        (exchange::SERVED_OFFSET, "writer | how many requests"),
        (exchange::BY_PROGRAM_OFFSET, "writer | 1 if the program has asked"),
        (exchange::LOOK_OFFSET, "writer | a number that changes before"),
        (exchange::LOOKED_OFFSET, "reader | the same number"),
        (exchange::AT_END_OFFSET, "writer | 1 if the program is ending"),
        (exchange::NEEDS_MORE_OFFSET, "both | 1, set by the writer"),
        (exchange::NAME_OFFSET, "writer | the name of the last copy"),
        (exchange::BUSY_REQUEST_OFFSET, "writer | the last request that was refused"),
        (exchange::REQUEST_NAME_OFFSET, "reader | the name that is asked for"),
    ] {
        says(&format!("| {offset} | {meaning}"));
    }
    let end_of_names = exchange::REQUEST_NAME_OFFSET + 8 * exchange::NAME_WORDS;
    let (first, len) = (exchange::SERVER_OFFSET, end_of_names - exchange::SERVER_OFFSET);
    says(&format!("| {first} | {len} | requests for [copies"));
    says(&format!("its length in bytes, then {} bytes", exchange::MAX_NAME));
    let magic = exchange::REPORT_MAGIC.to_le_bytes();
    says(&format!("the magic `{}` and LF", str::from_utf8(&magic[..7]).unwrap()));
    says(&format!("{} words with the magic", exchange::REPORT_HEAD_WORDS));
    says(&format!("then {} words for each thread", exchange::REPORT_THREAD_WORDS));
    says(&format!("and {} words for each mapping", exchange::REPORT_MAPPING_WORDS));
    // The usual test value for implementations of CRC-32.
    says(&format!("is {:#010X}", crc32fast::hash(b"123456789")).replace("0X", "0x"));
}

/// Returns whether a line is a row of the tables of records, such as `| 0x04 | Alloc | ... |`. The
/// tables of columns have ranges and bits in the first cell.
fn is_tag_row(line: &str) -> bool {
    let mut cells = line.split('|').map(str::trim).skip(1);
    let tag = cells.next().is_some_and(|cell| cell.len() == 4 && cell.starts_with("0x"));
    tag && cells.next().is_some_and(|name| name.starts_with(char::is_uppercase)) && cells.count() == 2
}

/// Returns the dump that the page shows, made of the records that its last column names.
fn example() -> Vec<u8> {
    let session = std::array::from_fn(|index| index as u8);
    let header = Header { session, created_unix_ns: 1_700_000_000_000_000_000 };
    let mut buffer = [0; 256];
    let mut encoder = Encoder::new();
    for record in records() {
        encoder.push(&mut buffer, &record).unwrap();
    }
    let len = encoder.seal(&mut buffer, 0);
    let mut dump = [&header.encode()[..], &buffer[..len]].concat();
    let len = seal_trailer(&mut buffer, 1, &trailer()).unwrap();
    dump.extend_from_slice(&buffer[..len]);
    dump
}

fn records() -> Vec<Record<'static>> {
    vec![
        Record::Process(Process {
            pid: 42,
            page_size: 4096,
            from_first_event: true,
            exe: b"/a",
            args: b"a\0",
            cwd: b"/",
            run: b"",
            debug_assertions: false,
        }),
        Record::Thread { id: 1 },
        Record::Time { us: 5 },
        Record::Node { id: StackId(3), parent: StackId::ROOT, pc: 0x1234 },
        Record::Alloc { addr: 0x1000, size: 24, stack: StackId(3), zeroed: false },
        Record::Time { us: 7 },
        Record::Realloc { old: 0x1000, old_size: None, new: 0xF00, size: 300, stack: StackId(3) },
        Record::Dealloc { addr: 0xF00, size: None, stack: StackId::ROOT },
    ]
}

fn trailer() -> Trailer {
    let totals = Totals {
        allocations: 1,
        deallocations: 1,
        reallocations: 1,
        allocated_bytes: 24 + 300,
        freed_bytes: 24 + 300,
        lost_events: 0,
        truncated_stacks: 0,
    };
    Trailer { end: EndReason::Finished, duration_us: 9, totals: Some(totals) }
}

/// Returns the bytes of a hex block of the page. Each line has an offset, bytes of two digits, two
/// spaces and the meaning. The offsets must add up.
fn hex_of(page: &str, number: usize) -> Vec<u8> {
    let block = page.split("```hex\n").nth(number).unwrap().split("```").next().unwrap();
    let mut bytes = Vec::new();
    for line in block.lines() {
        let (offset, rest) = line.split_once("  ").unwrap();
        assert_eq!(usize::from_str_radix(offset, 16), Ok(bytes.len()), "{line}");
        let digits = rest.split("  ").next().unwrap();
        bytes.extend(digits.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    bytes
}

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FORMAT.md");
    std::fs::read_to_string(path).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
