//! The harness of the fuzz targets, run on inputs from a fixed generator. It needs no fuzzer.

#[path = "../fuzz/harness.rs"]
#[allow(dead_code)]
mod harness;
mod made;

use alloc_dump::layout::HEADER_LEN;

use made::{Dump, Random, one_of_each, payload};

const ROUNDS: usize = 10_000;

#[test]
fn mutated_dumps_break_nothing() {
    let seeds = [Dump::small().bytes, Dump::of(&one_of_each(), 4096).bytes, Dump::new().bytes];
    let mut random = Random(1);
    for seed in &seeds {
        harness::dump(seed);
    }
    for _ in 0..ROUNDS {
        let seed = &seeds[random.below(seeds.len())];
        harness::dump(&mutate(seed, &mut random));
    }
}

#[test]
fn mutated_records_break_nothing() {
    let seed = payload(&one_of_each());
    let mut random = Random(2);
    for _ in 0..ROUNDS {
        harness::dump(&mutate(&seed, &mut random));
    }
}

#[test]
fn random_bytes_break_nothing() {
    let mut random = Random(3);
    for _ in 0..ROUNDS {
        let len = random.below(200);
        // Small numbers are the most likely, because most tags and lengths are small.
        let bytes: Vec<u8> = (0..len).map(|_| (random.next() >> (56 + random.next() % 8)) as u8).collect();
        harness::dump(&bytes);
        harness::sidecar(&bytes);
    }
}

#[test]
fn mutated_sidecars_break_nothing() {
    let mut seed = vec![0; 32];
    let records = payload(&one_of_each());
    seed[0] = records.len() as u8;
    seed.extend_from_slice(&records);
    let mut random = Random(4);
    harness::sidecar(&seed);
    for _ in 0..ROUNDS {
        harness::sidecar(&mutate(&seed, &mut random));
    }
}

/// Returns the seed with a few changes of the kinds that damage and fuzzers make.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    const ODD: [u8; 8] = [0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xF7, 0xFF];
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        // The file header is rarely changed: it is the smallest part, and without it nothing behind
        // it is read.
        let from = if random.below(8) == 0 { 0 } else { HEADER_LEN.min(bytes.len() / 2) };
        let at = from + random.below(bytes.len() - from);
        let end = (at + 1 + random.below(20)).min(bytes.len());
        if at >= bytes.len() {
            break;
        }
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = ODD[random.below(ODD.len())],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes[at..end].fill(ODD[random.below(ODD.len())]),
        }
    }
    bytes
}
