//! The dump format: the one file that a tracked process writes and `profiler-cli` reads.
//!
//! No other package knows the bytes of the format. The writing half ([`mod@write`]) works on memory
//! that the caller owns. It allocates nothing, because it runs inside an allocator. The reading
//! half ([`read`]) streams, trusts nothing that it reads, and loses at most the frames that are
//! damaged. `docs/FORMAT.md` describes the bytes for people who write a reader of their own.
//!
//! | module | contents |
//! | --- | --- |
//! | [`layout`] | the constants of the format, and the ids of the call tree |
//! | [`code`] | what tells a module's code from other code |
//! | [`varint`] | numbers of variable length: LEB128 and zigzag |
//! | [`header`] | the file header: the first 64 bytes |
//! | [`frame`] | the dump frames: length-prefixed, checksummed units |
//! | [`record`] | the records that a frame holds, and their layout |
//! | [`trailer`] | the last frame: how the recording ended, and totals to check a replay against |
//! | [`thread_ring`] | the entries that one thread has recorded and that were not drained yet |
//! | [`sidecar`] | the file that keeps everything which is not in the dump yet, also if the process is killed |
//! | [`exchange`] | how `profiler-cli` and a recorder agree on a copy of the process's memory |
//! | [`mod@write`] | an encoder of records, over a borrowed buffer |
//! | [`read`] | a streaming reader over any [`std::io::Read`] |
//! | `compress` | compression of finished dumps; needs the feature `compression`, as reading them does |
//! | `snapshot` | where memory points to at one instant; needs the feature `compression` |
//! | `symbols` | names of code that are kept in a dump; needs the feature `compression` |
//!
//! ```
//! use alloc_dump::header::Header;
//! use alloc_dump::layout::{FRAME_HEADER_LEN, StackId};
//! use alloc_dump::read::Reader;
//! use alloc_dump::record::Record;
//! use alloc_dump::trailer::{EndReason, Trailer};
//! use alloc_dump::write::{Encoder, seal_trailer};
//!
//! // Write: a header, one frame of records, a trailer.
//! let mut dump = Header { session: [7; 16], created_unix_ns: 0 }.encode().to_vec();
//! let mut buffer = [0u8; 4096];
//! let mut encoder = Encoder::new();
//! encoder.push(&mut buffer, &Record::Thread { id: 1 }).unwrap();
//! let alloc = Record::Alloc { addr: 0x1000, size: 24, stack: StackId::ROOT, zeroed: false };
//! encoder.push(&mut buffer, &alloc).unwrap();
//! let length = encoder.seal(&mut buffer, 0);
//! dump.extend_from_slice(&buffer[..length]);
//! let mut last = [0u8; FRAME_HEADER_LEN + 128];
//! let length = seal_trailer(&mut last, 1, &Trailer::new(EndReason::Finished, 10)).unwrap();
//! dump.extend_from_slice(&last[..length]);
//!
//! // Read it back.
//! let mut reader = Reader::new(dump.as_slice()).unwrap();
//! let mut sizes = Vec::new();
//! while let Some(records) = reader.next_frame().unwrap() {
//!     for record in records {
//!         if let Record::Alloc { size, .. } = record {
//!             sizes.push(size);
//!         }
//!     }
//! }
//! assert_eq!(sizes, [24]);
//! assert!(reader.complete());
//! ```
#![forbid(unsafe_code)]

pub mod code;
#[cfg(feature = "compression")]
mod columns;
#[cfg(feature = "compression")]
pub mod compress;
pub mod exchange;
pub mod frame;
pub mod header;
pub mod layout;
pub mod read;
pub mod record;
mod records;
pub mod sidecar;
#[cfg(feature = "compression")]
pub mod snapshot;
#[cfg(feature = "compression")]
pub mod symbols;
pub mod thread_ring;
pub mod trailer;
pub mod varint;
mod window;
pub mod write;
