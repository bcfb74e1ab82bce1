//! Records to columns. In: payloads of raw frames. Out: the payload of one frame that holds their records.

use std::fmt;
use std::io;

use foldhash::HashMap;

use super::model::{BY_ADDRESS, BY_NUMBER, ELSEWHERE, Model, NONE};
use super::{Column, Shape, join, op, put};
use crate::compress::Fingerprint;
use crate::layout::COLUMNS;
use crate::record::{Context, FIRST_COLD_TAG, MAX_HOT_LEN, Malformed, Record, tags};
use crate::varint::{delta, zigzag};

/// Fills one frame after the other.
pub(crate) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    columns: [Vec<u8>; COLUMNS],
    model: Model,
    /// What the lines of the frame are differences from.
    lines: Context,
    /// Where the frame's blocks are that have not been freed.
    live: HashMap<u64, u32>,
    sites: HashMap<(u8, u32), u32>,
    pcs: HashMap<u64, u32>,
}

/// What an event says, whatever its kind.
#[derive(Clone, Copy, Default)]
struct Event {
    tag: u8,
    old: u64,
    old_size: Option<u64>,
    new: u64,
    size: u64,
    stack: u32,
}

impl Encoder {
    /// With a level of Zstandard.
    pub(crate) fn new(level: i32) -> io::Result<Encoder> {
        Ok(Encoder {
            zstd: zstd::bulk::Compressor::new(level)?,
            columns: Default::default(),
            model: Model::new(),
            lines: Context::new(),
            live: HashMap::default(),
            sites: HashMap::default(),
            pcs: HashMap::default(),
        })
    }

    /// Records in the frame.
    pub(crate) fn records(&self) -> usize {
        self.columns[Column::Op as usize].len()
    }

    /// Bytes in the frame before Zstandard.
    pub(crate) fn len(&self) -> usize {
        self.columns.iter().map(Vec::len).sum()
    }

    /// Appends the records of a raw frame.
    pub(crate) fn push(&mut self, payload: &[u8], fingerprint: &mut Fingerprint) -> Result<(), Malformed> {
        let (mut context, mut at) = (Context::new(), 0);
        while at < payload.len() {
            let start = at;
            let record = context.decode(payload, &mut at)?;
            if let Some(record) = &record {
                fingerprint.add(record);
            }
            match record {
                Some(record) if payload[start] < FIRST_COLD_TAG => self.hot(&record),
                // As it is, whatever a newer version has put into it.
                _ => {
                    self.op(op::COLD);
                    self.columns[Column::Cold as usize].extend_from_slice(&payload[start..at]);
                }
            }
        }
        Ok(())
    }

    /// Ends the frame: its payload, and how long that is once decoded.
    pub(crate) fn finish(&mut self) -> io::Result<(Vec<u8>, usize)> {
        let bytes = join(&self.columns);
        self.columns.iter_mut().for_each(Vec::clear);
        self.model.clear();
        self.lines = Context::new();
        self.live.clear();
        self.sites.clear();
        self.pcs.clear();
        Ok((self.zstd.compress(&bytes)?, bytes.len()))
    }

    fn hot(&mut self, record: &Record<'_>) {
        let event = match *record {
            Record::Thread { id } => {
                self.op(op::THREAD);
                self.number(Column::Thread, u64::from(id));
                return self.model.switch_to(id);
            }
            Record::Time { us } => return self.time(us),
            Record::Node { id, parent, pc } => return self.node(id.0, parent.0, pc),
            Record::Alloc { addr, size, stack, zeroed } => {
                let tag = if zeroed { tags::ALLOC_ZEROED } else { tags::ALLOC };
                Event { tag, new: addr, size, stack: stack.0, ..Event::default() }
            }
            Record::Dealloc { addr, size, stack } => {
                let tag = if size.is_some() { tags::DEALLOC_SIZED } else { tags::DEALLOC };
                Event { tag, old: addr, old_size: size, stack: stack.0, ..Event::default() }
            }
            Record::Realloc { old, old_size, new, size, stack } => {
                let tag = if old_size.is_some() { tags::REALLOC_SIZED } else { tags::REALLOC };
                Event { tag, old, old_size, new, size, stack: stack.0 }
            }
            Record::ReallocBegin { old, old_size } => {
                let tag = if old_size.is_some() { tags::REALLOC_BEGIN_SIZED } else { tags::REALLOC_BEGIN };
                Event { tag, old, old_size, ..Event::default() }
            }
            Record::ReallocEnd { new, size, stack } => {
                Event { tag: tags::REALLOC_END, new, size, stack: stack.0, ..Event::default() }
            }
            Record::Enter { .. } | Record::Line { .. } | Record::Leave { .. } => return self.line(record),
            _ => return self.op(op::REALLOC_FAILED),
        };
        if let Some(shape) = Shape::of(event.tag) {
            self.event(&event, shape);
        }
    }

    fn line(&mut self, record: &Record<'_>) {
        let (mut bytes, mut len) = ([0; MAX_HOT_LEN], 0);
        if self.lines.encode(&mut bytes, &mut len, record).is_some() {
            self.op(op::LINE);
            self.columns[Column::Line as usize].extend_from_slice(&bytes[..len]);
        }
    }

    fn time(&mut self, us: u64) {
        let later = us.wrapping_sub(std::mem::replace(&mut self.model.time, us));
        if later <= op::MOST_LATER {
            return self.op(op::LATER + later as u8);
        }
        self.op(op::TIME);
        self.number(Column::Time, zigzag(later as i64));
    }

    fn event(&mut self, event: &Event, shape: Shape) {
        let (number, mut code) = self.site(event, shape);
        let mut site = self.model.sites[number as usize];
        self.model.arrive(number, shape.has_stack());
        let mut gone = NONE;
        if shape.frees() {
            gone = self.live.remove(&event.old).unwrap_or(NONE);
            let name = self.name_of(gone, site.reference);
            if name != site.reference {
                code |= op::REFERENCE;
                site.reference = name;
                self.byte(Column::Reference, name);
            }
            match name {
                BY_NUMBER => self.number(Column::Block, delta(u64::from(self.model.gone()), u64::from(gone))),
                BY_ADDRESS => self.addr(event.old),
                _ => {}
            }
            let known = self.model.blocks.get(gone as usize).map_or(0, |block| block.size);
            if let Some(size) = event.old_size {
                self.number(Column::OldSize, delta(known, size));
            }
            if gone != NONE {
                self.model.remove(gone);
            }
        }
        if shape.allocates() {
            if event.size != site.size {
                code |= op::SIZE;
                site.size = event.size;
                self.number(Column::Size, event.size);
            }
            let mut in_place = Some(event.old);
            if !shape.frees() {
                (gone, in_place) = self.model.end_move_of(event.tag);
            }
            let name = self.name_of_place(event, site.place, in_place);
            if name != site.place {
                code |= op::PLACE;
                site.place = name;
                self.byte(Column::Place, name);
            }
            if name == ELSEWHERE {
                self.addr(event.new);
            }
            let block = self.model.append(name, event.new, event.size);
            self.live.insert(event.new, block);
        }
        self.model.settle(number, &site, gone, shape);
        self.op(code);
    }

    /// The number of an event's site, and the bits of the operation that say how it is named.
    fn site(&mut self, event: &Event, shape: Shape) -> (u32, u8) {
        let expected = self.model.expected_site();
        let site = &self.model.sites[expected as usize];
        if (site.tag, site.stack) == (event.tag, event.stack) {
            return (expected, op::SITE_GUESSED);
        }
        if let Some(&number) = self.sites.get(&(event.tag, event.stack)) {
            self.number(Column::Site, u64::from(number));
            return (number, op::SITE_KNOWN);
        }
        self.byte(Column::Tag, event.tag);
        if shape.has_stack() {
            let expected = self.model.expected_stack();
            self.number(Column::Stack, delta(u64::from(expected), u64::from(event.stack)));
        }
        let number = self.model.add_site(event.tag, event.stack);
        self.sites.insert((event.tag, event.stack), number);
        (number, op::SITE_NEW)
    }

    fn name_of(&self, block: u32, guess: u8) -> u8 {
        if block == NONE {
            return BY_ADDRESS;
        }
        if self.model.resolve(guess) == Some(block) {
            return guess;
        }
        // PERF: where the last one was far away, this one mostly is.
        let most = if guess == BY_NUMBER { 2 } else { 16 };
        self.model.name_of(block, most).unwrap_or(BY_NUMBER)
    }

    fn name_of_place(&self, event: &Event, guess: u8, in_place: Option<u64>) -> u8 {
        if self.model.place(guess, event.size, in_place) == Some(event.new) {
            return guess;
        }
        self.model.name_of_place(event.new, event.size, in_place).unwrap_or(ELSEWHERE)
    }

    fn addr(&mut self, addr: u64) {
        let before = std::mem::replace(&mut self.model.slot().addr, addr);
        self.number(Column::Addr, delta(before, addr));
    }

    fn node(&mut self, id: u32, parent: u32, pc: u64) {
        let mut code = op::NODE;
        let last = self.model.nodes.last;
        if last.checked_add(1) != Some(id) {
            code |= op::NUMBERED;
            self.number(Column::Node, delta(u64::from(last), u64::from(id)));
        }
        if parent == last {
            code |= op::CHILD;
        } else {
            self.parent(parent);
        }
        let above = self.model.nodes.pc_of(parent);
        let expected = self.model.nodes.expected_below(above);
        let number = if self.model.nodes.addr(expected) == pc {
            code |= op::PC;
            expected
        } else {
            self.pc(above, pc)
        };
        self.model.nodes.define(id, parent, above, number);
        self.op(code);
    }

    fn parent(&mut self, parent: u32) {
        let stack = self.model.slot().stack;
        match self.model.nodes.steps_to(stack, parent) {
            Some(steps) => self.byte(Column::Up, steps as u8 + 1),
            None => {
                self.byte(Column::Up, 0);
                self.number(Column::Node, delta(u64::from(stack), u64::from(parent)));
            }
        }
    }

    /// The number of a return address that was not guessed.
    fn pc(&mut self, above: u32, pc: u64) -> u32 {
        if let Some(&number) = self.pcs.get(&pc) {
            self.number(Column::PcIndex, u64::from(self.model.nodes.pcs() - number));
            return number;
        }
        self.number(Column::PcIndex, 0);
        self.number(Column::Pc, delta(self.model.nodes.addr(above), pc));
        let number = self.model.nodes.add_pc(pc);
        self.pcs.insert(pc, number);
        number
    }

    fn op(&mut self, code: u8) {
        self.byte(Column::Op, code);
    }

    fn byte(&mut self, column: Column, byte: u8) {
        self.columns[column as usize].push(byte);
    }

    fn number(&mut self, column: Column, value: u64) {
        put(&mut self.columns[column as usize], value);
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("records", &self.records()).finish_non_exhaustive()
    }
}
