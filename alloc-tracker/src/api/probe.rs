//! What an annotated function says while it runs: that it began, which line it has reached, that it is over. In: calls
//! that `#[profile]` has put into the function. Out: entries in the thread's ring, in order with its heap events. With
//! nothing recorded each is a load and a branch. Never allocates, never panics, never waits but as an event does.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use alloc_dump::record::{self, LINE_AGAIN};

use crate::base::mode::{self, RECORD};
use crate::base::sys::{Mapping, Plain};
use crate::recorder;
use crate::thread;

/// Puts a named mark into the recording at this moment of the calling thread: `profiler-cli summary` shows it with its time and
/// the live heap, `profiler-cli timeline` draws it. Without a recording it does nothing. The first 65,536 bytes of the name are
/// kept.
///
/// ```
/// alloc_tracker::mark("everything is loaded");
/// ```
pub fn mark(name: &str) {
    if mode::current() & RECORD != 0
        && !recorder::left_behind_by_fork()
        && thread::with(|mut busy| recorder::mark(busy.local(), name.as_bytes())).is_none()
    {
        recorder::lose(1);
    }
}

/// What is known of an annotated function when it is compiled. Made by `#[profile]`.
#[derive(Debug)]
pub struct Function {
    name: &'static str,
    file: &'static str,
    start_line: u32,
    end_line: u32,
    /// The recording that it was last defined in, above its number there.
    number: AtomicU64,
}

impl Function {
    /// The function of this path, from one line to another of a file.
    pub const fn new(name: &'static str, file: &'static str, start_line: u32, end_line: u32) -> Function {
        Function { name, file, start_line, end_line, number: AtomicU64::new(0) }
    }

    /// Its number in this recording, if it has one.
    pub(crate) fn number_in(&self, recording: u32) -> Option<u32> {
        let number = self.number.load(Ordering::Acquire);
        ((number >> 32) as u32 == recording).then_some(number as u32)
    }

    pub(crate) fn set_number(&self, recording: u32, number: u32) {
        self.number.store(u64::from(recording) << 32 | u64::from(number), Ordering::Release);
    }

    /// As the dump has it.
    pub(crate) fn record(&self, id: u32) -> record::Function<'_> {
        record::Function {
            id,
            name: self.name.as_bytes(),
            file: self.file.as_bytes(),
            start_line: self.start_line,
            end_line: self.end_line,
        }
    }

    /// The function begins; it is over when the guard is dropped.
    #[inline]
    pub fn enter(&'static self) -> Activation {
        if mode::current() & RECORD == 0 {
            return Activation::NONE;
        }
        self.begin(&Activation::NONE)
    }

    /// The innermost activation of this function on this thread reaches a line.
    #[inline]
    pub fn line(&'static self, line: u32) {
        if mode::current() & RECORD != 0 {
            self.reach(line);
        }
    }

    /// An iterator that reaches this line each time it is asked for more: the head of a `for`. The first time only with
    /// `again`, because the statement itself has just reached it.
    #[inline]
    #[track_caller]
    pub fn each<I: IntoIterator>(&'static self, line: u32, again: bool, of: I) -> Each<I::IntoIter> {
        Each { iterator: of.into_iter(), function: self, line, again }
    }

    /// The activation goes back to the line where it is now when the guard is dropped: a closure is called.
    #[inline]
    pub fn aside(&'static self) -> Aside {
        let line = if mode::current() & RECORD == 0 { 0 } else { self.line_now() };
        Aside { function: self, line }
    }

    #[cold]
    #[inline(never)]
    fn line_now(&'static self) -> u32 {
        if recorder::left_behind_by_fork() {
            return 0;
        }
        thread::with(|mut busy| recorder::line_now(busy.local(), self)).unwrap_or(0)
    }

    /// Reaches this line, and then hands a value through: `at(line).of(value)` evaluates it after that.
    #[inline]
    pub fn at(&'static self, line: u32) -> At {
        self.line(line);
        At
    }

    /// The value, after which this line is reached: the end of a block whose locals are still there.
    #[inline]
    pub fn closing<T>(&'static self, line: u32, value: T) -> T {
        self.line(line);
        value
    }

    /// Reaches this line when it is dropped, unless by a panic: the last local of a block, which is freed before all others.
    #[inline]
    pub fn closes(&'static self, line: u32) -> Closing {
        let panicking = mode::current() & RECORD != 0 && std::thread::panicking();
        Closing { function: self, line, panicking, leaving: AtomicU32::new(0) }
    }

    /// The body of an async function: an activation that goes on whenever it is polled.
    pub fn polled<F: Future>(&'static self, body: F) -> Polled<F> {
        Polled { body: Some(body), function: self, activation: Activation::NONE }
    }

    #[cold]
    #[inline(never)]
    fn begin(&'static self, again: &Activation) -> Activation {
        if recorder::left_behind_by_fork() {
            return Activation::NONE;
        }
        match thread::with(|mut busy| recorder::enter(busy.local(), self, again)) {
            Some(activation) => activation,
            None => {
                recorder::lose(1);
                Activation::NONE
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn reach(&'static self, line: u32) {
        if !recorder::left_behind_by_fork()
            && thread::with(|mut busy| recorder::reach(busy.local(), self, line)).is_none()
        {
            recorder::lose(1);
        }
    }
}

/// One call of an annotated function, while it runs.
#[derive(Debug)]
#[must_use = "the function is over when this is dropped"]
pub struct Activation {
    /// The recording that it began in; 0 for none.
    pub(crate) recording: u32,
    pub(crate) number: u64,
}

impl Activation {
    pub(crate) const NONE: Activation = Activation { recording: 0, number: 0 };

    /// The thread ceases to run it.
    #[inline]
    fn leave(&self, ended: bool) {
        if self.recording != 0 {
            self.leave_recorded(ended);
        }
    }

    #[cold]
    #[inline(never)]
    fn leave_recorded(&self, ended: bool) {
        if mode::current() & RECORD != 0
            && !recorder::left_behind_by_fork()
            && thread::with(|mut busy| recorder::leave(busy.local(), self, ended)).is_none()
        {
            recorder::lose(1);
        }
    }
}

impl Drop for Activation {
    #[inline]
    fn drop(&mut self) {
        self.leave(true);
    }
}

/// What [`Function::at`] returns.
#[derive(Debug)]
pub struct At;

impl At {
    /// The value.
    #[inline]
    pub fn of<T>(self, value: T) -> T {
        value
    }
}

/// What [`Function::aside`] returns.
#[derive(Debug)]
#[must_use = "the line is gone back to when this is dropped"]
pub struct Aside {
    function: &'static Function,
    /// 0 for none.
    line: u32,
}

impl Drop for Aside {
    #[inline]
    fn drop(&mut self) {
        if self.line != 0 {
            self.function.line(self.line | LINE_AGAIN);
        }
    }
}

/// What [`Function::closes`] returns.
#[derive(Debug)]
#[must_use = "the line is reached when this is dropped"]
pub struct Closing {
    function: &'static Function,
    line: u32,
    /// Whether the thread was unwinding already: the function is called by a destructor.
    panicking: bool,
    /// How often the block may have been left, less how often it was not. Only one thread at a time has it, but futures that hold
    /// it may have to be told to all.
    leaving: AtomicU32,
}

impl Closing {
    /// The block may be left now, by what becomes of this value; its end is then not reached.
    #[inline]
    pub fn may_leave<T>(&self, value: T) -> T {
        self.leaving.store(self.leaving.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        value
    }

    /// It was not left.
    #[inline]
    pub fn stays<T>(&self, value: T) -> T {
        self.leaving.store(self.leaving.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        value
    }
}

impl Drop for Closing {
    #[inline]
    fn drop(&mut self) {
        let left = self.leaving.load(Ordering::Relaxed) != 0;
        if mode::current() & RECORD != 0 && !left && std::thread::panicking() == self.panicking {
            self.function.reach(self.line);
        }
    }
}

/// What [`Function::each`] returns.
#[derive(Debug)]
pub struct Each<I> {
    iterator: I,
    function: &'static Function,
    line: u32,
    again: bool,
}

impl<I: Iterator> Iterator for Each<I> {
    type Item = I::Item;

    #[inline]
    #[track_caller]
    fn next(&mut self) -> Option<I::Item> {
        if std::mem::replace(&mut self.again, true) {
            self.function.line(self.line);
        }
        self.iterator.next()
    }
}

/// What [`Function::polled`] returns.
#[derive(Debug)]
pub struct Polled<F> {
    /// `None` once it is over.
    body: Option<F>,
    function: &'static Function,
    activation: Activation,
}

impl<F: Future> Future for Polled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `body` stays where it is until it is dropped there, below or in `drop`; the other fields need not.
        let (mut body, function, activation) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.body), this.function, &mut this.activation)
        };
        let running = Running::begin(function, activation);
        let Some(future) = body.as_mut().as_pin_mut() else { panic!("polled after it was over") };
        let result = future.poll(context);
        if result.is_ready() {
            // What it still holds is freed by the function.
            body.set(None);
            running.end();
        }
        result
    }
}

impl<F> Drop for Polled<F> {
    fn drop(&mut self) {
        if self.body.is_some() && self.activation.recording != 0 {
            let running = Running::begin(self.function, &mut self.activation);
            // SAFETY: it is dropped where it is.
            unsafe { Pin::new_unchecked(&mut self.body) }.set(None);
            running.end();
        }
    }
}

/// An activation that runs until the end of this poll, whatever that is.
struct Running<'a>(&'a mut Activation);

impl<'a> Running<'a> {
    fn begin(function: &'static Function, activation: &'a mut Activation) -> Running<'a> {
        if mode::current() & RECORD != 0 {
            let again = function.begin(activation);
            // The same one, if it has begun already: not over by being replaced.
            activation.recording = 0;
            *activation = again;
        }
        Running(activation)
    }

    fn end(self) {
        self.0.leave(true);
        self.0.recording = 0;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave(false);
    }
}

/// The activations that run on a thread, outermost first.
#[derive(Debug)]
pub(crate) struct Activations {
    memory: Mapping,
    len: usize,
    /// The recording that they belong to.
    recording: u32,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Place {
    function: u32,
    /// The line that it has reached; 0 for none.
    line: u32,
    activation: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Place {}

impl Activations {
    pub(crate) const fn new() -> Activations {
        Activations { memory: Mapping::empty(), len: 0, recording: 0 }
    }

    /// Forgets what was running in another recording: its numbers mean other functions there.
    #[inline]
    pub(crate) fn belong_to(&mut self, recording: u32) {
        if self.recording != recording {
            (self.recording, self.len) = (recording, 0);
        }
    }

    /// One more, innermost; false if there is no memory for it.
    pub(crate) fn push(&mut self, function: u32, activation: u64) -> bool {
        if self.memory.slice::<Place>().len() == self.len {
            let Ok(mut larger) = Mapping::anonymous((self.len * 2).max(FIRST_ROOM) * size_of::<Place>())
            else {
                return false;
            };
            larger.slice_mut()[..self.len].copy_from_slice(&self.memory.slice::<Place>()[..self.len]);
            self.memory = larger;
        }
        self.memory.slice_mut()[self.len] = Place { function, line: 0, activation };
        self.len += 1;
        true
    }

    /// The innermost activation of a function of this recording, and the line that it has reached.
    #[inline]
    pub(crate) fn of(&mut self, recording: u32, function: u32) -> Option<(u64, &mut u32)> {
        if self.recording != recording {
            return None;
        }
        let running = self.memory.slice_mut::<Place>().get_mut(..self.len)?;
        let place = running.iter_mut().rev().find(|place| place.function == function)?;
        Some((place.activation, &mut place.line))
    }

    /// This one is over, and all within it that were never left; false if it does not run here.
    pub(crate) fn pop(&mut self, activation: u64) -> bool {
        let running = self.memory.slice::<Place>().get(..self.len).unwrap_or_default();
        match running.iter().rposition(|place| place.activation == activation) {
            Some(at) => {
                self.len = at;
                true
            }
            None => false,
        }
    }
}

/// A page.
const FIRST_ROOM: usize = 4096 / size_of::<Place>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_activation_is_found_and_what_was_never_left_goes_with_its_caller() {
        let mut running = Activations::new();
        assert!(running.of(0, 1).is_none() && !running.pop(7));
        let of = |running: &mut Activations, function| running.of(0, function).map(|(number, _)| number);
        for number in 0..1000 {
            assert!(running.push((number % 3) as u32, number));
        }
        assert_eq!([0, 1, 2].map(|function| of(&mut running, function)), [Some(999), Some(997), Some(998)]);
        assert!(running.pop(998) && !running.pop(999), "the last one went with its caller");
        running.belong_to(0);
        assert!(running.of(1, 0).is_none(), "of another recording");
        assert_eq!([0, 2].map(|function| of(&mut running, function)), [Some(996), Some(995)]);
        running.belong_to(1);
        assert_eq!([0, 2].map(|function| of(&mut running, function)), [None; 2], "another recording");
    }
}
