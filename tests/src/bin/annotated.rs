//! Annotated functions. A comment `//= OCCURRENCES INCREMENT` behind a line, or alone on the next
//! line, says what the table must show for it. The figures come from arithmetic on the sizes. Lines
//! without such a comment are never reached or have no probe. The program prints by how many bytes
//! the calls of each function changed the heap, by an independent counter.

#![forbid(unsafe_code)]
#![warn(clippy::pedantic)]
#![allow(clippy::useless_vec, reason = "every `vec!` is there to allocate a block")]

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use alloc_oracle::{Counting, snapshot};
use alloc_tracker::{AllocTracker, profile};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() {
    let mut changes = Vec::with_capacity(16);
    let mut measure = |name: &'static str, call: fn()| {
        let before = snapshot().live_bytes;
        call();
        changes.push((name, snapshot().live_bytes.wrapping_sub(before).cast_signed()));
    };
    measure("after_release", after_release);
    measure("outer", || {
        outer();
    });
    measure("recurses", || {
        recurses(4);
    });
    measure("one_statement", one_statement);
    measure("Shelf::fill", || Shelf::default().keep());
    measure("Chest::opened", || {
        black_box(Chest(vec![0; 100]).opened(&[1, 2]));
    });
    measure("takes_apart", || {
        let two = [vec![0u8; 1], vec![0u8; 2]];
        black_box(takes_apart((vec![0; 10], vec![0; 20]), two));
    });
    measure("has_attributes", || {
        has_attributes(vec![0; 9]);
    });
    measure("makes", || {
        black_box(makes()());
    });
    measure("passes_on", || {
        black_box(passes_on());
    });
    measure("may_leave", || {
        for bytes in [None, Some(vec![0; 20]), Some(vec![0; 9])] {
            black_box(may_leave(bytes));
        }
    });
    measure("by_macro", || {
        black_box(by_macro());
    });
    measure("chooses", || {
        (0..4).for_each(|number| drop(black_box(chooses(number))));
    });
    measure("finds", || {
        black_box((0..4).map(finds).sum::<usize>());
    });
    measure("is_conditional", || {
        black_box([true, false].map(is_conditional));
    });
    measure("binds_in_an_if", || {
        black_box([true, false].map(binds_in_an_if));
    });
    measure("made_elsewhere", || {
        black_box(made_elsewhere(vec![0; 5]));
    });
    measure("around_another", || {
        black_box(around_another(3));
    });
    measure("guards_with_a_let", || {
        black_box([Some(7), None].map(guards_with_a_let));
    });
    measure("chooses_in_a_closure", || {
        black_box(chooses_in_a_closure(100));
    });
    measure("gives_no_name", || {
        black_box(gives_no_name());
    });
    measure("on_one_line", || (0..3).for_each(|_| _ = black_box(on_one_line(vec![0; 5]))));
    measure("Twice::len", || {
        black_box(Twice(vec![0; 7]).len());
    });
    measure("Label::texts", || drop(black_box(Label(vec![0; 25]).texts())));
    measure("tidies", || {
        black_box(tidies());
    });
    std::panic::set_hook(Box::new(|_| {}));
    for panics in [false, true] {
        drop(std::panic::catch_unwind(|| unwinds(panics)));
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| works(2));
        }
    });
    two_threads_poll(moves("5 B  ".to_owned()), 38);
    two_threads_poll(waits("5 B  ".to_owned()), 12);
    dropped_early(waits("5 B  ".to_owned()));
    alloc_tracker::mark("all is done");
    for (name, change) in changes {
        println!("{name} {change}");
    }
}

#[profile]
fn after_release() {
    let large = vec![0u8; 90_000]; //= 1 90000
    drop(black_box(large)); //= 1 -90000
    let mut kept = Vec::with_capacity(10); //= 1 240
    for size in 1..=10 {
        //= 11 0
        let scratch = vec![0u8; 100]; //= 10 1000
        kept.push(vec![1u8; size]); //= 10 55
        black_box(&scratch); //= 10 0
    } //= 10 -1000
    while let Some(last) = kept.pop() {
        //= 11 0
        black_box(last); //= 10 -55
    } //= 10 0
} //= 1 -240

#[profile]
fn outer() -> usize {
    let own = vec![0u8; 30]; //= 1 30
    let more = inner(); //= 1 3000
    own.len() + more.len() //= 1 0
} //= 1 -3030

#[profile]
fn inner() -> Vec<u8> {
    let scratch = vec![1u8; 500]; //= 1 500
    scratch.repeat(6) //= 1 3000
} //= 1 -500

#[profile]
fn recurses(depth: usize) -> usize {
    let own = vec![0u8; 100 * (depth + 1)]; //= 5 1500
    if depth == 0 {
        //= 5 0
        return black_box(&own).len(); //= 1 -100
    }
    let below = recurses(depth - 1); //= 4 0
    black_box(&own).len() + below //= 4 0
} //= 4 -1400

#[profile]
#[rustfmt::skip]
fn one_statement() {
    let list = joined(
        //= 1 30
        vec![1u8; 10],
        vec![2u8; 20],
        "a third argument, so that the call needs several lines",
    );
    black_box(list); black_box(vec![0u8; 9]); //= 1 -30
} //= 1 0

fn joined(mut first: Vec<u8>, second: Vec<u8>, text: &str) -> Vec<u8> {
    first.reserve_exact(second.len());
    first.extend(second);
    black_box(text);
    first
}

#[derive(Default)]
struct Shelf(Vec<Vec<u8>>);

#[profile]
impl Shelf {
    fn fill(&mut self, sizes: &[usize]) -> Option<&mut Vec<u8>> {
        self.0.reserve_exact(sizes.len()); //= 1 72
        for size in sizes {
            //= 4 0
            self.0.push(vec![0; *size]); //= 3 60
        } //= 3 0
        self.0.last_mut() //= 1 0
    } //= 1 0

    fn keep(mut self) {
        let filled = self.fill(&[10, 20, 30]).map(|last| last.len()); //= 1 132
        black_box(filled); //= 1 0
        self.0.clear(); //= 1 -60
        self.0.shrink_to_fit(); //= 1 -72
    } //= 1 0
}

struct Chest(Vec<u8>);

#[profile]
impl Chest {
    fn opened(self, more: &[u8]) -> usize {
        let lid = vec![0u8; 8]; //= 1 8
        let rest = vec![0u8; self.0.len() / 20]; //= 1 5
        let add = |more: usize| self.0.len() + more; //= 1 0
        add(lid.len() + rest.len() + more.len()) //= 1 0
    } //= 1 -113
}

#[profile]
fn takes_apart((first, _): (Vec<u8>, Vec<u8>), [one, two]: [Vec<u8>; 2]) -> usize {
    let own = vec![0u8; 3]; //= 1 3
    own.len() + first.len() + one.len() + two.len() //= 1 0
} //= 1 -36

#[profile]
fn has_attributes(
    #[cfg(any())] absent: Vec<u8>,
    #[expect(unused_variables, reason = "freed at the end all the same")] unused: Vec<u8>,
) {
    black_box(()); //= 1 0
} //= 1 -9

#[profile]
fn makes() -> impl Fn() -> usize {
    let scratch = vec![0u8; 50]; //= 1 50
    let len = scratch.len(); //= 1 0
    move || len //= 1 0
} //= 1 -50

#[profile]
fn passes_on() -> usize {
    let scratch = vec![0u8; 60]; //= 1 60
    counts(&scratch.repeat(2)) //= 1 0
} //= 1 -60

/// The value of its block is a call with a reference to a temporary, and it contains a `?`.
#[profile]
fn may_leave(bytes: Option<Vec<u8>>) -> Option<usize> {
    let scratch = vec![0u8; 80]; //= 3 240
    counts_some(&bytes.filter(|bytes| bytes.len() < 10)?.repeat(scratch.len() / 80)) //= 3 freed 198
} //= 1 -80

fn counts(bytes: &[u8]) -> usize {
    black_box(bytes).len()
}

fn counts_some(bytes: &[u8]) -> Option<usize> {
    Some(counts(bytes)).filter(|count| *count > 0)
}

macro_rules! length_of {
    ($of:expr) => {
        black_box(&$of).len()
    };
}

#[profile]
fn by_macro() -> usize {
    let scratch = vec![0u8; 70]; //= 1 70
    length_of!(scratch) //= 1 0
} //= 1 -70

macro_rules! bail {
    ($with:expr) => {
        return black_box(&$with).len()
    };
}

/// Its value is made by calls. Inside are ways out of the function, and jumps that only look like
/// them.
#[profile]
#[expect(clippy::never_loop, reason = "the test is about which loop is left and how")]
fn finds(number: usize) -> usize {
    let scratch = vec![0u8; 40]; //= 4 160
    match number {
        //= 4 0
        0 => counts({
            //= 1 0
            let mut rounds = 0; //= 1 0
            'again: loop {
                //= 1 0
                rounds += 1; //= 3 0
                if rounds < 2 {
                    //= 3 0
                    continue; //= 1 0
                }
                loop {
                    //= 2 0
                    if rounds < 3 {
                        //= 2 0
                        continue 'again; //= 1 0
                    }
                    break; //= 1 0
                }
                break &scratch; //= 1 0
            }
        }), //= 1 0
        1 => bail!(scratch),                                               //= 1 -40
        2 => counts(if scratch.is_empty() { &scratch } else { return 7 }), //= 1 -40
        _ => counts(&scratch),                                             //= 1 0
    }
} //= 2 -80

/// Only the compiler knows which of its statements is the value.
#[profile]
fn is_conditional(early: bool) -> usize {
    let scratch = vec![0u8; 33]; //= 2 66
    #[cfg(any())]
    absent();
    #[allow(clippy::redundant_clone, reason = "the line of the code is what counts")]
    let copy = scratch.clone(); //= 2 66
    #[cfg(not(any()))]
    {
        //= 2 0
        if early {
            //= 2 0
            #[allow(clippy::needless_return, reason = "with something before it")]
            return copy.len(); //= 1 -66
        }
        counts(&copy) //= 1 0
    }
    #[cfg(any())]
    {
        absent()
    }
} //= 1 -66

#[profile]
fn binds_in_an_if(on: bool) -> usize {
    let skipped = on && {
        //= 2 0
        let scratch = vec![0u8; 5]; //= 1 5
        counts(&scratch) == 5 //= 1 0
    }; //= 1 -5
    let mut sum = 0; //= 2 0
    if let Some(held) = Some(vec![0u8; 100]) {
        //= 2 200
        sum += counts(&held); //= 2 0
    } //= 2 -200
    sum + usize::from(skipped) //= 2 0
} //= 2 0

struct Label(Vec<u8>);

impl std::fmt::Display for Label {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:03}", self.0.len())
    }
}

#[profile]
impl Label {
    fn texts(self) -> [String; 2] {
        let mut text = String::with_capacity(3); //= 1 3
        std::fmt::Write::write_fmt(&mut text, format_args!("{self}")).unwrap(); //= 1 0
        [text, "{self}".to_owned()] //= 1 6
    } //= 1 -25
}

/// Called once normally and once while the thread unwinds.
#[profile]
fn tidies() -> usize {
    let own = vec![0u8; 15]; //= 2 30
    counts(&own) //= 2 0
} //= 2 -30

struct Tidies;

impl Drop for Tidies {
    fn drop(&mut self) {
        black_box(tidies());
    }
}

#[profile]
fn chooses(number: usize) -> Vec<u8> {
    let Some(size) = number.checked_sub(1) else {
        //= 4 0
        return vec![0; 7]; //= 1 7
    };
    let mut rounds = 0; //= 3 0
    let list = loop {
        //= 3 0
        rounds += 1; //= 6 0
        if rounds > size {
            //= 6 0
            break vec![0u8; rounds]; //= 3 6
        }
    };
    let add = |more: usize| {
        //= 3 0
        let more = vec![0u8; more]; //= 1 20
        more.len() //= 1 0
    }; //= 1 -20
    match list.len() {
        //= 3 0
        1 => list, //= 1 0
        n if n > 2 => {
            //= 2 0
            let sum = n + list.len(); //= 1 0
            vec![0; sum] //= 1 6
        } //= 1 0
        _ => vec![0; add(20) + 2], //= 1 22
    }
} //= 3 -5

#[profile]
fn unwinds(panics: bool) {
    let held = vec![0u8; 70]; //= 2 140
    if panics {
        //= 2 0
        let _last = Tidies; //= 1 0
        std::panic::panic_any(held.len()); //= 1 freed 85
    }
    black_box(&held); //= 1 0
} //= 1 -70

#[profile]
fn works(rounds: usize) {
    for _ in 0..rounds {
        //= 9 0
        let block = vec![0u8; 40]; //= 6 240
        std::thread::sleep(std::time::Duration::from_millis(2)); //= 6 0
        black_box(block); //= 6 -240
    } //= 6 0
} //= 3 0

tests::annotated_elsewhere!(made_elsewhere);

/// An annotated function inside of another one: the compiler has parsed its braces before.
#[profile]
fn around_another(rounds: usize) -> usize {
    #[profile]
    fn within(rounds: usize) -> usize {
        let mut sum = 0; //= 1 0
        for size in 0..rounds {
            //= 4 0
            let block = vec![0u8; size]; //= 3 3
            sum += black_box(block).len(); //= 3 -3
        } //= 3 0
        let last = {
            //= 1 0
            let block = black_box(vec![0u8; 9]); //= 1 9
            block.len() //= 1 0
        }; //= 1 -9
        sum + last //= 1 0
    } //= 1 0
    within(rounds) //= 1 0
} //= 1 0

#[profile]
#[rustfmt::skip]
fn guards_with_a_let(size: Option<usize>) -> usize {
    match size { //= 2 0
        Some(size)
            if let Some(block) = filled(size) //= 1 7
                && block.len() > 5 =>
        {
            block.len() //= 1 0
        } //= 1 -7
        _ => 0, //= 1 0
    }
} //= 2 0

fn filled(size: usize) -> Option<Vec<u8>> {
    (size > 0).then(|| black_box(vec![0u8; size]))
}

/// The caller of a closure goes on at its own line, whatever expression the closure is.
#[profile]
fn chooses_in_a_closure(size: usize) -> usize {
    let choose = |size: usize| match size {
        //= 1 0
        0 => Vec::new(),
        _ => vec![0u8; size], //= 1 100
    };
    let both = (choose(size), vec![0u8; 1000]); //= 1 1000
    both.0.len() + both.1.len() //= 1 0
} //= 1 -1100

#[profile]
fn gives_no_name() -> usize {
    let items = [vec![0u8; 10], vec![0; 20], vec![0; 30]]; //= 1 60
    let mut count = 0; //= 1 0
    for _ in items {
        //= 4 0
        count += 1; //= 3 0
    } //= 3 -60
    count //= 1 0
} //= 1 0

#[profile]
#[rustfmt::skip]
fn on_one_line(list: Vec<u8>) -> usize { list.len() } //= 3 -15

struct Twice(Vec<u8>);

/// The attribute on the method changes nothing, because the `impl` block has it.
#[profile]
impl Twice {
    #[profile]
    fn len(self) -> usize {
        self.0.len() //= 1 0
    } //= 1 -7
}

#[profile]
async fn moves(name: String) -> usize {
    let first = vec![0u8; 11]; //= 1 11
    Once(false).await; //= 1 0
    let second = vec![0u8; 22]; //= 1 22
    first.len() + second.len() + name.len() //= 1 0
} //= 1 -38

/// A future that is dropped before its value is there frees what it holds at that line.
#[profile]
async fn waits(name: String) -> usize {
    let own = vec![0u8; 12]; //= 2 24
    later(later(own.len()).await + name.len()).await - 5 //= 2 -17
} //= 1 -17

async fn later(number: usize) -> usize {
    Once(false).await;
    number
}

/// A future that is pending once.
struct Once(bool);

impl Future for Once {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn two_threads_poll(future: impl Future<Output = usize> + Send, expected: usize) {
    let mut future = Box::pin(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // Not allocated by the future.
    let between = black_box(vec![0u8; 1000]);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut future = pin!(future);
            let result = loop {
                if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    break result;
                }
            };
            assert_eq!(result, expected);
        });
    });
    drop(between);
}

fn dropped_early(future: impl Future<Output = usize>) {
    assert!(pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}
