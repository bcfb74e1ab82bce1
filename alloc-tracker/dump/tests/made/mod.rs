//! Dumps made for tests, and what a reader finds in them. Each test program uses a part of this
//! module.
#![allow(dead_code)]

pub(crate) mod drafts;

use std::io::Read;

use alloc_dump::code::CodeIdentity;
use alloc_dump::frame::FrameHeader;
use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, StackId};
use alloc_dump::read::{Damage, ReadError, Reader};
use alloc_dump::record::{
    AllocCall, Function, Installation, LINE_AGAIN, Layout, LayoutOccasion, MemoryLimit, MemoryLimitKind,
    Module, PageFaults, Process, Record, RecordingLimit, Region, RegionFlags, ResidentBytes, Sample,
    SlowReason,
};
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::write::{Encoder, seal_trailer};

pub(crate) const SESSION: [u8; 16] = *b"session of tests";

/// Returns records of every kind, in an order that a writer could have made.
pub(crate) fn one_of_each() -> Vec<Record<'static>> {
    let mut records = one_of_each_1_5();
    let flags = RegionFlags::READ.0 | RegionFlags::WRITE.0 | RegionFlags::TRACKER.0;
    records.extend([
        Record::MemoryLimit(MemoryLimit {
            kind: MemoryLimitKind::MachineSwap,
            most: 2 << 30,
            used: Some(5 << 20),
        }),
        Record::SwapTraffic { read: 4096, written: 3 << 20 },
        Record::Region(Region {
            start: 0x7F00_0000_0000,
            end: 0x7F00_0010_0000,
            flags: RegionFlags(flags),
            offset: 0x2000,
            inode: 77,
            resident: 300 << 10,
            dirty: 200 << 10,
            swapped: 4096,
            anonymous: 100 << 10,
            name: b"/lib/libdemo.so",
        }),
        Record::Layout(Layout { occasion: LayoutOccasion::Growth, regions: 1 }),
        Record::ThreadStack { id: 1, address: 0x7FFF_0000_1234 },
        Record::AllocFailed { call: AllocCall::Realloc, size: 1 << 40, align: 64, stack: StackId(4) },
        Record::Alignment { bytes: 32 },
        Record::Resident { released: 8192, allocated: 1 << 20 },
    ]);
    records
}

/// Returns records of every kind that version 1.5 has.
pub(crate) fn one_of_each_1_5() -> Vec<Record<'static>> {
    let mut records = one_of_each_1_4();
    records.extend([Record::Snapshot { id: 2, name: b"at noon", copying_us: 1234 }]);
    records
}

/// Returns records of every kind that version 1.4 has.
pub(crate) fn one_of_each_1_4() -> Vec<Record<'static>> {
    let mut records = one_of_each_up_to_snapshots();
    records.extend([
        Record::MemoryLimit(MemoryLimit { kind: MemoryLimitKind::AddressSpace, most: 8 << 30, used: None }),
        Record::MemoryLimit(MemoryLimit { kind: MemoryLimitKind::ControlGroup, most: 512 << 20, used: None }),
    ]);
    records
}

/// Returns records of every kind that the first version 1.4 had.
pub(crate) fn one_of_each_up_to_snapshots() -> Vec<Record<'static>> {
    let mut records = one_of_each_up_to_1_3();
    records.extend([Record::Snapshot { id: 1, name: b"after the warm-up", copying_us: 0 }]);
    records
}

/// Returns records of every kind that version 1.3 has, in an order that a writer could have made.
pub(crate) fn one_of_each_up_to_1_3() -> Vec<Record<'static>> {
    let mut records = one_of_each_up_to_1_2();
    records.extend([
        Record::Label { name: b"host", value: b"build-7" },
        Record::LimitReached(RecordingLimit::DumpSize { bytes: 100 << 20 }),
        Record::LimitReached(RecordingLimit::Duration { us: 30_000_000 }),
    ]);
    records
}

/// Returns records of every kind that version 1.2 has, in an order that a writer could have made.
pub(crate) fn one_of_each_up_to_1_2() -> Vec<Record<'static>> {
    let mut records = one_of_each_1_0();
    records.extend([
        Record::Installation(Installation::Partial),
        Record::ModuleCode {
            id: 1,
            code: CodeIdentity { code_bytes: 0x8_1234, crc: 0xFEDC_BA98, file_bytes: 5 << 20 },
        },
        Record::Slow(SlowReason::NoUnwindTables { module: 1 }),
        Record::Slow(SlowReason::NoLoaderLookup),
        Record::Slow(SlowReason::NoMembarrier),
        Record::Slow(SlowReason::PortableWalks { stacks: 3 << 40 }),
        Record::PartlyVerified { stacks: 70_000 },
    ]);
    records
}

/// Returns records of every kind that version 1.0 has, in an order that a writer could have made.
pub(crate) fn one_of_each_1_0() -> Vec<Record<'static>> {
    let stack = StackId::FIRST;
    vec![
        Record::Time { us: 1 },
        Record::Process(Process {
            pid: 4242,
            page_size: 4096,
            from_first_event: true,
            exe: b"/bin/demo",
            args: b"demo\0--fast\0",
            cwd: b"/home",
            run: b"r1",
            debug_assertions: false,
        }),
        Record::Module(Module {
            id: 1,
            start: 0x5555_0000_0000,
            end: 0x5555_0010_0000,
            bias: 0x5555_0000_0000,
            build_id: &[0xAB; 20],
            path: b"/bin/demo",
        }),
        Record::Sample(Sample {
            vsz: 9 << 20,
            rss: 3 << 20,
            swap: 0,
            minor_faults: 77,
            major_faults: 1,
            tracker_bytes: 1 << 20,
            peak_vsz: 1 << 20,
            peak_rss: 1 << 20,
        }),
        Record::ThreadStart { id: 1, os_tid: 4242 },
        Record::ThreadName { id: 1, name: b"main" },
        Record::Thread { id: 1 },
        Record::Node { id: stack, parent: StackId::ROOT, pc: 0x5555_0000_1234 },
        Record::Node { id: StackId(4), parent: stack, pc: 0x5555_0000_0234 },
        Record::Alloc { addr: 0x7000, size: 24, stack, zeroed: false },
        Record::Alloc { addr: 0x8000, size: 1 << 20, stack: StackId(4), zeroed: true },
        Record::Time { us: 300 },
        Record::Realloc { old: 0x7000, old_size: None, new: 0x9000, size: 48, stack },
        Record::Realloc { old: 0x9000, old_size: Some(48), new: 0x9000, size: 8, stack: StackId::NONE },
        Record::ReallocBegin { old: 0x9000, old_size: None },
        Record::Thread { id: 2 },
        Record::Alloc { addr: 0x9000, size: 5, stack: StackId::TRUNCATED, zeroed: false },
        Record::Thread { id: 1 },
        Record::ReallocEnd { new: 0xA000, size: 3000, stack: StackId(4) },
        Record::ReallocBegin { old: 0xA000, old_size: Some(3000) },
        Record::ReallocFailed,
        Record::Dealloc { addr: 0x8000, size: None, stack: StackId(4) },
        Record::Dealloc { addr: 0x9000, size: Some(5), stack },
        Record::Lost { events: 9 },
        Record::Checked { stacks: 500, different: 1 },
        Record::Function(Function {
            id: 1,
            name: b"demo::parse",
            file: b"src/main.rs",
            start_line: 10,
            end_line: 20,
        }),
        Record::Enter { function: 1, activation: 1 << 33 },
        Record::Line { activation: 1 << 33, line: 11 },
        Record::Usage {
            rss: ResidentBytes::new(3 << 20),
            minor_faults: PageFaults::new(80),
            major_faults: PageFaults::new(1),
        },
        Record::Enter { function: 1, activation: 0 },
        Record::Line { activation: 0, line: 12 | LINE_AGAIN },
        Record::Leave { activation: 0, ended: false },
        Record::Leave { activation: 1 << 33, ended: true },
        Record::MarkName { id: 1, name: b"parsed" },
        Record::Mark { id: 1 },
        Record::ThreadEnd { id: 1 },
        Record::ModuleEnd { id: 1 },
    ]
}

pub(crate) fn trailer() -> Trailer {
    let totals = Totals {
        allocations: 3,
        deallocations: 2,
        reallocations: 3,
        allocated_bytes: (24 + (1 << 20) + 5) + (48 + 8 + 3000),
        freed_bytes: ((1 << 20) + 5) + (24 + 48 + 8),
        lost_events: 9,
        truncated_stacks: 1,
    };
    Trailer { end: EndReason::Finished, duration_us: 1234, totals: Some(totals) }
}

/// A dump in memory.
#[derive(Clone, Debug)]
pub(crate) struct Dump {
    pub(crate) bytes: Vec<u8>,
    /// Offset of each frame in bytes.
    pub(crate) frames: Vec<usize>,
    /// For each frame, how many records the dump has up to the end of that frame.
    pub(crate) records: Vec<usize>,
}

impl Dump {
    pub(crate) fn new() -> Dump {
        let header = Header { session: SESSION, created_unix_ns: 1_700_000_000_000_000_000 };
        Dump { bytes: header.encode().to_vec(), frames: Vec::new(), records: Vec::new() }
    }

    /// Returns a dump of these records without a trailer, in as many frames as a buffer of this
    /// size needs.
    pub(crate) fn of(records: &[Record<'_>], buffer_len: usize) -> Dump {
        let mut dump = Dump::new();
        let mut buffer = vec![0xEE; buffer_len];
        let mut encoder = Encoder::new();
        for (index, record) in records.iter().enumerate() {
            if encoder.push(&mut buffer, record).is_err() {
                assert!(!encoder.is_empty(), "{record:?} never fits {buffer_len} bytes");
                dump.seal(&mut encoder, &mut buffer, index);
                encoder.push(&mut buffer, record).unwrap();
            }
        }
        dump.seal(&mut encoder, &mut buffer, records.len());
        dump
    }

    /// Returns a whole dump of several small frames and a trailer. The tests of damage start from
    /// it.
    pub(crate) fn small() -> Dump {
        Dump::of(&one_of_each(), FRAME_HEADER_LEN + 96).with_trailer(&trailer())
    }

    pub(crate) fn with_trailer(mut self, trailer: &Trailer) -> Dump {
        let mut buffer = [0; FRAME_HEADER_LEN + 128];
        let len = seal_trailer(&mut buffer, self.next_seq(), trailer).unwrap();
        self.append(&buffer[..len], 0);
        self
    }

    /// Appends a frame with any payload, the next sequence number and good checksums.
    pub(crate) fn with_frame(mut self, kind: u8, codec: u8, payload: &[u8]) -> Dump {
        let header = FrameHeader { codec, ..FrameHeader::raw(kind, self.next_seq(), payload) };
        self.append(&[&header.encode(), payload].concat(), 0);
        self
    }

    pub(crate) fn append(&mut self, frame: &[u8], records: usize) {
        self.frames.push(self.bytes.len());
        self.records.push(self.records.last().unwrap_or(&0) + records);
        self.bytes.extend_from_slice(frame);
    }

    pub(crate) fn next_seq(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Returns the offsets at which the frames begin, and the offset at which the last one ends.
    pub(crate) fn bounds(&self) -> Vec<usize> {
        self.frames.iter().copied().chain([self.bytes.len()]).collect()
    }

    fn seal(&mut self, encoder: &mut Encoder, buffer: &mut [u8], records: usize) {
        let len = encoder.seal(buffer, self.next_seq());
        let before = self.records.last().copied().unwrap_or(0);
        self.append(&buffer[..len], records - before);
    }
}

/// Returns the payload of a frame that holds these records.
pub(crate) fn payload(records: &[Record<'_>]) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 20];
    let mut encoder = Encoder::new();
    for record in records {
        encoder.push(&mut buffer, record).unwrap();
    }
    let len = encoder.seal(&mut buffer, 0);
    buffer[FRAME_HEADER_LEN..len].to_vec()
}

/// Everything that a reader finds out about a dump. Records are kept as text, because they live no
/// longer than their frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) records: Vec<String>,
    pub(crate) damage: Damage,
    pub(crate) complete: bool,
    pub(crate) trailer: Option<Trailer>,
    pub(crate) end_of_whole_frames: u64,
    pub(crate) next_seq: u32,
}

pub(crate) fn read(source: impl Read) -> Result<Outcome, ReadError> {
    let mut reader = Reader::new(source)?;
    let mut records = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        records.extend(frame.map(|record| format!("{record:?}")));
    }
    Ok(Outcome {
        records,
        damage: reader.damage(),
        complete: reader.complete(),
        trailer: reader.trailer().copied(),
        end_of_whole_frames: reader.end_of_whole_frames(),
        next_seq: reader.next_seq(),
    })
}

pub(crate) fn texts(records: &[Record<'_>]) -> Vec<String> {
    records.iter().map(|record| format!("{record:?}")).collect()
}

/// Random numbers that are the same on every machine (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
