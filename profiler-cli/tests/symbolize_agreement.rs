//! The symbolizer against independent ones: every sampled address of this very program must give the same files and lines,
//! inlined calls included, as binutils' and LLVM's `addr2line`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use object::{Object as _, ObjectSection as _};
use profiler_cli::names::symbolize::{CodeAddress, ModuleSpec, Modules, SymbolizeOptions};

const SAMPLES: u64 = 4000;

/// `file:line` of each frame, innermost first; `?` for what is not known.
type Lines = Vec<(String, String)>;

#[test]
fn agrees_with_binutils() {
    compare_with("addr2line");
}

#[test]
fn agrees_with_llvm() {
    compare_with("llvm-addr2line");
}

fn compare_with(tool: &str) {
    let program = std::env::current_exe().expect("a test has a path");
    let addresses = sample(&program);
    let Some(theirs) = ask(tool, &program, &addresses) else {
        println!("skipped: {tool} missing");
        return;
    };
    let ours = ours(&program, &addresses);
    let mut shown = 0;
    for ((address, ours), theirs) in addresses.iter().zip(&ours).zip(&theirs) {
        if ours != theirs && shown < 30 {
            shown += 1;
            println!("{address:#x}\n  ours   {ours:?}\n  theirs {theirs:?}");
        }
    }
    let equal = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
    println!("{tool}: {equal} of {} agree", addresses.len());
    assert_eq!(equal, addresses.len());
}

fn sample(program: &Path) -> Vec<u64> {
    let bytes = std::fs::read(program).expect("this program");
    let file = object::File::parse(&*bytes).expect("an object file");
    let text = file.section_by_name(".text").expect("code");
    let step = text.size() / SAMPLES;
    (0..SAMPLES).map(|index| text.address() + index * step).collect()
}

fn ours(program: &Path, addresses: &[u64]) -> Vec<Lines> {
    let spec = ModuleSpec { path: program.to_owned(), build_id: Vec::new() };
    let modules = Modules::open(&[spec], SymbolizeOptions::default()).expect("no symbol folders to fail");
    let wanted: Vec<CodeAddress> = addresses.iter().map(|&address| CodeAddress::exact(address)).collect();
    let symbols =
        modules.symbolize(std::slice::from_ref(&wanted), &|_, _| {}).expect("one list for one module");
    let lines = |&address| {
        let frames = symbols.frames(0, address).iter();
        frames
            .map(|frame| {
                let line = frame.line.map_or("?".to_owned(), |line| line.to_string());
                (frame.file.as_deref().unwrap_or("?").to_owned(), line)
            })
            .collect()
    };
    wanted.iter().map(lines).collect()
}

fn ask(tool: &str, program: &Path, addresses: &[u64]) -> Option<Vec<Lines>> {
    let mut command = Command::new(tool);
    command.arg("-e").arg(program).args(["-a", "-i", "-f", "-C"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut input = child.stdin.take().expect("it is piped");
    let text: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it runs");
    writer.join().expect("no panic").expect("it reads all");
    let text = String::from_utf8(output.stdout).expect("its output is text");
    let mut answers: Vec<Lines> = Vec::new();
    let mut rest = text.lines();
    // `0xADDRESS`, then pairs of a function's name and `FILE:LINE`.
    while let Some(line) = rest.next() {
        if line.starts_with("0x") {
            answers.push(Vec::new());
            continue;
        }
        let place = rest.next().expect("a name is followed by a place");
        let place = place.split(" (discriminator").next().unwrap_or(place);
        let (file, line) = place.rsplit_once(':').expect("FILE:LINE");
        let known = |text: &str| if matches!(text, "??" | "0") { "?".to_owned() } else { text.to_owned() };
        let (file, line) = (known(file), known(line));
        // Where there is no debug info binutils gives the name that the symbol table has for the object file, which is
        // no source file: `std.e28293b1aa0f68bd-cgu.0`.
        let file = if line == "?" && !file.contains('/') { "?".to_owned() } else { file };
        answers.last_mut().expect("an address comes first").push((file, line));
    }
    assert_eq!(answers.len(), addresses.len(), "one answer for each address");
    Some(answers)
}
