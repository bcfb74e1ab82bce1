//! A macro whose annotated function is called from another file.

/// Defines an annotated function of this name that copies a list. Its lines are in this file.
#[macro_export]
macro_rules! annotated_elsewhere {
    ($name:ident) => {
        #[alloc_tracker::profile]
        fn $name(list: Vec<u8>) -> usize {
            let copy = list.clone();
            copy.len()
        }
    };
}
