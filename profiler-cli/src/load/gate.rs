//! Which records of a replay count: all, or those of an interval. In: the moments of the interval,
//! and the place of each record. Out: whether the interval has begun or is over.

use super::options::Period;
use crate::profile::Profile;

/// A place among the events of a recording. Events up to it come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Number of events before the place, if it is known.
    events: Option<u64>,
    /// Time of the place in microseconds, if it is known. If both are known, the number decides for
    /// events, because several events may have the same time.
    us: Option<u64>,
}

impl Bound {
    /// The place after all events with a time up to this one.
    pub(super) fn at_time(us: u64) -> Bound {
        Bound { events: None, us: Some(us) }
    }

    /// The place after this many events, at this time.
    pub(super) fn after_events(events: u64, us: u64) -> Bound {
        Bound { events: Some(events), us: Some(us) }
    }

    /// The place after the event with this number.
    pub(super) fn after_event(number: u64) -> Bound {
        Bound { events: Some(number), us: None }
    }

    /// Whether this place is surely after another one.
    fn is_known_to_be_after(&self, other: &Bound) -> bool {
        match (self.events.zip(other.events), self.us.zip(other.us)) {
            (Some((own, other)), _) | (None, Some((own, other))) => own > other,
            (None, None) => false,
        }
    }

    /// Whether the event with this number and time comes after the place.
    fn is_before_event(&self, number: u64, us: u64) -> bool {
        match self.events {
            Some(events) => number > events,
            None => self.is_before_time(us),
        }
    }

    /// Whether a record that is no event comes after the place.
    fn is_before_time(&self, us: u64) -> bool {
        self.us.is_some_and(|limit| us > limit)
    }
}

/// The interval whose events count, and how far the replay has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    from: Option<Bound>,
    to: Option<Bound>,
    has_begun: bool,
    is_over: bool,
    /// Time of the last event so far.
    last_event_us: u64,
    /// Time of the last event before the interval.
    begun_us: u64,
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

    /// Whether the records now belong to the interval.
    pub(super) fn is_open(&self) -> bool {
        self.has_begun && !self.is_over
    }

    /// Whether no later record can belong to the interval.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes the place of the next record: its time, and the number of its event if it is one.
    pub(super) fn pass(&mut self, us: u64, event: Option<u64>) -> Passage {
        let is_passed = |bound: &Option<Bound>| match (bound, event) {
            (None, _) => false,
            (Some(bound), Some(number)) => bound.is_before_event(number, us),
            (Some(bound), None) => bound.is_before_time(us),
        };
        if is_passed(&self.to) && self.has_begun {
            self.is_over = true;
            return Passage::Ends;
        }
        if !self.has_begun && is_passed(&self.from) {
            // If both places are passed, the next call ends the interval.
            (self.has_begun, self.begun_us) = (true, self.last_event_us);
            return Passage::Begins(self.start_us());
        }
        if event.is_some() {
            self.last_event_us = us;
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
    pub(super) fn to_us(&self) -> Option<u64> {
        self.to.map(|to| to.us.unwrap_or(self.last_event_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_up_to_a_time_come_before_it() {
        let mut gate = Gate::new(Some(Bound::at_time(10)), Some(Bound::at_time(20)));
        let passed: Vec<_> = [(10, 1), (11, 2), (20, 3), (21, 4)]
            .map(|(us, number)| (gate.pass(us, Some(number)), gate.is_open()))
            .to_vec();
        let expected = [
            (Passage::Stays, false),
            (Passage::Begins(10), true),
            (Passage::Stays, true),
            (Passage::Ends, false),
        ];
        assert_eq!(passed, expected);
    }

    #[test]
    fn a_number_of_events_tells_events_of_the_same_time_apart() {
        let mut gate = Gate::new(Some(Bound::after_event(1)), Some(Bound::after_events(2, 5)));
        assert_eq!(gate.pass(5, Some(1)), Passage::Stays);
        assert_eq!(gate.pass(5, Some(2)), Passage::Begins(5));
        assert_eq!(gate.pass(5, None), Passage::Stays, "a record that is no event, at the same time");
        assert_eq!(gate.pass(5, Some(3)), Passage::Ends);
        assert!(gate.is_over() && gate.to_us() == Some(5));
    }

    #[test]
    fn an_interval_between_two_records_begins_and_ends() {
        let mut gate = Gate::new(Some(Bound::at_time(3)), Some(Bound::at_time(4)));
        assert_eq!(gate.pass(9, Some(1)), Passage::Begins(3));
        assert_eq!(gate.pass(9, Some(1)), Passage::Ends);
    }
}
