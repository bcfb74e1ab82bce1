//! Suppressions: live blocks that somebody has said are no leaks. In: rules, a profile with its
//! named stacks, and sources. Out: for every stack the rule that suppresses it.
//!
//! | rule | whose | matches |
//! | --- | --- | --- |
//! | file | a line `leak:PATTERN`, as LeakSanitizer has them | any frame: its function, source file or module |
//! | comment | `// leak: ok because …` in the source | the site |
//! | default | what std keeps for itself until the end | the runtime's own part of a stack |
//!
//! A stack belongs to the first kind that matches it. As in LeakSanitizer, the innermost frame with
//! a match decides, and of several patterns for a name the first one.

mod comments;
mod defaults;
mod leak_pattern;

use alloc_dump::layout::StackId;
use foldhash::HashMap;
use serde::Serialize;

use self::comments::{LeakComment, comment_at};
use self::defaults::{CALLS_THE_USER, DEFAULT_PATTERNS, NAMES_OF_FAILED_CHECK};
pub use self::leak_pattern::LeakPattern;
use super::source_paths::SourcePaths;
use crate::names::code_owner::CodeOwner;
use crate::names::function_name::function_of;
use crate::names::rust_path::last_name;
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::Profile;
use crate::source::Sources;

/// Where a suppression comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SuppressionKind {
    /// A file with suppressions.
    File,
    /// A comment in the source.
    Comment,
    /// The list for blocks that the standard library and alloc-tracker keep for themselves.
    Default,
}

/// One suppression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Where it comes from.
    pub kind: SuppressionKind,
    /// The line of the file without white space, the comment, or the pattern of the list.
    pub text: String,
    /// File and line. Of the list for std `default`.
    pub source: String,
}

/// The suppressions of files, and whether comments and the list for std hold as well.
#[derive(Clone, Debug, Default)]
pub struct Suppressions {
    patterns: Vec<(LeakPattern, Suppression)>,
    /// Whether what the standard library keeps for itself is suppressed.
    with_defaults: bool,
}

/// A line of a file that is no suppression.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct BadSuppression {
    /// The file.
    pub file: String,
    /// Number of the line; the first line is 1.
    pub line: usize,
    /// What is wrong, and what is expected.
    pub problem: String,
}

/// For every stack of a profile the rule that suppresses it.
#[derive(Clone, Debug, Default)]
pub struct SuppressedStacks {
    /// All rules: those of files, then those of comments, then those of the list for std.
    pub rules: Vec<Suppression>,
    /// One sentence for each comment that does not count.
    pub warnings: Vec<String>,
    /// At the index of the stack: the index of the rule, or [`NO_RULE`].
    by_stack: Vec<u32>,
}

const NO_RULE: u32 = u32::MAX;
/// The most patterns of all files together. Every name of a program is compared with each.
const MAX_PATTERNS: usize = 2_000;
/// The most bytes of a pattern.
const LONGEST_PATTERN: usize = 1_000;

impl Suppressions {
    /// Returns the suppressions that hold without any option.
    pub fn defaults() -> Suppressions {
        Suppressions { with_defaults: true, ..Suppressions::default() }
    }

    /// Adds the suppressions of a file: on each line `leak:PATTERN`, or a comment that begins with
    /// `#`, or nothing.
    ///
    /// # Errors
    /// If a line is something else, or if there are too many.
    pub fn add_file(&mut self, file: &str, text: &str) -> Result<(), BadSuppression> {
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = at + 1;
            let bad = |problem: &str| BadSuppression {
                file: file.to_owned(),
                line: number,
                problem: problem.to_owned(),
            };
            let pattern = match line.strip_prefix("leak:") {
                None => return Err(bad("this is no suppression: give leak:PATTERN, or a # comment")),
                Some("") => {
                    return Err(bad("there is no pattern after leak:, which would suppress everything"));
                }
                Some(pattern) if pattern.len() > LONGEST_PATTERN => {
                    return Err(bad("this pattern is longer than 1,000 bytes"));
                }
                Some(_) if self.patterns.len() == MAX_PATTERNS => {
                    return Err(bad("there are more than 2,000 suppressions"));
                }
                Some(pattern) => LeakPattern::new(pattern),
            };
            let source = format!("{file}:{number}");
            let rule = Suppression { kind: SuppressionKind::File, text: line.to_owned(), source };
            self.patterns.push((pattern, rule));
        }
        Ok(())
    }

    /// Finds the rule of every stack. Comments are looked for at the sites of live blocks.
    pub fn apply(&self, profile: &Profile, stacks: &Stacks, sources: &dyn Sources) -> SuppressedStacks {
        let mut found = SuppressedStacks {
            rules: self.patterns.iter().map(|(_, rule)| rule.clone()).collect(),
            warnings: Vec::new(),
            by_stack: self.by_patterns(profile, stacks),
        };
        found.add_comments(profile, stacks, sources);
        if self.with_defaults {
            found.add_defaults(stacks);
        }
        found
    }

    /// Returns for each stack the index of the pattern that suppresses it.
    ///
    /// PERF: each distinct name is compared once. A stack has the pattern of its caller's stack
    /// unless its own node has one, so one pass over the nodes is enough.
    fn by_patterns(&self, profile: &Profile, stacks: &Stacks) -> Vec<u32> {
        if self.patterns.is_empty() {
            return vec![NO_RULE; stacks.len()];
        }
        let of_name = |name: &str| self.patterns.iter().position(|(pattern, _)| pattern.matches(name));
        let of_frame = |frame: &NamedFrame| {
            let found = of_name(&frame.function).or_else(|| of_name(frame.file.as_deref()?));
            found.map_or(NO_RULE, |at| at as u32)
        };
        let of_frames: Vec<u32> = stacks.all_frames().map(of_frame).collect();
        let of_modules: Vec<Option<usize>> =
            profile.modules.iter().map(|module| of_name(&module.path.to_string_lossy())).collect();
        let mut by_stack = vec![NO_RULE; stacks.len()];
        for at in StackId::FIRST.0 as usize..stacks.len() {
            let node = StackId(at as u32);
            let module = profile.nodes.get(at).and_then(|node| node.module);
            let of_module = module.and_then(|module| *of_modules.get(module as usize)?).map(|at| at as u32);
            let mut of_node = stacks.frames_of_node(node).iter().map(|frame| of_frames[frame.index()]);
            let own = of_module.or_else(|| of_node.find(|rule| *rule != NO_RULE));
            let of_caller = || stacks.parent(node).map_or(NO_RULE, |parent| by_stack[parent.0 as usize]);
            by_stack[at] = own.unwrap_or_else(of_caller);
        }
        by_stack
    }
}

impl SuppressedStacks {
    /// Returns the index in `rules` of the rule that suppresses a stack.
    pub fn rule_of(&self, stack: StackId) -> Option<usize> {
        self.by_stack.get(stack.0 as usize).filter(|rule| **rule != NO_RULE).map(|rule| *rule as usize)
    }

    /// Adds the comments at the sites of stacks with live blocks.
    fn add_comments(&mut self, profile: &Profile, stacks: &Stacks, sources: &dyn Sources) {
        let paths = SourcePaths::of(profile, stacks);
        let mut known: HashMap<FrameId, u32> = HashMap::default();
        for at in StackId::FIRST.0 as usize..stacks.len() {
            let stack = StackId(at as u32);
            let is_live = profile.stacks.get(at).is_some_and(|stats| stats.live_blocks > 0)
                || profile.grown.contains_key(&stack);
            if !is_live || self.by_stack[at] != NO_RULE {
                continue;
            }
            let Some(site) = stacks.site(stack).filter(|site| stacks.frame(*site).is_own()) else { continue };
            let rule = known.entry(site);
            self.by_stack[at] = *rule
                .or_insert_with(|| self.comment_at(stacks.frame(site), sources, &paths).unwrap_or(NO_RULE));
        }
    }

    /// Returns the rule of the comment at a site, which is added.
    fn comment_at(&mut self, site: &NamedFrame, sources: &dyn Sources, paths: &SourcePaths) -> Option<u32> {
        let (file, line) = (site.file.as_deref()?, site.line?);
        let text = sources.file(file);
        let name = last_name(function_of(&site.function));
        if text.is_missing() || text.is_another_file(name, line, line) || text.has_moved(name, line, line) {
            return None;
        }
        let comment = comment_at(&text, line)?;
        let source = format!("{}:{line}", paths.shown(file));
        let warning = match comment {
            LeakComment::WithoutReason => {
                "the comment 'leak: ok' does not count without a reason: \
                                           write // leak: ok because ..."
            }
            // The lines may have moved, and a gate must not pass by accident.
            LeakComment::Because(_) if text.is_newer_than_program() => {
                "the comment 'leak: ok' does not count, because the file was changed after the program was \
                 built: build and record again"
            }
            LeakComment::Because(reason) => {
                let text = format!("leak: ok because {reason}");
                let known = self.rules.iter().position(|rule| rule.source == source && rule.text == text);
                return Some(known.unwrap_or_else(|| {
                    self.rules.push(Suppression { kind: SuppressionKind::Comment, text, source });
                    self.rules.len() - 1
                }) as u32);
            }
        };
        let warning = format!("{source}: {warning}");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
        None
    }

    /// Adds the list for std. A pattern of it suppresses a stack if nobody but the runtime stands
    /// inside of the frame that it matches.
    fn add_defaults(&mut self, stacks: &Stacks) {
        let first = self.rules.len();
        let patterns = DEFAULT_PATTERNS.iter().map(|default| LeakPattern::new(default.text));
        let patterns: Vec<LeakPattern> = patterns.collect();
        self.rules.extend(DEFAULT_PATTERNS.iter().map(|default| Suppression {
            kind: SuppressionKind::Default,
            text: format!("leak:{}", default.text),
            source: "default".to_owned(),
        }));
        let matching = |frame: &NamedFrame| {
            let found = patterns.iter().position(|pattern| pattern.matches(&frame.function));
            found.map_or(FrameOfDefault::OtherRuntime, FrameOfDefault::Matches)
        };
        let of_frame = |frame: &NamedFrame| match frame.owner {
            _ if frame.function.contains(CALLS_THE_USER) => FrameOfDefault::CallsTheUser,
            _ if frame.function.contains(NAMES_OF_FAILED_CHECK) => matching(frame),
            CodeOwner::Own => FrameOfDefault::CallsTheUser,
            CodeOwner::Dependency => FrameOfDefault::Dependency,
            CodeOwner::Runtime => matching(frame),
        };
        let of_frames: Vec<FrameOfDefault> = stacks.all_frames().map(of_frame).collect();
        let mut by_stack: Vec<Option<usize>> = vec![None; stacks.len()];
        for at in StackId::FIRST.0 as usize..stacks.len() {
            let node = StackId(at as u32);
            let of_caller = stacks.parent(node).and_then(|parent| by_stack[parent.0 as usize]);
            // From the outermost frame inwards.
            by_stack[at] = stacks.frames_of_node(node).iter().rev().fold(of_caller, |outer, frame| {
                match of_frames[frame.index()] {
                    FrameOfDefault::CallsTheUser => None,
                    FrameOfDefault::Dependency => outer.filter(|at| DEFAULT_PATTERNS[*at].with_dependencies),
                    FrameOfDefault::Matches(at) => Some(at),
                    FrameOfDefault::OtherRuntime => outer,
                }
            });
        }
        for (found, default) in self.by_stack.iter_mut().zip(by_stack) {
            if let (NO_RULE, Some(at)) = (*found, default) {
                *found = (first + at) as u32;
            }
        }
    }
}

/// What a frame is for the list for std.
#[derive(Clone, Copy)]
enum FrameOfDefault {
    /// Code of the user, or a function of the runtime that may have such code inlined.
    CallsTheUser,
    Dependency,
    /// A function of the runtime that this pattern matches.
    Matches(usize),
    OtherRuntime,
}

#[cfg(test)]
mod tests;
