//! A macro that makes an announced function in another file than this one.

/// A function of this name that copies a list.
#[macro_export]
macro_rules! announced_elsewhere {
    ($name:ident) => {
        #[alloc_tracker::profile]
        fn $name(list: Vec<u8>) -> usize {
            let copy = list.clone();
            copy.len()
        }
    };
}
