//! Blocks cross the border to a library without the tracker, in both directions.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::CStr;
use std::hint::black_box;

use crate::libraries::Library;

const GIVEN: usize = 300;
const GIVEN_SIZE: usize = 100;
const TAKEN: usize = 50;
/// A size that nothing else in the process has: the next block of this size gets the address of the
/// last one that was freed.
const TAKEN_SIZE: usize = 900;

/// Prints how many blocks of the library were freed here, how many blocks were freed there, and how
/// often such an address was handed out again.
pub(crate) fn stunt(path: &str) {
    let library = Library::open(path);
    let symbol = |name: &CStr| library.symbol(name);
    // SAFETY: the library's functions have these types.
    let (gives, takes) = unsafe {
        (
            std::mem::transmute::<*mut libc::c_void, extern "C" fn(usize) -> *mut u8>(symbol(c"plug_gives")),
            std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(*mut u8, usize)>(symbol(
                c"plug_takes",
            )),
        )
    };
    for _ in 0..GIVEN {
        let block = black_box(gives(GIVEN_SIZE));
        // SAFETY: both sides have the system's allocator, and the block has this layout.
        unsafe { dealloc(block, layout(GIVEN_SIZE)) };
    }
    let (mut last, mut reused) = (std::ptr::null_mut(), 0);
    for _ in 0..TAKEN {
        let block = allocate_taken();
        reused += usize::from(block == last);
        last = block;
        // SAFETY: the block is of this size and is not used any more.
        unsafe { takes(block, TAKEN_SIZE) };
    }
    library.close();
    println!("{GIVEN} {TAKEN} {reused}");
}

#[inline(never)]
fn allocate_taken() -> *mut u8 {
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(layout(TAKEN_SIZE)) };
    black_box(block)
}

fn layout(size: usize) -> Layout {
    Layout::array::<u8>(size).unwrap()
}
