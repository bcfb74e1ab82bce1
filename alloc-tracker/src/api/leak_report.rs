//! The text of a leak check that has failed: which lines of code hold how much. In: a scope. Out:
//! sites, and a text. Not part of the hook: allocates, outside of all scopes.

use std::collections::HashMap;
use std::fmt;

use super::scope::{EnteredScope, Scope};
use super::site::{Site, is_kept_by_test_harness, names_of, site_of};
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
    sites: Vec<(Site, Held)>,
    command: String,
}

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    bytes: u64,
    blocks: u64,
}

impl LeakReport {
    /// Makes a report of what is live now. `missed` is the number of events that were not followed
    /// in the meantime.
    pub(super) fn of(scope: &Scope, missed: u64) -> LeakReport {
        let _outside = EnteredScope::outside();
        let LiveInScope { unfollowed, .. } = scope.all_live();
        let mut by_site = HashMap::<Site, Held>::new();
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

/// A number with a comma between each three digits.
pub(super) struct Grouped(pub(super) u64);

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
pub(super) struct Counted(pub(super) u64, pub(super) &'static str);

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

/// Returns the command that records the test which runs on this thread. The test harness names the
/// thread after the test.
fn command_for_this_test() -> String {
    match std::thread::current().name() {
        Some(test) if test != "main" => format!("profiler-cli cargo test {test} -- --exact"),
        _ => "profiler-cli cargo run".to_owned(),
    }
}

/// No more lines of code are printed.
const MAX_SITES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn numbers_have_commas() {
        let texts = [0, 12, 123, 1234, 123_456, 1_234_567].map(|number| Grouped(number).to_string());
        assert_eq!(texts, ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
        assert_eq!(Held { bytes: 4096, blocks: 1 }.to_string(), "4,096 B in 1 block");
    }

    /// A report of so many blocks of 16 bytes, each from a line of its own.
    fn report(blocks: u64) -> LeakReport {
        let held = Held { bytes: 16, blocks: 1 };
        let site = |line| Site {
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
