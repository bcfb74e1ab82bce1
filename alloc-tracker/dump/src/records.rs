//! The records of one frame, whatever its codec. In: a payload whose checksum holds. Out: records, and a count of those
//! that cannot be used.

#[cfg(feature = "compression")]
use crate::columns::Columns;
use crate::read::Loss;
use crate::record::{Context, Malformed, Record};

/// The records of one frame, in the order in which they were written.
#[derive(Debug)]
pub struct Records<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) loss: &'a mut Loss,
}

/// Where they come from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    Raw {
        payload: &'a [u8],
        at: usize,
        context: Context,
    },
    #[cfg(feature = "compression")]
    Columns(Columns<'a>),
}

impl Records<'_> {
    /// What the reader could not use so far, what lies before this frame included.
    pub fn loss(&self) -> Loss {
        *self.loss
    }

    /// The rest of the frame is malformed.
    fn give_up(&mut self) {
        self.loss.malformed_frames += 1;
        self.source.give_up();
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            match self.source.next()? {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(Malformed) => self.give_up(),
            }
        }
    }

    /// PERF: asks once for the codec, not at every record, and moves no record.
    #[inline]
    fn fold<B, F: FnMut(B, Record<'a>) -> B>(mut self, init: B, mut f: F) -> B {
        let mut folded = init;
        match &mut self.source {
            Source::Raw { payload, at, context } => {
                while *at < payload.len() {
                    match context.decode(payload, at) {
                        Ok(Some(record)) => folded = f(folded, record),
                        Ok(None) => {}
                        Err(Malformed) => {
                            self.give_up();
                            break;
                        }
                    }
                }
            }
            #[cfg(feature = "compression")]
            Source::Columns(columns) => {
                while !columns.is_empty() {
                    match columns.next() {
                        Ok(Some(record)) => folded = f(folded, record),
                        Ok(None) => {}
                        Err(Malformed) => {
                            self.give_up();
                            break;
                        }
                    }
                }
            }
        }
        folded
    }
}

impl<'a> Source<'a> {
    /// `Some(Ok(None))` for a record of an unknown kind.
    #[inline]
    fn next(&mut self) -> Option<Result<Option<Record<'a>>, Malformed>> {
        match self {
            Source::Raw { payload, at, context } => {
                (*at < payload.len()).then(|| context.decode(payload, at))
            }
            #[cfg(feature = "compression")]
            Source::Columns(columns) => (!columns.is_empty()).then(|| columns.next()),
        }
    }

    fn give_up(&mut self) {
        match self {
            Source::Raw { payload, at, .. } => *at = payload.len(),
            #[cfg(feature = "compression")]
            Source::Columns(columns) => columns.give_up(),
        }
    }
}
