//! The records of one frame in any codec. In: a payload whose checksum holds. Out: records, and a
//! count of the frames whose rest cannot be used.

#[cfg(feature = "compression")]
use crate::columns::ColumnRecords;
use crate::read::Damage;
use crate::record::{DeltaContext, MalformedRecord, Record};

/// The records of one frame, in the order in which they were written.
#[derive(Debug)]
pub struct Records<'a> {
    pub(crate) source: RecordSource<'a>,
    pub(crate) damage: &'a mut Damage,
}

/// Where the records of a frame come from.
#[derive(Debug)]
pub(crate) enum RecordSource<'a> {
    /// A raw frame: the payload, and the offset of the next record in it.
    Raw { payload: &'a [u8], at: usize, context: DeltaContext },
    #[cfg(feature = "compression")]
    Columns(ColumnRecords<'a>),
}

impl<'a> Records<'a> {
    /// Calls `visitor` with each record. These are the records that the iterator returns, but they
    /// are not moved.
    ///
    /// PERF: the codec is looked at once. Decoding stores a record word by word. Moving the record
    /// loads wider words, which have to wait until these stores have reached the cache: a fifth of
    /// the time of loading.
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
    pub fn visit(mut self, mut visitor: impl FnMut(&Record<'a>)) {
        match &mut self.source {
            RecordSource::Raw { payload, at, context } => {
                while *at < payload.len() {
                    match &context.decode(payload, at) {
                        Ok(Some(record)) => visitor(record),
                        Ok(None) => {}
                        Err(MalformedRecord) => return self.abandon_frame(),
                    }
                }
            }
            #[cfg(feature = "compression")]
            RecordSource::Columns(columns) => {
                while !columns.is_empty() {
                    match &columns.next() {
                        Ok(Some(record)) => visitor(record),
                        Ok(None) => {}
                        Err(MalformedRecord) => return self.abandon_frame(),
                    }
                }
            }
        }
    }

    /// Returns what the reader could not use up to here, from the start of the dump on.
    pub fn damage(&self) -> Damage {
        *self.damage
    }

    /// Counts the frame as malformed and skips its other records.
    fn abandon_frame(&mut self) {
        self.damage.malformed_frames += 1;
        self.source.skip_to_end();
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
                Err(MalformedRecord) => self.abandon_frame(),
            }
        }
    }
}

impl<'a> RecordSource<'a> {
    /// Reads the next record; `None` at the end of the frame, `Some(Ok(None))` for a record of an
    /// unknown kind.
    #[inline]
    fn next(&mut self) -> Option<Result<Option<Record<'a>>, MalformedRecord>> {
        match self {
            RecordSource::Raw { payload, at, context } => {
                (*at < payload.len()).then(|| context.decode(payload, at))
            }
            #[cfg(feature = "compression")]
            RecordSource::Columns(columns) => (!columns.is_empty()).then(|| columns.next()),
        }
    }

    fn skip_to_end(&mut self) {
        match self {
            RecordSource::Raw { payload, at, .. } => *at = payload.len(),
            #[cfg(feature = "compression")]
            RecordSource::Columns(columns) => columns.skip_to_end(),
        }
    }
}
