//! The first byte of every record. `_SIZED` tags are followed by the size of the block that is
//! released.

pub(crate) const THREAD: u8 = 1;
pub(crate) const TIME: u8 = 2;
pub(crate) const NODE: u8 = 3;
pub(crate) const ALLOC: u8 = 4;
pub(crate) const ALLOC_ZEROED: u8 = 5;
pub(crate) const DEALLOC: u8 = 6;
pub(crate) const DEALLOC_SIZED: u8 = 7;
pub(crate) const REALLOC: u8 = 8;
pub(crate) const REALLOC_SIZED: u8 = 9;
pub(crate) const REALLOC_BEGIN: u8 = 10;
pub(crate) const REALLOC_BEGIN_SIZED: u8 = 11;
pub(crate) const REALLOC_END: u8 = 12;
pub(crate) const REALLOC_FAILED: u8 = 13;
pub(crate) const ENTER: u8 = 14;
pub(crate) const LINE: u8 = 15;
/// A line of the same activation as the last record of a line.
pub(crate) const LINE_SAME_ACTIVATION: u8 = 16;
pub(crate) const LEAVE: u8 = 17;
/// A [`Record::Leave`](super::Record::Leave) of an activation that is not over.
pub(crate) const PAUSE: u8 = 18;

pub(crate) const PROCESS: u8 = 0x40;
pub(crate) const MODULE: u8 = 0x41;
pub(crate) const MODULE_END: u8 = 0x42;
pub(crate) const THREAD_START: u8 = 0x43;
pub(crate) const THREAD_NAME: u8 = 0x44;
pub(crate) const THREAD_END: u8 = 0x45;
pub(crate) const SAMPLE: u8 = 0x46;
pub(crate) const LOST: u8 = 0x47;
pub(crate) const CHECKED: u8 = 0x48;
pub(crate) const FUNCTION: u8 = 0x49;
pub(crate) const USAGE: u8 = 0x4A;
pub(crate) const MARK_NAME: u8 = 0x4B;
pub(crate) const MARK: u8 = 0x4C;
pub(crate) const INSTALLATION: u8 = 0x4D;
pub(crate) const MODULE_CODE: u8 = 0x4E;
pub(crate) const SLOW: u8 = 0x4F;
pub(crate) const PARTLY_VERIFIED: u8 = 0x50;
pub(crate) const LABEL: u8 = 0x51;
pub(crate) const LIMIT_REACHED: u8 = 0x52;
pub(crate) const SNAPSHOT: u8 = 0x53;
pub(crate) const MEMORY_LIMIT: u8 = 0x54;
pub(crate) const ALLOC_FAILED: u8 = 0x55;
pub(crate) const ALIGNMENT: u8 = 0x56;
pub(crate) const RESIDENT: u8 = 0x57;
pub(crate) const LAYOUT: u8 = 0x58;
pub(crate) const REGION: u8 = 0x59;
pub(crate) const SWAP_TRAFFIC: u8 = 0x5A;
pub(crate) const THREAD_STACK: u8 = 0x5B;
