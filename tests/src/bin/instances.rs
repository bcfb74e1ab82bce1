//! Generic functions with several instances: each allocates the number of its values times their
//! size.

use std::hint::black_box;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

const VALUES: usize = 1000;

struct Shelf<T>(Vec<T>);

impl<T: Copy + Default> Shelf<T> {
    #[inline(never)]
    fn filled() -> Self {
        Shelf(vec![black_box(T::default()); VALUES])
    }
}

#[inline(never)]
fn by_closure<T: Copy + Default>() -> Vec<T> {
    let make = || vec![black_box(T::default()); VALUES];
    black_box(make)()
}

fn main() {
    black_box((Shelf::<u8>::filled().0, Shelf::<[u16; 3]>::filled().0));
    black_box((by_closure::<u32>(), by_closure::<i64>()));
}
