//! Functions about which lints have something to report, for `tests/attribute.rs`. Each attribute
//! is on a line of its own.
#![warn(clippy::pedantic)]
#![allow(dead_code)]

use std::process::exit;

fn never() -> ! {
    exit(1)
}

fn fallible() -> Result<u32, String> {
    Ok(1)
}

#[must_use]
fn precious() -> u32 {
    3
}

#[alloc_tracker::profile]
fn statement_after_never() -> u32 {
    never();
    let x = 1;
    x + 1
}

#[alloc_tracker::profile]
fn value_after_never() -> u32 {
    let _list = vec![1];
    never();
    3 + 4
}

#[alloc_tracker::profile]
fn value_after_return(list: Vec<u32>) -> usize {
    return list.len();
    list.len() + 1
}

#[alloc_tracker::profile]
#[rustfmt::skip]
fn several_on_a_line(list: Vec<u32>) -> usize {
    let copy = list.clone(); never(); copy.len()
}

#[alloc_tracker::profile]
fn never_returns(list: Vec<u32>) -> ! {
    drop(list);
    never()
}

#[alloc_tracker::profile]
fn never_has_a_value(list: Vec<u32>) -> u32 {
    drop(list);
    never()
}

#[alloc_tracker::profile]
fn some_branches_never_have_a_value(list: Vec<u32>) -> u32 {
    let count = list.len();
    if count > 3 {
        let copy = vec![count];
        drop(copy);
        never();
    }
    match count {
        0 => {
            let other = vec![1];
            drop(other);
            never()
        }
        1 => never(),
        2 => {
            never();
        }
        _ => 3,
    }
}

#[alloc_tracker::profile]
fn no_branch_has_a_value(count: u32) -> u32 {
    let held = vec![count];
    match count {
        0 => {
            drop(held);
            never()
        }
        1 => never(),
        _ => unreachable!(),
    }
}

#[alloc_tracker::profile]
fn loops(list: &[u32]) -> u32 {
    loop {
        let copy = list.to_vec();
        if copy.is_empty() {
            break;
        }
        never();
        println!("never");
    }
    for number in list {
        let number = *number;
        if number > 1 {
            continue;
        }
        never();
        drop(list.to_vec());
    }
    while let Some(number) = list.first() {
        never();
        drop(vec![*number]);
    }
    0
}

#[alloc_tracker::profile]
fn does_not_end(list: Vec<u32>) {
    let held = list;
    loop {
        drop(held.clone());
    }
    println!("never");
}

#[alloc_tracker::profile]
fn both_branches_leave(list: Vec<u32>) -> u32 {
    if list.is_empty() {
        return 1;
    } else {
        return 2;
    }
    let x = 3;
    x
}

#[alloc_tracker::profile]
fn all_arms_leave(list: &[u32]) -> u32 {
    match list.len() {
        0 => return 1,
        _ => never(),
    }
    drop(list.to_vec());
}

#[alloc_tracker::profile]
#[allow(unreachable_code)]
fn is_allowed_to() -> u32 {
    never();
    let x = 1;
    x
}

#[alloc_tracker::profile]
fn a_statement_is_allowed_to() -> u32 {
    never();
    #[allow(unreachable_code)]
    let x = 1;
    x
}

#[alloc_tracker::profile]
fn expects_what_is_found() -> u32 {
    #[expect(unused_variables, reason = "it is there")]
    let first = 1;
    #[expect(unused_mut)]
    let mut second = 2;
    #[expect(unused_must_use)]
    fallible();
    second
}

#[alloc_tracker::profile]
fn a_block_is_allowed_to(list: &[u32]) -> u32 {
    return list[0];
    {
        #![allow(unreachable_code)]
        drop(list.to_vec());
        list[1]
    }
}

#[alloc_tracker::profile]
fn leaves_things_unused() {
    precious();
    fallible();
    let number = 3;
    let mut other = 4;
    other;
    let _ = fallible();
    other == 5;
}

#[alloc_tracker::profile]
fn does_not_need_its_arguments(first: u32, mut second: Vec<u32>, (third, fourth): (u32, String)) -> u32 {
    let unused = 5;
    let late: u32;
    late = 5;
    late
}

#[alloc_tracker::profile]
fn assigns_in_vain() -> u32 {
    let mut number = 3;
    number = 4;
    number = 5;
    number
}

#[alloc_tracker::profile]
fn has_closures(list: &[u32]) -> usize {
    let first = || {
        never();
        3
    };
    let second = |x: u32| -> u32 {
        return x;
        x + 1
    };
    let third = |x: u32| {
        let unused = x;
        never()
    };
    let as_function: fn(u32) -> u32 = third;
    list.len() + first() + second(3) as usize + as_function(4) as usize
}

#[alloc_tracker::profile]
async fn leaves_early(list: Vec<u32>) -> usize {
    std::future::ready(()).await;
    return list.len();
    let x = 3;
    x
}

async fn forever() -> ! {
    std::future::pending().await
}

#[alloc_tracker::profile]
async fn waits_forever(list: Vec<u32>) -> usize {
    drop(list);
    forever().await
}

#[alloc_tracker::profile]
async fn waits_forever_or_not(list: Vec<u32>) -> usize {
    let count = list.len();
    match count {
        0 => forever().await,
        _ => std::future::ready(count).await,
    }
}

struct Armed {
    armed: bool,
}

#[alloc_tracker::profile]
impl Armed {
    fn disarm(mut self) -> bool {
        let was = self.armed;
        self.armed = false;
        was
    }
}

struct Steps {
    left: u32,
}

impl Iterator for Steps {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left.checked_sub(1).inspect(|left| self.left = *left)
    }
}

#[alloc_tracker::profile]
async fn needs_its_parentheses(choice: bool) -> Option<u32> {
    let mut future = std::future::ready(1);
    for _ in (Steps { left: 3 }) {}
    let first = (if choice { Some(1) } else { None })?;
    match choice {
        true => Some(first + (&mut future).await),
        false => (if choice { Some(1u32) } else { None })?.checked_add(1),
    }
}

struct Shelf {
    list: Vec<u32>,
}

#[alloc_tracker::profile]
impl Shelf {
    fn by_value(self) -> u32 {
        let unused = self.list;
        never()
    }

    fn is_changed_in_vain(mut self) -> usize {
        let count = self.list.len();
        self.list = Vec::new();
        count
    }

    fn leaves_early(self) -> u32 {
        return 3;
        self.list[0]
    }

    fn by_reference(&self) -> usize {
        let copy = self.list.clone();
        never();
        copy.len()
    }

    fn has_nothing(&self) -> u32 {
        let Some(first) = self.list.first() else {
            let other = vec![1];
            drop(other);
            never()
        };
        let Some(last) = self.list.last() else {
            never();
        };
        *first + *last
    }
}

#[alloc_tracker::profile]
fn breaks_with_values() -> u32 {
    let number = loop {
        break 3;
    };
    let other = 'block: {
        let list = vec![1];
        if list.is_empty() {
            break 'block 1;
        }
        never();
        4
    };
    number + other
}

#[alloc_tracker::profile]
fn is_not_written(list: Vec<u32>) -> u32 {
    let held = list;
    unreachable!()
}

#[alloc_tracker::profile]
fn panics(list: Vec<u32>) -> u32 {
    let held = list;
    panic!("always");
    3
}

#[alloc_tracker::profile]
fn has_no_value() {
    let list = vec![1];
    drop(list);
    never();
}

#[alloc_tracker::profile]
fn has_no_value_either() {
    let list = vec![1];
    drop(list);
    never()
}

#[alloc_tracker::profile]
fn is_made_of_nothing() -> Option<u32> {
    let list = vec![1];
    drop(list);
    Some(never())
}

#[alloc_tracker::profile]
fn is_never_assigned() -> u32 {
    let number: u32 = never();
    number
}

#[alloc_tracker::profile]
fn returns_in_an_argument(list: Vec<u32>) -> u32 {
    let held = list;
    u32::max(3, {
        drop(held);
        return 3;
    })
}

#[alloc_tracker::profile]
fn nested(list: &[u32]) -> u32 {
    {
        {
            return list[0];
        }
    }
}

#[alloc_tracker::profile]
fn has_needless_things(list: &[u32]) -> u32 {
    ;
    {
        never();
    }
    let number = unsafe { list[0] };;
    return number;
}

#[alloc_tracker::profile]
fn could_use_a_question_mark(list: Option<u32>) -> Option<u32> {
    if list.is_none() {
        return None;
    }
    match list {
        Some(x) => Some(x + 1),
        None => None,
    }
}

#[must_use]
struct Kept;

fn kept() -> Result<Kept, u32> {
    Ok(Kept)
}

#[must_use]
async fn kept_later() -> Result<Kept, u32> {
    Ok(Kept)
}

#[alloc_tracker::profile]
async fn drops_what_must_be_kept(choice: bool) -> Result<u32, u32> {
    let list = vec![1];
    if choice {
        kept()?;
        kept_later().await?;
        kept_later().await;
        Ok(list[0])
    } else {
        Err(1)
    }
}

#[alloc_tracker::profile]
fn repeats_for_ever(list: &[u32]) {
    while true {
        if list.is_empty() {
            break;
        }
    }
}

#[alloc_tracker::profile]
fn is_too_large() -> u8 {
    let _list = vec![1];
    1 + {
        let number = 0;
        255 - number
    }
}

#[alloc_tracker::profile]
fn leaves_one_alone(_unused: Option<Vec<u8>>, used: Vec<u8>) -> usize {
    used.len()
}

#[alloc_tracker::profile]
fn has_else_branches(number: u8, list: &[u8]) -> u8 {
    if number == 1 {
        println!("one");
    } else if number == 2 {
        return 3;
    } else {
        println!("three");
    }
    if list.is_empty() {
        1
    } else if list.len() != 3 {
        2
    } else {
        4
    }
}

#[alloc_tracker::profile]
fn has_two_arms(tried: Result<u8, u8>) -> Result<(), std::fmt::Error> {
    match tried {
        Ok(count) => {
            for letter in 0..count {
                std::fmt::Write::write_char(&mut String::new(), char::from(letter))?;
            }
            Ok(())
        }
        Err(_) => {
            Err(std::fmt::Error)
        }
    }
}

#[alloc_tracker::profile]
fn returns_on_conditions(list: &[u8]) -> usize {
    #[cfg(windows)]
    return 3;
    #[cfg(not(windows))]
    return list.len();
}

#[derive(PartialEq, Eq)]
struct Ordered(u8);

#[alloc_tracker::profile]
impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Ordered {
    #[alloc_tracker::profile]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct Copied(u8);

impl Copy for Copied {}

#[alloc_tracker::profile]
impl Clone for Copied {
    fn clone(&self) -> Self {
        *self
    }
}

#[derive(PartialEq, Eq)]
struct Returned(u8);

impl Copy for Returned {}

impl Clone for Returned {
    #[alloc_tracker::profile]
    fn clone(&self) -> Self {
        return *self;
    }
}

impl Ord for Returned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Returned {
    #[alloc_tracker::profile]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        return Some(Ord::cmp(self, other));
    }
}

#[derive(PartialEq, Eq)]
struct Converted(u8);

impl Ord for Converted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

#[alloc_tracker::profile]
impl PartialOrd for Converted {
    #[rustfmt::skip]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> { self.cmp(other).into() }
}

#[derive(PartialEq, Eq)]
struct InItsOwnForm(u8);

impl Copy for InItsOwnForm {}

impl Clone for InItsOwnForm {
    #[alloc_tracker::profile]
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl Ord for InItsOwnForm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for InItsOwnForm {
    #[alloc_tracker::profile]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

fn main() {}
