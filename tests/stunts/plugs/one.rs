//! A library whose function calls back from a frame of 800 bytes.

pub mod calls;

const WORDS: usize = 100;
