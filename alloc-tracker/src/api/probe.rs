//! What an annotated function reports to the recorder while it runs: its begin, each line that it
//! reaches, its end. In: calls that `#[profile]` has put into the function. Out: entries in the
//! thread's ring, in order with the thread's heap events.
//!
//! Without a recording each probe is a load and a branch. Never allocates, never panics, never
//! waits except for room in the ring, as an event does.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use alloc_dump::record::LINE_AGAIN;

use crate::base::mode::{self, RECORD};
use crate::recorder::{self, ActivationId, AnnotatedFunction};

/// Puts a named mark into the recording at this moment of the calling thread: `profiler-cli
/// summary` shows the mark with its time and the live heap, `profiler-cli timeline` draws it.
/// Without a recording it does nothing. The first 65,536 bytes of the name are kept.
///
/// ```
/// alloc_tracker::mark("everything is loaded");
/// ```
pub fn mark(name: &str) {
    if is_recording() {
        recorder::mark(name.as_bytes());
    }
}

/// An annotated function: its path, file and lines, as `#[profile]` has found them in the source.
#[derive(Debug)]
pub struct Function(AnnotatedFunction);

impl Function {
    /// Describes the function with the path `name`, which extends from `start_line` to `end_line`
    /// of `file`.
    pub const fn new(name: &'static str, file: &'static str, start_line: u32, end_line: u32) -> Function {
        Function(AnnotatedFunction::new(name, file, start_line, end_line))
    }

    /// Begins an activation, which ends when the guard is dropped.
    #[inline]
    pub fn enter(&'static self) -> Activation {
        if !is_recording() {
            return Activation { id: None };
        }
        Activation { id: self.begin(None) }
    }

    /// Reports that the innermost activation of this function on this thread reaches a line.
    #[inline]
    pub fn line(&'static self, line: u32) {
        if is_recording() {
            self.reach(line);
        }
    }

    /// Wraps the iterator of a `for` loop, so that the loop's head reaches this line before each
    /// item. The first item counts only with `again`: usually the probe of the `for` statement has
    /// just reached the line.
    #[inline]
    #[track_caller]
    pub fn each<I: IntoIterator>(&'static self, line: u32, again: bool, of: I) -> Each<I::IntoIter> {
        Each { iterator: of.into_iter(), function: self, line, again }
    }

    /// Returns a guard for the time in which a closure of this function is called. When the guard
    /// is dropped, the activation returns to the line at which it is now.
    #[inline]
    pub fn aside(&'static self) -> Aside {
        let line = if is_recording() { self.line_now() } else { None };
        Aside { function: self, line }
    }

    #[cold]
    #[inline(never)]
    fn line_now(&'static self) -> Option<u32> {
        recorder::line_now(&self.0)
    }

    /// Reaches this line. `at(line).of(value)` evaluates the value after that and returns it.
    #[inline]
    pub fn at(&'static self, line: u32) -> At {
        self.line(line);
        At
    }

    /// Reaches this line after the value was evaluated, and returns the value. The line is the end
    /// of a block whose locals are not dropped yet.
    #[inline]
    pub fn closing<T>(&'static self, line: u32, value: T) -> T {
        self.line(line);
        value
    }

    /// Returns a guard that reaches this line when it is dropped, unless a panic drops it. The
    /// guard is the last local of a block, so it is dropped before all others.
    #[inline]
    pub fn closes(&'static self, line: u32) -> Closing {
        let panicking = is_recording() && std::thread::panicking();
        Closing { function: self, line, panicking, leaving: AtomicU32::new(0) }
    }

    /// Wraps the body of an async function: the activation of the function continues whenever the
    /// future is polled.
    pub fn polled<F: Future>(&'static self, body: F) -> Polled<F> {
        Polled { body: Some(body), function: self, activation: Activation { id: None } }
    }

    #[cold]
    #[inline(never)]
    fn begin(&'static self, resumed: Option<ActivationId>) -> Option<ActivationId> {
        recorder::enter_function(&self.0, resumed)
    }

    #[cold]
    #[inline(never)]
    fn reach(&'static self, line: u32) {
        recorder::reach_line(&self.0, line);
    }
}

/// One call of an annotated function, while it runs.
#[derive(Debug)]
#[must_use = "the function is over when this is dropped"]
pub struct Activation {
    /// `None` if the activation is not recorded.
    id: Option<ActivationId>,
}

impl Activation {
    /// Reports that the thread no longer runs the activation. `ended` is false if the activation
    /// will continue later.
    #[inline]
    fn leave(&self, ended: bool) {
        if let Some(id) = self.id {
            leave_recorded(id, ended);
        }
    }
}

#[cold]
#[inline(never)]
fn leave_recorded(id: ActivationId, ended: bool) {
    if is_recording() {
        recorder::leave_function(id, ended);
    }
}

impl Drop for Activation {
    #[inline]
    fn drop(&mut self) {
        self.leave(true);
    }
}

/// A line that was reached; [`At::of`] hands a value through after that. Made by [`Function::at`].
#[derive(Debug)]
pub struct At;

impl At {
    /// Returns the value, which the caller has evaluated after [`Function::at`] reached the line.
    #[inline]
    pub fn of<T>(self, value: T) -> T {
        value
    }
}

/// Brings the activation back to its line when it is dropped. Made by [`Function::aside`].
#[derive(Debug)]
#[must_use = "the activation goes back to its line when this is dropped"]
pub struct Aside {
    function: &'static Function,
    /// `None` if there is no line to go back to.
    line: Option<u32>,
}

impl Drop for Aside {
    #[inline]
    fn drop(&mut self) {
        if let Some(line) = self.line {
            self.function.line(line | LINE_AGAIN);
        }
    }
}

/// Reaches the line of a closing brace when it is dropped. Made by [`Function::closes`].
#[derive(Debug)]
#[must_use = "the line is reached when this is dropped"]
pub struct Closing {
    function: &'static Function,
    line: u32,
    /// Whether the thread was unwinding already when the block began, because a destructor called
    /// the function.
    panicking: bool,
    /// Calls of [`may_leave`](Closing::may_leave) minus calls of [`stays`](Closing::stays). If it
    /// is not 0 when the guard is dropped, the block was left before its end. One thread at a time
    /// uses it. It is atomic because a future that holds the guard may have to be `Sync`.
    leaving: AtomicU32,
}

impl Closing {
    /// Notes that the expression which uses this value, a `?` for example, may leave the block. If
    /// it does, the block's end is not reached.
    #[inline]
    pub fn may_leave<T>(&self, value: T) -> T {
        self.leaving.store(self.leaving.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        value
    }

    /// Notes that the block was not left.
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
        if is_recording() && !left && std::thread::panicking() == self.panicking {
            self.function.reach(self.line);
        }
    }
}

/// An iterator that reaches a line before each item. Made by [`Function::each`].
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

/// The body of an async function, with its activation. Made by [`Function::polled`].
#[derive(Debug)]
pub struct Polled<F> {
    /// `None` once the future is ready or dropped.
    body: Option<F>,
    function: &'static Function,
    activation: Activation,
}

impl<F: Future> Future for Polled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `body` stays where it is until it is dropped there, below or in `drop`. The other
        // fields may move.
        let (mut body, function, activation) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.body), this.function, &mut this.activation)
        };
        let running = PolledActivation::begin(function, activation);
        let Some(future) = body.as_mut().as_pin_mut() else { panic!("polled after it was over") };
        let result = future.poll(context);
        if result.is_ready() {
            // The body is dropped before the activation ends, so its frees count for this function.
            body.set(None);
            running.end();
        }
        result
    }
}

impl<F> Drop for Polled<F> {
    fn drop(&mut self) {
        if self.body.is_some() && self.activation.id.is_some() {
            let running = PolledActivation::begin(self.function, &mut self.activation);
            // SAFETY: `body` is dropped where it is.
            unsafe { Pin::new_unchecked(&mut self.body) }.set(None);
            running.end();
        }
    }
}

/// An activation during one poll. When dropped, by a return or by a panic, it leaves the
/// activation.
struct PolledActivation<'a>(&'a mut Activation);

impl<'a> PolledActivation<'a> {
    fn begin(function: &'static Function, activation: &'a mut Activation) -> PolledActivation<'a> {
        if is_recording() {
            activation.id = function.begin(activation.id);
        }
        PolledActivation(activation)
    }

    fn end(self) {
        self.0.leave(true);
        self.0.id = None;
    }
}

impl Drop for PolledActivation<'_> {
    fn drop(&mut self) {
        self.0.leave(false);
    }
}

/// Whether a recording runs. PERF: without one, this load and its branch are all that a probe
/// costs.
#[inline(always)]
fn is_recording() -> bool {
    mode::current() & RECORD != 0
}
