//! A `BTreeMap` of strings whose entries are inserted and removed, so that nodes split and merge.

use std::collections::BTreeMap;

use crate::numbers::Numbers;

const STEPS: usize = 2000;
const KEYS: usize = 4000;

pub(super) fn run(rounds: usize) -> u64 {
    let mut numbers = Numbers::new(3);
    let mut map = BTreeMap::new();
    (0..rounds).map(|_| round(&mut map, &mut numbers)).sum()
}

fn round(map: &mut BTreeMap<u64, String>, numbers: &mut Numbers) -> u64 {
    for _ in 0..STEPS {
        let key = numbers.below(KEYS) as u64;
        if map.remove(&key).is_none() {
            map.insert(key, "v".repeat(8 + numbers.below(40)));
        }
    }
    map.values().map(|value| value.len() as u64).sum()
}
