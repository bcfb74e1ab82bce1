//! Every operation on dump files: where a new one goes, and how one that was cut off gets its end.

pub mod close;
pub mod place;
