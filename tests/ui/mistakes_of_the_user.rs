//! The compiler reports a mistake in an annotated function at the mistake.
#![deny(unused)]

#[alloc_tracker::profile]
fn wrong_type(count: usize) -> String {
    let doubled = count * 2;
    doubled
}

#[alloc_tracker::profile]
fn used_after_move(text: String) -> usize {
    let moved = text;
    for _ in 0..2 {
        drop(moved);
    }
    text.len()
}

#[alloc_tracker::profile]
fn borrowed_too_long() -> &'static str {
    let text = String::from("short");
    &text
}

#[alloc_tracker::profile]
async fn not_awaited(name: &str) {
    if name.len() > missing {
        return 7;
    }
}

fn main() {}
