//! Small programs that a test builds with the installed compiler. Marker comments in their source
//! give the expected lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use profiler_cli::names::symbolize::{CodeAddress, ModuleSpec, Modules, SymbolizeOptions, Symbols};
use tempfile::TempDir;

/// A program whose function `work` contains the inlined code of `middle` and `leaf`.
pub(crate) const PROGRAM: &str = r#"
mod inner {
    use std::hint::black_box;

    #[inline(never)]
    pub fn work<T: Copy>(count: usize, _extra: T) -> usize {
        middle(black_box(count)) // MARK work
    }

    #[inline(always)]
    fn middle(count: usize) -> usize {
        leaf(count) + 1 // MARK middle
    }

    #[inline(always)]
    fn leaf(count: usize) -> usize {
        black_box(count).wrapping_mul(count) ^ 3 // MARK leaf
    }
}

fn main() {
    println!("{}", inner::work(std::env::args().count(), 7_u8));
}
"#;

/// A library that does not link the standard library. Its debug info is small, so a damaged byte
/// most likely hits a part that matters.
pub(crate) const TINY_LIBRARY: &str = r#"
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[inline(always)]
fn middle(count: u64) -> u64 {
    count.rotate_left(7) ^ 3
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn fixture_work(count: u64) -> u64 {
    middle(core::hint::black_box(count))
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn fixture_trampoline() {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!("mov rax, 15", "syscall");
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!("mov x8, #139", "svc #0");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    core::arch::naked_asm!("nop");
}
"#;

/// Returns the line of [`PROGRAM`] that ends with the comment `// marker`.
pub(crate) fn line_of(marker: &str) -> Option<u32> {
    let comment = format!("// {marker}");
    let index =
        PROGRAM.lines().position(|line| line.ends_with(&comment)).expect("the marker is in the source");
    Some(u32::try_from(index + 1).expect("it is a short program"))
}

/// A program or library in a folder of its own, with the build-id that it was linked with.
pub(crate) struct Built {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) build_id: Vec<u8>,
}

impl Built {
    /// Builds [`PROGRAM`] optimised, with further arguments for the compiler.
    pub(crate) fn program(arguments: &[&str]) -> Self {
        Self::new(PROGRAM, "app", &[&["--crate-name", "fixture", "-Copt-level=3"], arguments].concat())
    }

    /// Builds [`TINY_LIBRARY`] optimised, with full debug info.
    pub(crate) fn library() -> Self {
        let arguments = [
            "--crate-type=cdylib",
            "-Copt-level=3",
            "-Cdebuginfo=2",
            "-Cpanic=abort",
            "-Clink-arg=-nostdlib",
        ];
        Self::new(TINY_LIBRARY, "libtiny.so", &arguments)
    }

    /// Builds a source with these arguments for the compiler.
    pub(crate) fn new(source: &str, name: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("main.rs"), source).expect("a writable folder");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.current_dir(folder.path()).args(["--edition=2024", "main.rs", "-o", name]);
        // Without a build-id a file cannot be verified. So every fixture has one unless a test
        // removes it.
        command.arg("-Clink-arg=-Wl,--build-id=sha1").args(arguments);
        let output = command.output().expect("the compiler that built this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = folder.path().join(name);
        let build_id = build_id(&path);
        Self { folder, path, build_id }
    }

    /// Returns the path of a file in the program's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the module as a dump would describe it.
    pub(crate) fn spec(&self) -> ModuleSpec {
        ModuleSpec { path: self.path.clone(), build_id: self.build_id.clone(), code: None }
    }

    /// Returns every address of the function whose symbol contains `name`.
    pub(crate) fn addresses_of(&self, name: &str) -> Vec<CodeAddress> {
        let bytes = fs::read(&self.path).expect("it was built");
        let file = object::File::parse(&*bytes).expect("an object file");
        let mut symbols = file.symbols();
        let symbol = symbols.find(|symbol| symbol.name().is_ok_and(|found| found.contains(name)));
        let symbol = symbol.expect("the program has this function");
        (symbol.address()..symbol.address() + symbol.size()).map(CodeAddress::exact).collect()
    }
}

/// Returns the build-id of a file; empty if it has none.
pub(crate) fn build_id(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).expect("it was built");
    let file = object::File::parse(&*bytes).expect("an object file");
    file.build_id().expect("a readable note").unwrap_or_default().to_vec()
}

/// Overwrites the bytes of sections in place. The file keeps its length and its time of
/// modification.
pub(crate) fn wreck_sections(path: &Path, names: &[&str]) {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).expect("a time of change");
    let mut bytes = fs::read(path).expect("it was built");
    let ranges: Vec<(u64, u64)> = {
        let file = object::File::parse(&*bytes).expect("an object file");
        let section = |name| file.section_by_name(name).and_then(|section| section.file_range());
        names.iter().map(|name| section(name).expect("it has this section")).collect()
    };
    for (start, size) in ranges {
        let start = usize::try_from(start).expect("a small file");
        bytes[start..start + usize::try_from(size).expect("a small file")].fill(0xff);
    }
    fs::write(path, bytes).expect("a writable file");
    let file = fs::File::options().write(true).open(path).expect("a writable file");
    file.set_modified(modified).expect("the file is ours");
}

/// Runs `objcopy`. If it is not installed, prints that the test is skipped and returns `None`.
pub(crate) fn objcopy(folder: &Path, arguments: &[&str]) -> Option<()> {
    match Command::new("objcopy").current_dir(folder).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
        Err(_) => {
            println!("skipped: objcopy missing");
            None
        }
    }
}

/// A symbolized frame, as far as the fixture's source determines it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceFrame {
    pub(crate) function: String,
    pub(crate) line: Option<u32>,
    pub(crate) inlined: bool,
}

impl SourceFrame {
    pub(crate) fn new(function: &str, line: Option<u32>, inlined: bool) -> Self {
        Self { function: function.to_owned(), line, inlined }
    }
}

/// Symbolizes addresses of a single module.
pub(crate) fn symbolize(spec: &ModuleSpec, addresses: &[CodeAddress], options: SymbolizeOptions) -> Symbols {
    let modules = Modules::open(std::slice::from_ref(spec), options).expect("readable symbol folders");
    modules.symbolize(&[addresses.to_vec()], &|_, _| {}).expect("one list for one module")
}

/// Returns all different chains of frames at the addresses, innermost frame first.
pub(crate) fn chains(symbols: &Symbols, addresses: &[CodeAddress]) -> BTreeSet<Vec<SourceFrame>> {
    let chain = |&address| {
        let frames = symbols.frames(0, address).iter();
        frames.map(|frame| SourceFrame::new(&frame.function, frame.line, frame.is_inlined)).collect()
    };
    addresses.iter().map(chain).collect()
}
