//! Functions whose behaviour a less careful attribute would change, for `tests/attribute.rs`. The
//! program prints what they do. Each attribute is on a line of its own.
#![allow(dead_code)]

use std::cell::RefCell;
use std::fmt::{Debug, Display, Formatter};
use std::future::Future;
use std::panic::{Location, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Prints when it is dropped.
struct Noisy(&'static str);

impl Noisy {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn itself(&self) -> &Noisy {
        self
    }
}

impl Drop for Noisy {
    fn drop(&mut self) {
        println!("  drop {}", self.0);
    }
}

struct Two {
    first: Noisy,
    second: Noisy,
}

macro_rules! shown {
    ($value:expr) => {
        println!("  {} {}", stringify!($value), $value)
    };
}

impl Two {
    /// The macro shows how its argument is written, so `self` keeps its name. The future must own
    /// both fields all the same.
    #[alloc_tracker::profile]
    async fn shows_the_second(self) {
        std::future::ready(()).await;
        shown!(self.second.len());
    }
}

// Temporaries in the value of a block: before Rust 2024 they outlive the block's locals.

#[alloc_tracker::profile]
fn borrows_its_argument(list: RefCell<Vec<u8>>) -> usize {
    list.borrow().len()
}

#[alloc_tracker::profile]
fn has_a_temporary(argument: Noisy) -> usize {
    let local = Noisy("local");
    Noisy("temporary").itself().len() + local.len() + argument.len()
}

#[alloc_tracker::profile]
fn has_a_temporary_in_a_match(argument: Noisy) -> usize {
    let _local = Noisy("local");
    match Noisy("matched").len() {
        0 => argument.len(),
        len => Noisy("arm").len() + len,
    }
}

#[alloc_tracker::profile]
fn has_a_temporary_in_a_last_if(argument: Noisy) {
    let _local = Noisy("local");
    if let 1.. = Noisy("condition").len() {
        println!("  in the if, {}", argument.len());
    }
}

#[alloc_tracker::profile]
fn has_a_temporary_in_a_last_for(argument: Noisy) {
    let _local = Noisy("local");
    for number in 0..Noisy("head").len().min(2) {
        println!("  {number} {}", argument.len());
    }
}

#[alloc_tracker::profile]
async fn has_a_temporary_and_waits(argument: Noisy) -> usize {
    let _local = Noisy("local");
    std::future::ready(Noisy("waited for").len()).await + Noisy("temporary").len() + argument.len()
}

fn drops(first: Noisy, second: Noisy) -> usize {
    first.len() + second.len()
}

#[alloc_tracker::profile]
fn drops_in_order(_: Noisy, second: Noisy, (third, _): (Noisy, Noisy), fourth: Noisy) -> usize {
    let fifth = Noisy("fifth");
    drops(second, fifth) + third.len() + fourth.len()
}

// Temporaries that live longer because a reference to them is the value of a block.

fn text() -> String {
    String::from("text")
}

#[alloc_tracker::profile]
fn keeps_borrowed_temporaries(choice: bool) -> usize {
    let one = {
        let choice = choice;
        if choice { &text() } else { &text() }
    };
    let two = {
        let choice = choice;
        match choice {
            true => &text(),
            false => &text(),
        }
    };
    let three = {
        let _other = 1;
        Some((&text(), &*String::from("more")))
    };
    let four = {
        let _other = 1;
        &text() as &dyn Debug
    };
    println!("  {one} {two} {three:?} {four:?}");
    one.len()
}

// Ends of blocks.

#[alloc_tracker::profile]
fn assigns(into: &mut u8, from: u8) {
    *into = from
}

#[alloc_tracker::profile]
fn assigns_somewhere(into: &mut u8, from: Option<u8>) {
    let _local = vec![1];
    match from {
        Some(from) => {
            let twice = from * 2;
            *into = twice
        }
        None => *into += 1,
    }
}

#[alloc_tracker::profile]
fn of_the_right_type(number: u8) -> Box<dyn Fn(u8) -> u64> {
    let more = vec![number];
    Box::new(move |other| u64::from(other) + more.len() as u64)
}

#[alloc_tracker::profile]
fn of_a_known_type(texts: &[&str]) -> Result<Vec<u16>, std::num::ParseIntError> {
    let held = vec![1];
    let numbers = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    drop(held);
    Ok(numbers)
}

#[alloc_tracker::profile]
fn begins_with_a_question_mark(list: Option<&[usize]>) -> Option<usize> {
    let one = 1;
    let len = match one {
        1 => &list?[1..],
        _ => list?,
    };
    let range = match one {
        1 => 1..list?[0] * 2,
        _ => 0..Some(one)? * 2,
    };
    let _other = {
        let list = list.map(|list| !list.is_empty());
        !list?
    };
    Some(len.len() + range.end)
}

#[alloc_tracker::profile]
fn has_guards(number: usize) -> usize {
    let pointer = &raw const number;
    match number {
        0 => 1,
        _ if unsafe { *pointer } == 1 => 2,
        _ if { number } == 2 => 3,
        _ if match number {
            3 => true,
            _ => false,
        } =>
        {
            4
        }
        _ => 5,
    }
}

#[alloc_tracker::profile]
fn has_attributes_inside(mut number: usize) -> [usize; 3] {
    while number > 5 {
        #![allow(unused_variables)]
        let unused = 1;
        number -= 1;
    }
    let made = [
        number;
        {
            let mut n = 0;
            while n < 3 {
                n += 1;
            }
            n
        }
    ];
    made
}

#[alloc_tracker::profile]
async fn never_ends(mut rounds: usize) -> ! {
    let _held = vec![1];
    loop {
        rounds += later(1).await;
        println!("  round {rounds}");
    }
}

#[alloc_tracker::profile]
fn uses_what_may_be_skipped(on: bool) -> bool {
    let has_items = on && {
        let list = vec![1];
        !list.is_empty()
    }; let other = vec![2].len();
    has_items && other == 1
}

// Arguments.

#[alloc_tracker::profile]
fn by_reference(ref mut list: Vec<u8>, ref other: String) -> usize {
    list.push(1);
    list.len() + other.len()
}

struct Both(u8);

trait Tr {
    fn both(self, self_value: u8) -> u8;
}

impl Tr for Both {
    #[alloc_tracker::profile]
    fn both(self, self_value: u8) -> u8 {
        self.0 * 10 + self_value
    }
}

impl Display for Both {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        write!(out, "both {}", self.0)
    }
}

macro_rules! looks_at {
    (self . $field:tt) => {
        "self"
    };
    ($other:expr) => {
        "an expression"
    };
}

impl Both {
    #[alloc_tracker::profile]
    fn is_taken(self, other: Both) -> u8 {
        let self_value = other;
        self_value.0 * 10 + self.0
    }

    #[alloc_tracker::profile]
    fn is_written(self) -> String {
        format!("{self} {{self}} {self:>8} {} {}", stringify!(self.0), looks_at!(self.0))
    }

    #[alloc_tracker::profile]
    fn is_printed(self) -> String {
        let text = format!("{self} {{self}} {self:>8} {self } {}", self.0);
        text + "{self}"
    }

    #[alloc_tracker::profile]
    fn is_asserted(mut self) {
        self.0 += 1;
        assert!(self.0 == 2);
    }

    #[alloc_tracker::profile]
    fn is_in_a_panic(self) {
        assert!(self.0 == 7, "not {self}");
        panic!("with {self}")
    }

    #[alloc_tracker::profile]
    fn in_a_box(self: Box<Self>) -> u8 {
        let closure = || self.0;
        closure() + 1
    }

    #[alloc_tracker::profile]
    fn counted(self: Rc<Self>) -> usize {
        Rc::strong_count(&self)
    }
}

// Methods that a trait of the user's has for all values.

trait ForAll: Sized {
    fn line(self, _: u32) {}
    fn enter(self) {}
    fn closes(self, _: u32) {}
    fn may_leave(self) {}
    fn stays(self) {}
    fn each(self) {}
    fn polled(self) {}
}

impl<T> ForAll for T {}

#[alloc_tracker::profile]
fn has_such_a_trait(list: &mut Vec<u8>) -> Option<usize> {
    for number in 0..3 {
        list.push(number);
    }
    let local = vec![1];
    list.first().map(|first| usize::from(*first) + local.len())?.checked_add(1)
}

// Source locations, as `#[track_caller]` reports them.

struct CallerLocation(String);

impl From<u8> for CallerLocation {
    #[track_caller]
    fn from(_: u8) -> CallerLocation {
        CallerLocation(Location::caller().to_string())
    }
}

struct PrintsCaller(u8);

impl Iterator for PrintsCaller {
    type Item = u8;

    #[track_caller]
    fn next(&mut self) -> Option<u8> {
        println!("  next at {}", Location::caller());
        self.0.checked_sub(1).inspect(|left| self.0 = *left)
    }
}

struct Begins;

impl IntoIterator for Begins {
    type Item = u8;
    type IntoIter = PrintsCaller;

    #[track_caller]
    fn into_iter(self) -> PrintsCaller {
        println!("  into_iter at {}", Location::caller());
        PrintsCaller(1)
    }
}

fn fails() -> Result<u8, u8> {
    Err(1)
}

#[alloc_tracker::profile]
fn reports_locations(case: u8) -> Result<u8, CallerLocation> {
    for _ in Begins {}
    let _local = vec![case];
    match case {
        0 => Ok(fails()? + 1),
        1 => Ok(
            fails()?,
        ),
        _ => Err(CallerLocation::from(case)),
    }
}

// Futures.

fn is_send<T: Send>(value: T) -> T {
    value
}

async fn later(number: usize) -> usize {
    let mut pending = true;
    std::future::poll_fn(|_| if std::mem::take(&mut pending) { Poll::Pending } else { Poll::Ready(()) }).await;
    number
}

#[alloc_tracker::profile]
async fn waits_in_its_value(name: String) -> Result<usize, u8> {
    let own = vec![1];
    match name.len() {
        0 => Err(fails()?),
        _ => Ok(later(later(own.len()).await + name.len()).await),
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

fn main() {
    println!("{}", borrows_its_argument(RefCell::new(vec![1, 2])));
    println!("{}", has_a_temporary(Noisy("argument")));
    println!("{}", has_a_temporary_in_a_match(Noisy("argument")));
    has_a_temporary_in_a_last_if(Noisy("argument"));
    has_a_temporary_in_a_last_for(Noisy("argument"));
    println!("{}", run(has_a_temporary_and_waits(Noisy("argument"))));
    run(Two { first: Noisy("first field"), second: Noisy("second field") }.shows_the_second());
    let two = (Noisy("third"), Noisy("of the third"));
    println!("{}", drops_in_order(Noisy("first"), Noisy("second"), two, Noisy("fourth")));
    println!("{}", keeps_borrowed_temporaries(true));
    let mut byte = 0;
    assigns(&mut byte, 3);
    assigns_somewhere(&mut byte, Some(4));
    assigns_somewhere(&mut byte, None);
    println!("{byte} {}", of_the_right_type(2)(3));
    println!("{:?} {:?}", begins_with_a_question_mark(Some(&[1, 2])), begins_with_a_question_mark(None));
    println!("{:?} {:?}", [0, 1, 2, 3, 4].map(has_guards), has_attributes_inside(7));
    println!("{} {}", uses_what_may_be_skipped(true), uses_what_may_be_skipped(false));
    let mut endless = pin!(never_ends(0));
    for _ in 0..3 {
        let _ = endless.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    }
    println!("{:?} {:?}", of_a_known_type(&["1", "2"]), of_a_known_type(&["1", "x"]));
    println!("{}", by_reference(vec![1], String::from("other")));
    println!("{} {}", Both(1).both(2), Both(1).is_taken(Both(2)));
    println!("{} {}", Both(1).is_written(), Both(2).is_printed());
    println!("{} {}", Box::new(Both(1)).in_a_box(), Rc::new(Both(1)).counted());
    std::panic::set_hook(Box::new(|panic| println!("  {panic}")));
    println!("{}", catch_unwind(|| Both(2).is_asserted()).is_err());
    for number in [1, 7] {
        println!("{}", catch_unwind(|| Both(number).is_in_a_panic()).is_err());
    }
    println!("{:?}", has_such_a_trait(&mut vec![4]));
    for case in 0..3 {
        println!("{:?}", reports_locations(case).map_err(|CallerLocation(location)| location));
    }
    println!("{:?}", run(is_send(waits_in_its_value(String::from("name")))));
    println!("{:?}", run(waits_in_its_value(String::new())));
}
