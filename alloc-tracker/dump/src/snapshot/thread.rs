//! The threads of a process. In: fields or bytes. Out: the other.

use super::layout::MAX_REGISTERS;
use super::read::FieldBytes;
use super::write::{put_number, put_text};

/// A thread of the process at the instant of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotThread {
    /// The system's thread id.
    pub tid: u32,
    /// The name that the system has for the thread; may be empty.
    pub name: Vec<u8>,
    /// The stack pointer; `None` if it is not known, as of a thread that was running.
    pub stack_pointer: Option<u64>,
    /// The thread pointer, which thread-local variables are relative to; 0 if it is not known.
    pub thread_pointer: u64,
    /// The values of the general registers; `None` if they are not known.
    pub registers: Option<Vec<u64>>,
}

/// Bit of the flags of a thread: the stack pointer is known.
const STACK_POINTER: u64 = 1;
/// Bit of the flags of a thread: the registers are known.
const REGISTERS: u64 = 2;

impl SnapshotThread {
    /// Writes the thread.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let registers = self.registers.as_deref().unwrap_or_default();
        let registers = &registers[..registers.len().min(MAX_REGISTERS)];
        let flags = if self.stack_pointer.is_some() { STACK_POINTER } else { 0 }
            | if self.registers.is_some() { REGISTERS } else { 0 };
        let stack_pointer = self.stack_pointer.unwrap_or(0);
        for number in [u64::from(self.tid), flags, stack_pointer, self.thread_pointer, registers.len() as u64]
        {
            put_number(out, number);
        }
        registers.iter().for_each(|register| put_number(out, *register));
        put_text(out, &self.name);
    }

    /// Reads a thread that [`SnapshotThread::encode`] wrote. `None` if it is malformed.
    pub(super) fn decode(fields: &mut FieldBytes<'_>) -> Option<SnapshotThread> {
        let tid = u32::try_from(fields.number()?).ok()?;
        let (flags, stack_pointer, thread_pointer) = (fields.number()?, fields.number()?, fields.number()?);
        let count = fields.number()?;
        if count > MAX_REGISTERS as u64 {
            return None;
        }
        let registers = (0..count).map(|_| fields.number()).collect::<Option<Vec<u64>>>()?;
        Some(SnapshotThread {
            tid,
            name: fields.text()?.to_vec(),
            stack_pointer: (flags & STACK_POINTER != 0).then_some(stack_pointer),
            thread_pointer,
            registers: (flags & REGISTERS != 0).then_some(registers),
        })
    }
}
