//! Generators of any records, for property tests.

use alloc_dump::code::CodeIdentity;
use alloc_dump::layout::{MAX_TEXT, StackId};
use alloc_dump::record::{
    AllocCall, Function, Installation, Layout, LayoutOccasion, MemoryLimit, MemoryLimitKind, Module,
    PageFaults, Process, Record, RecordingLimit, Region, RegionFlags, ResidentBytes, Sample, SlowReason,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// The ingredients of a record. Unlike a record, a draft owns its texts.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    kind: u8,
    words: [u64; 6],
    flag: bool,
    texts: [Vec<u8>; 4],
}

impl Draft {
    /// Returns the record. `us` is the time so far, in microseconds, which a record of the time
    /// moves forward.
    pub(crate) fn record<'a>(&'a self, us: &mut u64) -> Record<'a> {
        let [a, b, c, d, e, f] = self.words;
        let stack = StackId(d as u32);
        let size = self.flag.then_some(c);
        let [t0, t1, t2, t3] = &self.texts;
        match self.kind {
            0 => Record::Thread { id: a as u32 },
            1 => {
                *us = us.saturating_add(a >> (b % 64));
                Record::Time { us: *us }
            }
            2 => Record::Node { id: StackId(a as u32), parent: stack, pc: b },
            3 => Record::Alloc { addr: a, size: b, stack, zeroed: self.flag },
            4 => Record::Dealloc { addr: a, size, stack },
            5 => Record::Realloc { old: a, old_size: size, new: b, size: e, stack },
            6 => Record::ReallocBegin { old: a, old_size: size },
            7 => Record::ReallocEnd { new: a, size: b, stack },
            8 => Record::ReallocFailed,
            9 => Record::Process(Process {
                pid: a as u32,
                page_size: b,
                from_first_event: self.flag,
                exe: t0,
                args: t1,
                cwd: t2,
                run: t3,
                debug_assertions: c.is_multiple_of(2),
            }),
            10 => Record::Module(Module { id: a as u32, start: b, end: c, bias: d, build_id: t0, path: t1 }),
            11 => Record::ModuleEnd { id: a as u32 },
            12 => Record::ThreadStart { id: a as u32, os_tid: b as u32 },
            13 => Record::ThreadName { id: a as u32, name: t0 },
            14 => Record::ThreadEnd { id: a as u32 },
            15 => Record::Sample(Sample {
                vsz: a,
                rss: b,
                swap: c,
                minor_faults: d,
                major_faults: e,
                tracker_bytes: f,
                peak_vsz: f,
                peak_rss: f,
            }),
            16 => Record::Checked { stacks: a, different: b },
            17 => Record::Function(Function {
                id: a as u32,
                name: t0,
                file: t1,
                start_line: b as u32,
                end_line: c as u32,
            }),
            18 => Record::Enter { function: b as u32, activation: a },
            19 => Record::Line { activation: a, line: b as u32 },
            20 => Record::Leave { activation: a, ended: self.flag },
            21 => Record::Usage {
                rss: ResidentBytes::new(a),
                minor_faults: page_faults(b as u32),
                major_faults: page_faults(c as u32),
            },
            22 => Record::MarkName { id: a as u32, name: t0 },
            23 => Record::Mark { id: a as u32 },
            24 => Record::Installation(match a % 3 {
                0 => Installation::Missing,
                1 => Installation::Partial,
                _ => Installation::Complete,
            }),
            25 => Record::ModuleCode {
                id: a as u32,
                code: CodeIdentity { code_bytes: b, crc: c as u32, file_bytes: d },
            },
            26 => Record::Slow(SlowReason::PortableWalks { stacks: a }),
            27 => Record::Slow(SlowReason::NoUnwindTables { module: a as u32 }),
            28 => Record::PartlyVerified { stacks: a },
            29 => Record::Label { name: t0, value: t1 },
            30 => Record::LimitReached(RecordingLimit::DumpSize { bytes: a }),
            31 => Record::LimitReached(RecordingLimit::Duration { us: a }),
            32 => Record::MemoryLimit(MemoryLimit {
                kind: MemoryLimitKind::ALL[(a % 8) as usize],
                most: b,
                used: self.flag.then_some(c),
            }),
            33 => Record::AllocFailed { call: alloc_call(a), size: b, align: c, stack },
            34 => Record::Alignment { bytes: a },
            35 => Record::Resident { released: a, allocated: b },
            36 => Record::Layout(Layout { occasion: occasion(a), regions: b }),
            37 => Record::Region(Region {
                start: a,
                end: b,
                flags: RegionFlags(c),
                offset: d,
                inode: e,
                resident: f,
                dirty: a,
                swapped: b,
                anonymous: c,
                name: t0,
            }),
            39 => Record::ThreadStack { id: a as u32, address: b },
            38 => Record::SwapTraffic { read: a, written: b },
            _ => Record::Lost { events: a },
        }
    }
}

/// Every value of the field, the unknown count included.
fn page_faults(word: u32) -> PageFaults {
    if word == u32::MAX { PageFaults::UNKNOWN } else { PageFaults::new(word) }
}

fn alloc_call(word: u64) -> AllocCall {
    match word % 3 {
        0 => AllocCall::Alloc,
        1 => AllocCall::AllocZeroed,
        _ => AllocCall::Realloc,
    }
}

fn occasion(word: u64) -> LayoutOccasion {
    match word % 4 {
        0 => LayoutOccasion::Start,
        1 => LayoutOccasion::Growth,
        2 => LayoutOccasion::End,
        _ => LayoutOccasion::Mark,
    }
}

/// Any record.
pub(crate) fn draft() -> impl Strategy<Value = Draft> {
    let words = [edges(), edges(), edges(), edges(), edges(), edges()];
    (0u8..41, words, any::<bool>(), [text(), text(), text(), text()])
        .prop_map(|(kind, words, flag, texts)| Draft { kind, words, flag, texts })
}

/// Numbers of every length, above all those at the ends of ranges.
pub(crate) fn edges() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        Just(1 << 63),
        (0u32..64, any::<u64>()).prop_map(|(shift, value)| value >> shift),
        (0u32..64).prop_map(|shift| 1 << shift),
        (0u32..64).prop_map(|shift| (1 << shift) - 1),
    ]
}

pub(crate) fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => Just(Vec::new()),
        20 => vec(any::<u8>(), 0..40),
        1 => Just(vec![0xFF; MAX_TEXT]),
    ]
}

/// Records with few different addresses, stacks, threads and sizes, so that everything that can
/// repeat does. The order need not make sense.
pub(crate) fn repetitive_draft() -> impl Strategy<Value = Draft> {
    let few = || prop_oneof![Just(0x10_0000u64), (0u64..24).prop_map(|at| 0x10_0000 + 32 * at)];
    let size = prop_oneof![3 => Just(24u64), 1 => 0u64..3000];
    let kind = prop_oneof![12 => 3u8..6, 2 => 6u8..9, 2 => 0u8..3, 1 => 11u8..15];
    (kind, few(), few(), size, 0u64..5, any::<bool>()).prop_map(|(kind, a, b, size, stack, rare)| {
        let flag = rare && a % 64 == 0;
        let texts = Default::default();
        let words = match kind {
            0 | 11..=14 => [b % 3, a, 0, 0, 0, 0],
            1 => [a % 96, 0, 0, 0, 0, 0],
            2 => [a / 32 % 40, 0x5000 + b % 7, 0, stack, 0, 0],
            3 | 7 => [a, size, 0, stack, 0, 0],
            _ => [a, b, size, stack, size, 0],
        };
        Draft { kind, words, flag, texts }
    })
}
