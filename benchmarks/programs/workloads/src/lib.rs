//! The workloads, the same code for every tool: each program is one global allocator and this
//! library.
//!
//! In: the name of a workload and a number of rounds. Out: one line of JSON in the file that
//! `BENCHMARK_REPORT` names, with the result of the work and the CPU time of the threads that did
//! it. Without arguments, the output is the list of workloads as JSON.
//!
//! No input comes from the machine: texts are made from numbers that are the same in every run. So
//! every run of a workload allocates alike, under every allocator.
#![forbid(unsafe_code)]

mod cpu;
mod numbers;
mod workload;

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::workload::{ALL, Workload};

/// Is the whole `main` of every program; the program only declares its allocator.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => {
            println!("{}", Value::from_iter(ALL.iter().map(describe)));
            Ok(())
        }
        [name, rounds] => run(name, rounds),
        _ => Err("give a workload and its rounds, or no arguments for the list of workloads".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn describe(workload: &Workload) -> Value {
    json!({
        "name": workload.name,
        "about": workload.about,
        "rounds": workload.rounds,
        "one_thread": workload.one_thread,
    })
}

fn run(name: &str, rounds: &str) -> Result<(), String> {
    let workload =
        ALL.iter().find(|workload| workload.name == name).ok_or_else(|| format!("no workload '{name}'"))?;
    let rounds: usize = rounds.parse().map_err(|_| format!("rounds: '{rounds}' is not a number"))?;
    let result = (workload.run)(rounds);
    let application_cpu_ns = cpu::application().as_nanos() as u64;
    let Some(path) = std::env::var_os("BENCHMARK_REPORT") else {
        println!("{name}: {result}");
        return Ok(());
    };
    let report = json!({ "result": result, "application_cpu_ns": application_cpu_ns });
    std::fs::write(&path, report.to_string()).map_err(|error| format!("{}: {error}", path.display()))
}
