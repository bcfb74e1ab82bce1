//! The records of one frame, whatever its codec. In: a payload whose checksum holds. Out: records, and a count of those
//! that cannot be used.

#[cfg(feature = "compression")]
use crate::columns::Columns;
use crate::read::Damage;
use crate::record::{Context, Malformed, Record};

/// The records of one frame, in the order in which they were written.
#[derive(Debug)]
pub struct Records<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) damage: &'a mut Damage,
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

impl<'a> Records<'a> {
    /// Hands out all records, as the iterator does, without moving them.
    ///
    /// PERF: asks once for the codec. A record is decoded in words; moving it takes wider ones, which have to wait until those have
    /// reached the cache: a fifth of the time of loading.
    ///
    /// ```
    /// use alloc_dump::header::Header;
    /// use alloc_dump::read::Reader;
    /// use alloc_dump::record::Record;
    /// use alloc_dump::write::Encoder;
    ///
    /// let mut dump = Header { session: [7; 16], created_unix_ns: 0 }.encode().to_vec();
    /// let (mut buffer, mut encoder) = ([0u8; 4096], Encoder::new());
    /// encoder.push(&mut buffer, &Record::Thread { id: 1 }).unwrap();
    /// let length = encoder.seal(&mut buffer, 0);
    /// dump.extend_from_slice(&buffer[..length]);
    ///
    /// let mut reader = Reader::new(dump.as_slice()).unwrap();
    /// let mut threads = Vec::new();
    /// reader.next_frame().unwrap().unwrap().visit(|record| {
    ///     if let Record::Thread { id } = record {
    ///         threads.push(*id);
    ///     }
    /// });
    /// assert_eq!(threads, [1]);
    /// ```
    #[inline]
    pub fn visit(mut self, mut see: impl FnMut(&Record<'a>)) {
        match &mut self.source {
            Source::Raw { payload, at, context } => {
                while *at < payload.len() {
                    match &context.decode(payload, at) {
                        Ok(Some(record)) => see(record),
                        Ok(None) => {}
                        Err(Malformed) => return self.give_up(),
                    }
                }
            }
            #[cfg(feature = "compression")]
            Source::Columns(columns) => {
                while !columns.is_empty() {
                    match &columns.next() {
                        Ok(Some(record)) => see(record),
                        Ok(None) => {}
                        Err(Malformed) => return self.give_up(),
                    }
                }
            }
        }
    }

    /// What the reader could not use so far, what lies before this frame included.
    pub fn damage(&self) -> Damage {
        *self.damage
    }

    /// The rest of the frame is malformed.
    fn give_up(&mut self) {
        self.damage.malformed_frames += 1;
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
