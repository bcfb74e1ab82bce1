//! A library whose function calls back from a frame of 1,312 bytes.

pub mod calls;

const WORDS: usize = 164;
