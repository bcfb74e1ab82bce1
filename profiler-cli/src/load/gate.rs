//! Which records of a replay count: all, or those of an interval. In: the moments of the interval,
//! and the place of each record. Out: whether the interval has begun or is over.

use super::options::Period;
use crate::profile::Profile;

/// A place among the records of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    place: Place,
    /// Time of the place in microseconds, if it is known.
    us: Option<u64>,
}

/// What comes before a place. Only a time that the user gives is compared with times: many records
/// may have the time of a mark, some before it and some after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// All records with a time up to this one.
    Time(u64),
    /// All records up to the event with this number.
    Event(u64),
    /// All records up to the mark with this number.
    Mark(u64),
}

impl Bound {
    /// The place after all records with a time up to this one.
    pub(super) fn at_time(us: u64) -> Bound {
        Bound { place: Place::Time(us), us: Some(us) }
    }

    /// The place after the event with this number. Its time may be unknown.
    pub(super) fn after_event(number: u64, us: Option<u64>) -> Bound {
        Bound { place: Place::Event(number), us }
    }

    /// The place after the mark with this number, which was set at this time.
    pub(super) fn after_mark(number: u64, us: u64) -> Bound {
        Bound { place: Place::Mark(number), us: Some(us) }
    }

    /// Whether this place is surely after another one.
    fn is_known_to_be_after(&self, other: &Bound) -> bool {
        match (self.place, other.place) {
            (Place::Event(own), Place::Event(other)) | (Place::Mark(own), Place::Mark(other)) => own > other,
            _ => self.us.zip(other.us).is_some_and(|(own, other)| own > other),
        }
    }

    /// Whether a record comes after the place. `seen` is what comes before the record.
    fn is_passed(&self, us: u64, seen: &Seen) -> bool {
        match self.place {
            Place::Time(limit) => us > limit,
            Place::Event(number) => seen.events >= number,
            Place::Mark(number) => seen.marks >= number,
        }
    }
}

/// The records that a replay has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    events: u64,
    marks: u64,
    /// Time of the last event.
    last_event_us: u64,
}

/// The kinds of records by which places are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// A record that completes a heap event.
    Event,
    /// A mark.
    Mark,
    /// Any other record.
    Other,
}

/// The interval whose events count, and how far the replay has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    from: Option<Bound>,
    to: Option<Bound>,
    has_begun: bool,
    is_over: bool,
    seen: Seen,
    /// Time of the last event before the interval.
    begun_us: u64,
    /// Whether the replay goes on behind the interval.
    still_live: bool,
}

/// What a record does to the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// The interval begins before the record, at this time.
    Begins(u64),
    /// The record is the first one after the interval.
    Ends,
    /// Nothing.
    Stays,
}

impl Gate {
    /// Makes the gate of a period of the recording that `whole` is the profile of.
    ///
    /// # Errors
    /// If the recording has no such moment. The error is one sentence and says what there is.
    pub(super) fn of(period: &Period, whole: &Profile) -> Result<Gate, String> {
        let end = || Bound::at_time(whole.duration_us);
        let from = period.from.as_ref().map(|from| Ok::<_, String>(from.resolve(whole)?.unwrap_or_else(end)));
        let (from, to) = (from.transpose()?, period.to.resolve(whole)?);
        if let (Some(from), Some(to)) = (from, to)
            && from.is_known_to_be_after(&to)
        {
            return Err(period.reversed_error());
        }
        Ok(Gate::new(from, to))
    }

    /// Makes the gate of the interval from one place to another. `None` stands for the start or the
    /// end of the recording.
    pub(super) fn new(from: Option<Bound>, to: Option<Bound>) -> Gate {
        Gate { from, to, has_begun: from.is_none(), ..Gate::default() }
    }

    /// Sets whether the replay goes on behind the interval, to find the blocks that are still live
    /// at the end of the recording.
    pub(super) fn with_still_live(self, still_live: bool) -> Gate {
        Gate { still_live, ..self }
    }

    /// Whether the replay goes on behind the interval.
    pub(super) fn is_still_live(&self) -> bool {
        self.still_live
    }

    /// Whether the records now belong to the interval.
    pub(super) fn is_open(&self) -> bool {
        self.has_begun && !self.is_over
    }

    /// Whether no later record can belong to the interval.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes the next record: its time and kind.
    pub(super) fn pass(&mut self, us: u64, kind: Counted) -> Passage {
        let is_passed = |bound: Option<Bound>| bound.is_some_and(|bound| bound.is_passed(us, &self.seen));
        if self.has_begun && is_passed(self.to) {
            self.is_over = true;
            return Passage::Ends;
        }
        if !self.has_begun && is_passed(self.from) {
            // If both places are passed, the next call ends the interval.
            (self.has_begun, self.begun_us) = (true, self.seen.last_event_us);
            return Passage::Begins(self.start_us());
        }
        match kind {
            Counted::Event => {
                self.seen.events += 1;
                self.seen.last_event_us = us;
            }
            Counted::Mark => self.seen.marks += 1,
            Counted::Other => {}
        }
        Passage::Stays
    }

    /// Whether the interval has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns the time at which the interval begins.
    pub(super) fn start_us(&self) -> u64 {
        self.from.map_or(0, |from| from.us.unwrap_or(self.begun_us))
    }

    /// Returns the time at which the interval ends; `None` if that is the end of the recording.
    pub(super) fn end_us(&self) -> Option<u64> {
        self.to.map(|to| to.us.unwrap_or(self.seen.last_event_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_up_to_a_time_come_before_it() {
        let mut gate = Gate::new(Some(Bound::at_time(10)), Some(Bound::at_time(20)));
        let passed: Vec<_> =
            [10, 11, 11, 20, 21].map(|us| (gate.pass(us, Counted::Event), gate.is_open())).to_vec();
        let expected = [
            (Passage::Stays, false),
            (Passage::Begins(10), true),
            (Passage::Stays, true),
            (Passage::Stays, true),
            (Passage::Ends, false),
        ];
        assert_eq!(passed, expected);
    }

    #[test]
    fn events_and_marks_of_the_same_time_are_told_apart() {
        let mut gate = Gate::new(Some(Bound::after_event(1, None)), Some(Bound::after_mark(2, 5)));
        let mut pass = |kind| gate.pass(5, kind);
        assert_eq!(pass(Counted::Mark), Passage::Stays);
        assert_eq!(pass(Counted::Event), Passage::Stays, "the event itself comes before its place");
        assert_eq!(pass(Counted::Other), Passage::Begins(5));
        assert_eq!([pass(Counted::Other), pass(Counted::Event)], [Passage::Stays; 2]);
        assert_eq!(pass(Counted::Mark), Passage::Stays, "the mark itself comes before its place");
        assert_eq!(pass(Counted::Other), Passage::Ends);
        assert!(gate.is_over() && gate.end_us() == Some(5));
    }

    #[test]
    fn an_interval_between_two_records_begins_and_ends() {
        let mut gate = Gate::new(Some(Bound::at_time(3)), Some(Bound::at_time(4)));
        assert_eq!(gate.pass(9, Counted::Event), Passage::Begins(3));
        assert_eq!(gate.pass(9, Counted::Event), Passage::Ends);
    }
}
