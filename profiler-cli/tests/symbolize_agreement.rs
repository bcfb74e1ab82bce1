//! Compares the symbolizer with independent ones, binutils' and LLVM's `addr2line`. For every
//! sampled address of this test program itself, files and lines must be equal, inlined calls
//! included.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use object::{Object as _, ObjectSection as _};
use profiler_cli::names::symbolize::{CodeAddress, ModuleSpec, Modules, SymbolizeOptions};

const SAMPLES: u64 = 4000;

/// File and line of each frame of an address, innermost first; `?` where a file or line is not
/// known.
type Frames = Vec<(String, String)>;

#[test]
fn files_and_lines_are_those_of_binutils_addr2line() {
    compare_with("addr2line");
}

#[test]
fn files_and_lines_are_those_of_llvm_addr2line() {
    compare_with("llvm-addr2line");
}

/// Compares the frames of all sampled addresses, and prints the first thirty differences.
fn compare_with(tool: &str) {
    let program = std::env::current_exe().expect("a test has a path");
    let addresses = sample_addresses(&program);
    let Some(theirs) = frames_of_tool(tool, &program, &addresses) else {
        println!("skipped: {tool} missing");
        return;
    };
    let ours = our_frames(&program, &addresses);
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

/// Returns addresses at equal distances in the program's code.
fn sample_addresses(program: &Path) -> Vec<u64> {
    let bytes = std::fs::read(program).expect("this program");
    let file = object::File::parse(&*bytes).expect("an object file");
    let text = file.section_by_name(".text").expect("code");
    let step = text.size() / SAMPLES;
    (0..SAMPLES).map(|index| text.address() + index * step).collect()
}

/// Symbolizes the addresses with our symbolizer.
fn our_frames(program: &Path, addresses: &[u64]) -> Vec<Frames> {
    let spec = ModuleSpec { path: program.to_owned(), ..ModuleSpec::default() };
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

/// Symbolizes the addresses with another tool; returns `None` if it is not installed.
fn frames_of_tool(tool: &str, program: &Path, addresses: &[u64]) -> Option<Vec<Frames>> {
    let mut command = Command::new(tool);
    command.arg("-e").arg(program).args(["-a", "-i", "-f", "-C"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut input = child.stdin.take().expect("it is piped");
    let text: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it runs");
    writer.join().expect("no panic").expect("it reads all");
    let text = String::from_utf8(output.stdout).expect("its output is text");
    let mut answers: Vec<Frames> = Vec::new();
    let mut rest = text.lines();
    // The output has a line `0xADDRESS`, then two lines for each frame: the function's name, and
    // `FILE:LINE`.
    while let Some(line) = rest.next() {
        if line.starts_with("0x") {
            answers.push(Vec::new());
            continue;
        }
        let position = rest.next().expect("a name is followed by FILE:LINE");
        let position = position.split(" (discriminator").next().unwrap_or(position);
        let (file, line) = position.rsplit_once(':').expect("FILE:LINE");
        let known = |text: &str| if matches!(text, "??" | "0") { "?".to_owned() } else { text.to_owned() };
        let (file, line) = (known(file), known(line));
        // Without debug info binutils prints the symbol table's name for the object file, which is
        // not a source file: `std.e28293b1aa0f68bd-cgu.0`.
        let file = if line == "?" && !file.contains('/') { "?".to_owned() } else { file };
        answers.last_mut().expect("an address comes first").push((file, line));
    }
    assert_eq!(answers.len(), addresses.len(), "one answer for each address");
    Some(answers)
}
