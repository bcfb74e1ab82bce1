//! The text of a check that has failed: which lines of code hold how much. In: a scope. Out: sites,
//! named in this process by the `backtrace` package, and a text.
//!
//! Not part of the hook: allocates, and may take the lock of `backtrace`. The thread is outside of
//! all scopes meanwhile, because the names stay in a cache of that package.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::scope::{EnteredScope, Scope};
use crate::recorder;
use crate::scope::{self, LiveInScope};

/// What is live of a scope, by site.
#[derive(Debug)]
pub(super) struct LeakReport {
    total: Held,
    /// Blocks that are not followed, because there was no memory for them in the table.
    unfollowed: u64,
    /// Events of signal handlers that were not followed.
    missed: u64,
    /// By bytes, largest first.
    sites: Vec<(LeakSite, Held)>,
    command: String,
}

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    bytes: u64,
    blocks: u64,
}

/// The line of code that has allocated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LeakSite {
    function: String,
    /// The file and the line, if the program has debug info.
    place: Option<(PathBuf, u32)>,
}

impl LeakReport {
    /// Makes a report of what is live now. `missed` is the number of events that were not followed
    /// in the meantime.
    pub(super) fn of(scope: &Scope, missed: u64) -> LeakReport {
        let _outside = EnteredScope::outside();
        let LiveInScope { unfollowed, .. } = scope.all_live();
        let mut by_site = HashMap::<LeakSite, Held>::new();
        for (stack, held) in live_by_stack(scope) {
            let frames = names_of(stack);
            if !is_kept_by_test_harness(&frames) {
                by_site.entry(site_of(&frames)).or_default().add(held);
            }
        }
        let mut total = Held::default();
        by_site.values().for_each(|held| total.add(*held));
        let mut sites: Vec<_> = by_site.into_iter().collect();
        sites.sort_by(|(site, held), (other_site, other)| other.cmp(held).then(site.cmp(other_site)));
        LeakReport { total, unfollowed, missed, sites, command: command_for_this_test() }
    }

    /// Whether the check fails.
    pub(super) fn is_leak(&self) -> bool {
        self.total.blocks > 0 || self.unfollowed > 0
    }

    /// Writes what is live, of which there is at least one block, and what that may mean.
    fn fmt_live_blocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (were, are) = if self.total.blocks == 1 { ("was", "is") } else { ("were", "are") };
        write!(f, "{} {were} allocated in a scope and {are} live at its end:", self.total)?;
        for (site, held) in self.sites.iter().take(MAX_SITES) {
            write!(f, "\n  {held}: {site}")?;
        }
        let mut rest = Held::default();
        self.sites.iter().skip(MAX_SITES).for_each(|(_, held)| rest.add(*held));
        if rest.blocks > 0 {
            let sites = self.sites.len() - MAX_SITES;
            write!(f, "\n  {rest}: {}", Counted(sites as u64, "more line"))?;
        }
        if self.missed > 0 {
            let (were, frees) = if self.missed == 1 { ("was", "a free") } else { ("were", "frees") };
            write!(
                f,
                "\n{} of signal handlers {were} not followed, which may be {frees} of these blocks",
                Counted(self.missed, "event")
            )?;
        }
        write!(f, "\nlive is not lost: something may still hold them; whole stacks: `{}`", self.command)
    }
}

impl Held {
    fn add(&mut self, more: Held) {
        self.bytes += more.bytes;
        self.blocks += more.blocks;
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B in {}", Grouped(self.bytes), Counted(self.blocks, "block"))
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unfollowed > 0 {
            write!(
                f,
                "{} of a scope could not be followed, because alloc-tracker has no memory for its table",
                Counted(self.unfollowed, "block")
            )?;
        }
        if self.total.blocks > 0 {
            f.write_str(if self.unfollowed > 0 { "; of the others, " } else { "" })?;
            self.fmt_live_blocks(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for LeakSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((file, line)) => write!(f, "{} at {}:{line}", self.function, file.display()),
            None => f.write_str(&self.function),
        }
    }
}

/// A number with a comma between each three digits.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.char_indices() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A number of things, with their name in the singular or the plural.
struct Counted(u64, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", Grouped(self.0), self.1)
    }
}

/// Returns what the blocks of each birth stack hold.
fn live_by_stack(scope: &Scope) -> HashMap<u32, Held> {
    let mut by_stack = HashMap::<u32, Held>::new();
    let mut blocks = Vec::new();
    for shard in scope::shards() {
        // The table is locked while it is read, so this thread must not allocate then. The list
        // gets its room before, and more of it until that is enough.
        loop {
            blocks.clear();
            let mut found = 0;
            recorder::with_scopes(|_| {
                scope::for_each_live(scope.id(), shard, |size, stack| {
                    found += 1;
                    if blocks.len() < blocks.capacity() {
                        blocks.push((size, stack));
                    }
                });
            });
            if found == blocks.len() {
                break;
            }
            blocks.reserve(2 * found);
        }
        for (bytes, stack) in blocks.iter().copied() {
            by_stack.entry(stack).or_default().add(Held { bytes, blocks: 1 });
        }
    }
    by_stack
}

/// A function on a stack, as its symbol and the debug info say.
#[derive(Debug)]
struct NamedFrame {
    function: String,
    place: Option<(PathBuf, u32)>,
}

/// Returns the functions of a birth stack, leaf first, inlined ones included.
fn names_of(stack: u32) -> Vec<NamedFrame> {
    let mut addresses = Vec::new();
    scope::for_each_address(stack, |pc| addresses.push(pc));
    let mut frames = Vec::new();
    for pc in addresses {
        // The byte before the return address belongs to the call.
        let call = std::ptr::without_provenance_mut(pc.wrapping_sub(1) as usize);
        backtrace::resolve(call, |symbol| {
            let function = symbol.name().map(|name| format!("{name:#}"));
            let place = symbol.filename().map(Path::to_path_buf).zip(symbol.lineno());
            frames.extend(function.map(|function| NamedFrame { function, place }));
        });
    }
    frames
}

/// Returns the innermost frame of the user's own code; if there is none, the innermost one of a
/// dependency; if there is none either, the leaf.
fn site_of(frames: &[NamedFrame]) -> LeakSite {
    let frames = &frames[frames.iter().rposition(is_of_allocator).map_or(0, |last| last + 1)..];
    let innermost = |is_wanted: fn(&NamedFrame) -> bool| frames.iter().find(|frame| is_wanted(frame));
    let frame = innermost(|frame| !is_runtime(frame) && !is_dependency(frame))
        .or_else(|| innermost(|frame| !is_runtime(frame)))
        .or_else(|| frames.first());
    match frame {
        Some(frame) => LeakSite {
            function: frame.function.clone(),
            place: frame.place.as_ref().map(|(file, line)| (relative(file), *line)),
        },
        None => LeakSite { function: "a function without a name".to_owned(), place: None },
    }
}

/// Whether a frame is of the standard library, of the compiler's own functions, or of this crate.
/// The file tells, because the name of a method says nothing about who wrote it. Where there is no
/// file, the name has to do.
fn is_runtime(frame: &NamedFrame) -> bool {
    let name = frame.function.trim_start_matches(['<', '&', '(', '[']);
    if name.starts_with("alloc_tracker::") {
        return true;
    }
    match &frame.place {
        Some((file, _)) => {
            let file = file.to_string_lossy();
            ["/rustc/", "/rustlib/src/rust/", "/rust/deps/"].iter().any(|part| file.contains(part))
        }
        None => RUNTIME.iter().any(|part| name.starts_with(part)),
    }
}

/// Whether a frame is a method of a global allocator, which may be the user's own, or the
/// compiler's function around it.
fn is_of_allocator(frame: &NamedFrame) -> bool {
    let name = frame.function.trim_start_matches("__rustc::");
    name.contains("GlobalAlloc>::")
        || ["__rust_alloc", "__rust_realloc", "__rg_", "__rdl_"].iter().any(|part| name.starts_with(part))
}

/// Whether a frame is of a package that cargo has downloaded.
fn is_dependency(frame: &NamedFrame) -> bool {
    let Some((file, _)) = &frame.place else { return false };
    let file = file.to_string_lossy();
    ["/registry/src/", "/git/checkouts/"].iter().any(|part| file.contains(part))
}

/// Whether a block is output that the test harness captures and prints later. It is live until the
/// test ends, whatever the test does.
fn is_kept_by_test_harness(frames: &[NamedFrame]) -> bool {
    frames.iter().any(|frame| frame.function.contains("::print_to_buffer_if_capture_used"))
}

/// Returns a path as seen from the working directory, if it lies below that.
fn relative(file: &Path) -> PathBuf {
    let below =
        std::env::current_dir().ok().and_then(|folder| Some(file.strip_prefix(folder).ok()?.to_owned()));
    below.unwrap_or_else(|| file.to_owned())
}

/// Returns the command that records the test which runs on this thread. The test harness names the
/// thread after the test.
fn command_for_this_test() -> String {
    match std::thread::current().name() {
        Some(test) if test != "main" => format!("profiler-cli cargo test {test} -- --exact"),
        _ => "profiler-cli cargo run".to_owned(),
    }
}

/// What the names of the runtime's functions begin with.
const RUNTIME: [&str; 6] = ["alloc::", "core::", "std::", "hashbrown::", "__rust", "__rdl_"];
/// No more lines of code are printed.
const MAX_SITES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str) -> NamedFrame {
        NamedFrame { function: function.to_owned(), place: Some((PathBuf::from(file), 7)) }
    }

    #[test]
    fn the_site_is_the_innermost_frame_of_own_code() {
        let raw_vec = frame("alloc::raw_vec::RawVec<T>::grow", "/rustc/0123/library/alloc/src/raw_vec.rs");
        let map = frame("hashbrown::raw::RawTable<T>::reserve", "/rust/deps/hashbrown-0.15/src/raw/mod.rs");
        let impl_of_std = frame("<alloc::vec::Vec<u8> as own::Fill>::fill", "/home/me/own/src/fill.rs");
        let crate_of_other =
            frame("lru::Cache<K,V>::put", "/home/me/.cargo/registry/src/index/lru-0.1/lib.rs");
        let own = frame("own::cache::keep", "/home/me/own/src/cache.rs");
        let site = |frames: &[NamedFrame]| site_of(frames).function;
        assert_eq!(site(&[raw_vec, map]), "alloc::raw_vec::RawVec<T>::grow");
        let raw_vec = || frame("__rustc::__rust_alloc", "/rustc/0123/library/alloc/src/alloc.rs");
        assert_eq!(site(&[raw_vec(), crate_of_other, own]), "own::cache::keep");
        let crate_of_other =
            frame("lru::Cache<K,V>::put", "/home/me/.cargo/registry/src/index/lru-0.1/lib.rs");
        assert_eq!(site(&[raw_vec(), crate_of_other]), "lru::Cache<K,V>::put");
        assert!(site(&[raw_vec(), impl_of_std]).contains("Fill"));
        assert_eq!(site(&[]), "a function without a name");
    }

    #[test]
    fn numbers_have_commas() {
        let texts = [0, 12, 123, 1234, 123_456, 1_234_567].map(|number| Grouped(number).to_string());
        assert_eq!(texts, ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
        assert_eq!(Held { bytes: 4096, blocks: 1 }.to_string(), "4,096 B in 1 block");
    }

    /// A report of so many blocks of 16 bytes, each from a line of its own.
    fn report(blocks: u64) -> LeakReport {
        let held = Held { bytes: 16, blocks: 1 };
        let site = |line| LeakSite {
            function: "own::keep".to_owned(),
            place: Some((PathBuf::from("src/lib.rs"), line as u32)),
        };
        LeakReport {
            total: Held { bytes: 16 * blocks, blocks },
            unfollowed: 0,
            missed: 0,
            sites: (1..=blocks).map(|line| (site(line), held)).collect(),
            command: "record".to_owned(),
        }
    }

    #[test]
    fn one_of_a_thing_is_in_the_singular() {
        let text = LeakReport { missed: 1, ..report(1) }.to_string();
        assert_eq!(
            text,
            "16 B in 1 block was allocated in a scope and is live at its end:\n  \
             16 B in 1 block: own::keep at src/lib.rs:1\n\
             1 event of signal handlers was not followed, which may be a free of these blocks\n\
             live is not lost: something may still hold them; whole stacks: `record`"
        );
        let text = LeakReport { missed: 2, ..report(11) }.to_string();
        assert!(text.starts_with("176 B in 11 blocks were allocated in a scope and are live"), "{text}");
        assert!(text.contains("\n  16 B in 1 block: 1 more line\n2 events of"), "{text}");
        assert!(report(12).to_string().contains("\n  32 B in 2 blocks: 2 more lines\nlive is"));
    }

    #[test]
    fn nothing_is_said_of_live_blocks_if_there_are_none() {
        let text = LeakReport { unfollowed: 1, missed: 3, ..report(0) }.to_string();
        let expected =
            "1 block of a scope could not be followed, because alloc-tracker has no memory for its table";
        assert_eq!(text, expected);
        let text = LeakReport { unfollowed: 2000, ..report(1) }.to_string();
        assert!(text.starts_with("2,000 blocks of a scope could not be followed"), "{text}");
        assert!(text.contains("for its table; of the others, 16 B in 1 block was allocated"), "{text}");
        assert!(text.ends_with("`record`"), "{text}");
    }
}
