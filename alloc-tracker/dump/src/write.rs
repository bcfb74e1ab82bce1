//! The writing half: an encoder over a buffer that the caller owns. In: records. Out: frames in
//! that buffer. Never allocates, does no input or output.

use crate::frame::FrameHeader;
use crate::layout::{FRAME_HEADER_LEN, FRAME_RECORDS, FRAME_TRAILER, MAX_PAYLOAD, StackId};
use crate::record::{DeltaContext, MAX_HOT_LEN, Record};
use crate::trailer::Trailer;

/// The record does not fit into the rest of the frame: seal the frame and push the record again. If
/// the frame was empty, the record never fits into this buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFull;

/// Fills one raw frame of records after the other in a borrowed buffer.
///
/// The caller passes the same buffer to every call between two calls of [`seal`](Encoder::seal):
///
/// ```text
/// | FRAME_HEADER_LEN bytes    | len() bytes   | room() bytes |
/// | kept for the frame header | whole records | unspecified  |
/// ```
///
/// The encoder does not use the bytes of the buffer beyond [`MAX_PAYLOAD`] bytes of payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    context: DeltaContext,
    len: usize,
}

impl Encoder {
    /// Returns an encoder at the start of a frame.
    pub const fn new() -> Encoder {
        Encoder { context: DeltaContext::new(), len: 0 }
    }

    /// Bytes of whole records in the buffer, without the frame header.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the frame has no record yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are left for more records.
    #[inline]
    pub fn room(&self, buffer: &[u8]) -> usize {
        buffer.len().min(FRAME_HEADER_LEN + MAX_PAYLOAD).saturating_sub(FRAME_HEADER_LEN + self.len)
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`FrameFull`] if the record does not fit; the frame is then unchanged.
    #[inline]
    pub fn push(&mut self, buffer: &mut [u8], record: &Record<'_>) -> Result<(), FrameFull> {
        let end = buffer.len().min(FRAME_HEADER_LEN + MAX_PAYLOAD);
        let mut at = FRAME_HEADER_LEN + self.len;
        if record.is_frequent() && self.room(buffer) >= MAX_HOT_LEN {
            // PERF: the record fits, so no copy of the context is needed to undo a half-written
            // record.
            return self.push_hot(buffer, |context, buf, at| context.encode(buf, at, record));
        }
        let mut context = self.context;
        context.encode(&mut buffer[..end], &mut at, record).ok_or(FrameFull)?;
        *self = Encoder { context, len: at - FRAME_HEADER_LEN };
        Ok(())
    }

    /// Appends a [`Record::Alloc`], as [`push`](Encoder::push) does.
    ///
    /// PERF: most records are of three kinds, which have a function each. Making a [`Record`] only
    /// to take it apart again takes as long as the rest.
    ///
    /// # Errors
    /// [`FrameFull`] if there is no room for the longest hot record, of [`MAX_HOT_LEN`] bytes; the
    /// frame is then unchanged.
    #[inline]
    pub fn push_alloc(
        &mut self,
        buffer: &mut [u8],
        addr: u64,
        size: u64,
        stack: StackId,
        zeroed: bool,
    ) -> Result<(), FrameFull> {
        self.push_hot(buffer, |context, buf, at| context.put_alloc(buf, at, addr, size, stack, zeroed))
    }

    /// Appends a [`Record::Dealloc`], as [`push`](Encoder::push) does.
    ///
    /// # Errors
    /// As for [`push_alloc`](Encoder::push_alloc).
    #[inline]
    pub fn push_dealloc(
        &mut self,
        buffer: &mut [u8],
        addr: u64,
        size: Option<u64>,
        stack: StackId,
    ) -> Result<(), FrameFull> {
        self.push_hot(buffer, |context, buf, at| context.put_dealloc(buf, at, addr, size, stack))
    }

    /// Appends a [`Record::Line`], as [`push`](Encoder::push) does.
    ///
    /// # Errors
    /// As for [`push_alloc`](Encoder::push_alloc).
    #[inline]
    pub fn push_line(&mut self, buffer: &mut [u8], activation: u64, line: u32) -> Result<(), FrameFull> {
        self.push_hot(buffer, |context, buf, at| context.put_line(buf, at, activation, line))
    }

    /// Appends a hot record that `put` writes, if there is room for the longest one.
    #[inline(always)]
    fn push_hot(
        &mut self,
        buffer: &mut [u8],
        put: impl FnOnce(&mut DeltaContext, &mut [u8], &mut usize) -> Option<()>,
    ) -> Result<(), FrameFull> {
        if self.room(buffer) < MAX_HOT_LEN {
            return Err(FrameFull);
        }
        let mut at = FRAME_HEADER_LEN + self.len;
        put(&mut self.context, buffer, &mut at).ok_or(FrameFull)?;
        self.len = at - FRAME_HEADER_LEN;
        Ok(())
    }

    /// Writes the frame header in front of the records and starts a new frame.
    ///
    /// Returns the length in bytes of the sealed frame, header included. The frame stands at the
    /// start of `buffer`, and the caller appends it to the dump. Returns 0 if `buffer` has no room
    /// even for a frame header.
    pub fn seal(&mut self, buffer: &mut [u8], seq: u32) -> usize {
        let end = FRAME_HEADER_LEN + std::mem::take(self).len;
        let Some((header, payload)) =
            buffer.get_mut(..end).and_then(|all| all.split_at_mut_checked(FRAME_HEADER_LEN))
        else {
            return 0;
        };
        header.copy_from_slice(&FrameHeader::raw(FRAME_RECORDS, seq, payload).encode());
        end
    }
}

/// Writes the trailer frame, header and payload, at the start of `buffer`. Returns its length in
/// bytes, or `None` if it does not fit.
pub fn seal_trailer(buffer: &mut [u8], seq: u32, trailer: &Trailer) -> Option<usize> {
    let (header, payload) = buffer.split_at_mut_checked(FRAME_HEADER_LEN)?;
    let len = trailer.encode(payload)?;
    header.copy_from_slice(&FrameHeader::raw(FRAME_TRAILER, seq, &payload[..len]).encode());
    Some(FRAME_HEADER_LEN + len)
}
