//! The live blocks that are suppressed, by the rule that suppresses them. In: blocks, each with its
//! rule. Out: [`Suppressed`].

use serde::Serialize;

use super::LiveBlocks;
use crate::analyze::suppressions::{SuppressedStacks, Suppression, SuppressionKind};

/// The live blocks that are suppressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Suppressed {
    /// Bytes of the suppressed blocks.
    pub bytes: u64,
    /// Number of the suppressed blocks.
    pub blocks: u64,
    /// By how much suppressed blocks that are older than the interval grew in it.
    pub grown_bytes: u64,
    /// Number of the blocks that `grown_bytes` counts.
    pub grown_blocks: u64,
    /// The suppressions: all of those from files, in their order, and others that matched.
    pub patterns: Vec<SuppressedPattern>,
    /// One sentence for each comment in the source that does not count.
    pub warnings: Vec<String>,
}

/// A suppression, and the live blocks that it matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SuppressedPattern {
    /// The line of a file, such as `leak:cache`, or the comment.
    pub pattern: String,
    /// Where the suppression comes from.
    pub kind: SuppressionKind,
    /// File and line; `default` for the list of what std keeps for itself.
    pub source: String,
    /// Bytes of the blocks that it matched.
    pub bytes: u64,
    /// Number of the blocks that it matched.
    pub blocks: u64,
    /// By how much matching blocks that are older than the interval grew in it.
    pub grown_bytes: u64,
    /// Number of the blocks that `grown_bytes` counts.
    pub grown_blocks: u64,
}

impl SuppressedPattern {
    /// Whether the suppression matched no block.
    pub fn is_unused(&self) -> bool {
        self.blocks + self.grown_blocks == 0
    }
}

/// Adds up suppressed blocks.
pub(super) struct SuppressedBlocks<'a> {
    stacks: Option<&'a SuppressedStacks>,
    /// By the index of the rule.
    by_rule: Vec<LiveBlocks>,
}

impl<'a> SuppressedBlocks<'a> {
    pub(super) fn new(stacks: Option<&'a SuppressedStacks>) -> SuppressedBlocks<'a> {
        let rules = stacks.map_or(0, |stacks| stacks.rules.len());
        SuppressedBlocks { stacks, by_rule: vec![LiveBlocks::default(); rules] }
    }

    pub(super) fn add(&mut self, rule: usize, blocks: &LiveBlocks) {
        self.by_rule[rule].add(blocks);
    }

    pub(super) fn finish(self) -> Suppressed {
        let Some(stacks) = self.stacks else { return Suppressed::default() };
        let row =
            |(Suppression { kind, text, source }, blocks): (&Suppression, &LiveBlocks)| SuppressedPattern {
                pattern: text.clone(),
                kind: *kind,
                source: source.clone(),
                bytes: blocks.bytes,
                blocks: blocks.blocks,
                grown_bytes: blocks.grown_bytes,
                grown_blocks: blocks.grown_blocks,
            };
        let mut patterns: Vec<SuppressedPattern> = stacks.rules.iter().zip(&self.by_rule).map(row).collect();
        patterns.retain(|pattern| pattern.kind == SuppressionKind::File || !pattern.is_unused());
        let sum = |of: fn(&SuppressedPattern) -> u64| patterns.iter().map(of).fold(0, u64::saturating_add);
        Suppressed {
            bytes: sum(|pattern| pattern.bytes),
            blocks: sum(|pattern| pattern.blocks),
            grown_bytes: sum(|pattern| pattern.grown_bytes),
            grown_blocks: sum(|pattern| pattern.grown_blocks),
            patterns,
            warnings: stacks.warnings.clone(),
        }
    }
}
