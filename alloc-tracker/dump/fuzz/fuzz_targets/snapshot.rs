//! Reads any bytes as a snapshot.
#![no_main]

#[path = "../snapshot_harness.rs"]
mod snapshot_harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| snapshot_harness::snapshot(bytes));
