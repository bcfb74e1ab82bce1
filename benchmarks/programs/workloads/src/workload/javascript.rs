//! An interpreter with a garbage collector: boa runs a script that makes objects, closures, arrays
//! and strings.

use boa_engine::{Context, Source};

const SCRIPT: &str = include_str!("script.js");

pub(super) fn run(rounds: usize) -> u64 {
    let mut context = Context::default();
    context.eval(Source::from_bytes(SCRIPT)).expect("our own script");
    (0..rounds).map(|_| round(&mut context)).sum()
}

fn round(context: &mut Context) -> u64 {
    let result = context.eval(Source::from_bytes("round()")).expect("our own function");
    result.as_number().expect("a number") as u64
}
