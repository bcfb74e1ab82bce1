//! What a recording says about itself and its process: how far the tracker is installed, labels,
//! limits of the program's memory, the address space, and the limit that has ended it. In: facts.
//! Out: records in the stream.

use alloc_dump::record::{
    Installation, Layout, LayoutOccasion, MemoryLimit, Record, RecordingLimit, Region, Sample,
};

use super::super::failure::Failure;
use super::stream::Stream;
use crate::base::limits::Limits;
use crate::base::sys::ProcessSize;
use crate::output::Sink;

impl<S: Sink> Stream<S> {
    /// Records how far the tracker is installed. In a program where it does not serve all code, a
    /// reader may not have seen the allocation of a block that is freed.
    pub(in crate::recorder) fn record_installation(
        &mut self,
        installation: Installation,
    ) -> Result<(), Failure> {
        if installation != Installation::Complete && !self.partial {
            self.partial = true;
            self.sink.set_partial();
        }
        self.append(None, &Record::Installation(installation))?;
        self.commit();
        Ok(())
    }

    /// Returns the limit that the recording has reached, if there is one.
    pub(super) fn reached_limit(&self, now_us: u64) -> Option<RecordingLimit> {
        let Limits { dump_bytes, us } = self.limits;
        if self.written >= dump_bytes {
            Some(RecordingLimit::DumpSize { bytes: dump_bytes })
        } else {
            (now_us >= us).then_some(RecordingLimit::Duration { us })
        }
    }

    /// Sets when the recording ends before the program does.
    pub(in crate::recorder) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Records that the recording ends because of this limit.
    pub(in crate::recorder) fn record_limit(&mut self, limit: RecordingLimit) -> Result<(), Failure> {
        self.append(None, &Record::LimitReached(limit))?;
        self.commit();
        Ok(())
    }

    /// Records the limits of the program's memory. `for_each` calls its argument with each of them.
    pub(in crate::recorder) fn record_memory_limits(
        &mut self,
        for_each: fn(&mut dyn FnMut(MemoryLimit)),
    ) -> Result<(), Failure> {
        let mut recorded = Ok(());
        for_each(&mut |limit| {
            if recorded.is_ok() {
                recorded = self.append(None, &Record::MemoryLimit(limit));
            }
        });
        recorded?;
        self.commit();
        Ok(())
    }

    /// Returns the sizes of the process at the last sample, and whether the program has set a mark
    /// since the last layout.
    pub(in crate::recorder) fn sizes(&self) -> (ProcessSize, bool) {
        let Sample { vsz, rss, .. } = self.latest_sample;
        (ProcessSize { virtual_bytes: vsz, resident_bytes: rss }, self.is_marked)
    }

    /// Records a mapping of the layout that is being taken.
    pub(in crate::recorder) fn record_region(&mut self, region: &Region<'_>) -> Result<(), Failure> {
        self.append(None, &Record::Region(*region))
    }

    /// Records that the address space was described by so many regions.
    pub(in crate::recorder) fn record_layout(
        &mut self,
        occasion: LayoutOccasion,
        regions: u64,
    ) -> Result<(), Failure> {
        self.now_us = self.now_us.max(self.scale.now_us());
        self.append(None, &Record::Layout(Layout { occasion, regions }))?;
        self.is_marked = false;
        self.commit();
        Ok(())
    }

    /// Records something that is known about the recording.
    pub(in crate::recorder) fn record_label(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.append(None, &Record::Label { name, value })?;
        self.commit();
        Ok(())
    }
}
