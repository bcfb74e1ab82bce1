//! Deep recursions with one function at each level. The first argument names what happens at the
//! levels, the second one is their number.
//!
//! | argument | events |
//! | --- | --- |
//! | `list` | frees a block at each level, on the way back |
//! | `expression` | allocates a block at each level on the way back, then frees as `list` does |
//! | `down` | allocates a block at each level on the way down, and frees it on the way back |
//! | `abort` | [`BLOCKS`] blocks at the deepest level, where the program then aborts |

use std::hint::black_box;
use std::time::Duration;

struct Node {
    next: Option<Box<Node>>,
    _payload: [u8; 40],
}

/// How many blocks are allocated and freed at the deepest level, for `abort`.
const BLOCKS: usize = 50;

pub(crate) fn stunt(args: &[String]) {
    let (what, levels) = (args[0].clone(), args[1].parse().unwrap());
    let work = move || match what.as_str() {
        "list" => tear_down(list(levels)),
        "expression" => tear_down(Some(expression(levels))),
        "down" => assert_eq!(down(levels), levels),
        "abort" => descend(levels, &|| {
            blocks();
            // The samples of the process, and what else is written at times, come later than that.
            std::thread::sleep(Duration::from_millis(1));
            std::process::abort()
        }),
        other => panic!("unknown levels {other:?}"),
    };
    std::thread::Builder::new().stack_size(512 << 20).spawn(work).unwrap().join().unwrap();
}

fn list(levels: usize) -> Option<Box<Node>> {
    (0..levels).fold(None, |next, _| Some(Box::new(Node { next, _payload: [1; 40] })))
}

#[inline(never)]
fn tear_down(node: Option<Box<Node>>) {
    if let Some(mut node) = node {
        tear_down(black_box(node.next.take()));
    }
}

#[inline(never)]
fn expression(levels: usize) -> Box<Node> {
    let next = (levels > 1).then(|| expression(black_box(levels - 1)));
    black_box(Box::new(Node { next, _payload: [2; 40] }))
}

/// The events come from functions of different depth, some of which save the frame pointer.
#[inline(never)]
fn down(levels: usize) -> usize {
    if levels == 0 {
        return 0;
    }
    let text = if levels.is_multiple_of(2) {
        black_box(levels).to_string()
    } else {
        String::with_capacity(black_box(8))
    };
    let below = down(levels - 1);
    black_box(&text);
    below + 1
}

#[inline(never)]
fn descend(levels: usize, work: &dyn Fn()) {
    match levels {
        0 => work(),
        _ => descend(black_box(levels - 1), work),
    }
    black_box(());
}

fn blocks() {
    (0..BLOCKS).for_each(|_| drop(black_box(Box::new([3u8; 24]))));
}
