//! Selects the stacks that an analysis counts. In: the patterns of the command line. Out: for each
//! stack, whether it counts.

use std::collections::BTreeSet;

use alloc_dump::layout::StackId;

use crate::names::code_owner::rust_crate_of_frame;
use crate::names::rust_path::crate_of;
use crate::names::stacks::{NamedFrame, Stacks};
use crate::pattern::Pattern;
use crate::profile::Annotated;

/// Patterns for the frames of a stack. A stack is accepted if one of its frames fits all patterns,
/// and if no frame is excluded. A filter without patterns accepts every stack.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Pattern for the name of the function.
    pub function: Option<Pattern>,
    /// Pattern for the path of the source file.
    pub file: Option<Pattern>,
    /// Whether `file` is meant for the user's own files. Every package has a `src/lib.rs`.
    pub own_files_only: bool,
    /// Pattern for the name of the crate.
    pub krate: Option<Pattern>,
    /// Patterns for functions, source files and crates that no accepted stack has.
    pub exclude: Vec<Pattern>,
}

/// The stacks that a [`Filter`] accepts: for every stack, whether it is accepted; `None` if all
/// are.
#[derive(Clone, Debug)]
pub struct AcceptedStacks(Option<Vec<bool>>);

impl AcceptedStacks {
    /// Whether a stack is accepted.
    pub fn accepts(&self, stack: StackId) -> bool {
        self.0.as_ref().is_none_or(|accepted| accepted.get(stack.0 as usize) == Some(&true))
    }
}

/// The error of a pattern that matches no name, with the names that are most similar to it.
#[derive(Debug, thiserror::Error)]
#[error("no {kind} matches '{pattern}'{}", suggestion(nearest))]
pub struct NoMatch {
    /// The kind of name that the pattern is for, such as `function`.
    pub kind: &'static str,
    /// Text of the pattern.
    pub pattern: String,
    /// Names that look like the pattern, the most similar first.
    pub nearest: Vec<String>,
}

impl Filter {
    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.selects_all() && self.exclude.is_empty()
    }

    fn selects_all(&self) -> bool {
        self.function.is_none() && self.file.is_none() && self.krate.is_none()
    }

    /// Makes the pattern for files mean the user's own files, if it matches any of them.
    pub fn prefer_own_files(&mut self, stacks: &Stacks) {
        let Some(pattern) = &self.file else { return };
        let mut own = stacks.all_frames().filter(|frame| frame.is_own());
        self.own_files_only =
            own.any(|frame| frame.file.as_deref().is_some_and(|file| pattern.matches(file)));
    }

    /// Whether a frame fits all patterns, and is not excluded.
    pub fn accepts_frame(&self, frame: &NamedFrame) -> bool {
        self.accepts_frame_as(frame, &frame.function)
    }

    /// Whether a frame fits all patterns, and is not excluded, if its function has this name.
    pub fn accepts_frame_as(&self, frame: &NamedFrame, function: &str) -> bool {
        let krate = rust_crate_of_frame(frame).unwrap_or_default();
        (frame.is_own() || !self.own_files_only)
            && self.accepts_names(function, frame.file.as_deref(), &krate)
    }

    /// Whether a function in this file fits all patterns, and is not excluded.
    pub fn accepts_name(&self, function: &str, file: Option<&str>) -> bool {
        self.accepts_names(function, file, crate_of(function).unwrap_or_default())
    }

    fn accepts_names(&self, function: &str, file: Option<&str>, krate: &str) -> bool {
        let fits = |pattern: &Option<Pattern>, name: &str| pattern.as_ref().is_none_or(|p| p.matches(name));
        fits(&self.function, function)
            && fits(&self.file, file.unwrap_or_default())
            && fits(&self.krate, krate)
            && !self.excludes(function, file, krate)
    }

    fn excludes(&self, function: &str, file: Option<&str>, krate: &str) -> bool {
        let names = || [function, krate].into_iter().chain(file);
        self.exclude.iter().any(|pattern| names().any(|name| pattern.matches(name)))
    }

    /// Returns the stacks of which some frame fits all patterns, and no frame is excluded.
    pub fn accepted(&self, stacks: &Stacks) -> AcceptedStacks {
        if self.is_empty() {
            return AcceptedStacks(None);
        }
        let mut accepted = match self.selects_all() {
            true => vec![true; stacks.len()],
            false => stacks.with_frame(|frame| self.accepts_frame(frame)),
        };
        if !self.exclude.is_empty() {
            let excluded = stacks.with_frame(|frame| {
                let krate = rust_crate_of_frame(frame).unwrap_or_default();
                self.excludes(&frame.function, frame.file.as_deref(), &krate)
            });
            accepted.iter_mut().zip(excluded).for_each(|(accepted, excluded)| *accepted &= !excluded);
        }
        AcceptedStacks(Some(accepted))
    }

    /// Checks that some frame of the profile, or one of these annotated functions, fits all
    /// patterns.
    ///
    /// # Errors
    /// Returns [`NoMatch`] for the first pattern that matches no name. If each pattern matches some
    /// name, but no frame fits all patterns, the error names all patterns.
    pub fn check(&self, stacks: &Stacks, annotated: &[Annotated]) -> Result<(), NoMatch> {
        if self.selects_all()
            || stacks.all_frames().any(|frame| self.accepts_frame(frame))
            || annotated.iter().any(|function| self.accepts_name(&function.name, Some(&function.file)))
        {
            return Ok(());
        }
        let names = Names { stacks, annotated };
        let no_match = |kind, pattern: &Pattern, names: Vec<&str>| {
            let pattern = pattern.to_string();
            Err(NoMatch { kind, pattern, nearest: names.into_iter().map(str::to_owned).collect() })
        };
        match (&self.function, &self.file, &self.krate) {
            (Some(p), _, _) if !names.functions(false).any(|name| p.matches(name)) => {
                no_match("function", p, p.nearest(names.functions(true), 3))
            }
            (_, Some(p), _) if !names.files(false).any(|name| p.matches(name)) => {
                no_match("file", p, p.nearest(names.files(true), 3))
            }
            (_, _, Some(p)) if !names.crates().iter().any(|name| p.matches(name)) => {
                no_match("crate", p, p.nearest(names.crates().iter().map(String::as_str), 3))
            }
            (function, file, krate) => {
                let all: Vec<String> =
                    [function, file, krate].into_iter().flatten().map(ToString::to_string).collect();
                Err(NoMatch { kind: "frame", pattern: all.join("' and '"), nearest: Vec::new() })
            }
        }
    }
}

/// All names that patterns may mean.
struct Names<'a> {
    stacks: &'a Stacks,
    annotated: &'a [Annotated],
}

impl<'a> Names<'a> {
    /// Returns the names of all functions, or of the user's own if `own_only`.
    fn functions(&self, own_only: bool) -> impl Iterator<Item = &'a str> {
        let annotated = self.annotated.iter().map(|function| function.name.as_str());
        annotated.chain(self.frames(own_only).map(|frame| &*frame.function))
    }

    /// Returns the paths of all source files, or of the user's own if `own_only`.
    fn files(&self, own_only: bool) -> impl Iterator<Item = &'a str> {
        let annotated = self.annotated.iter().map(|function| function.file.as_str());
        annotated.chain(self.frames(own_only).filter_map(|frame| frame.file.as_deref()))
    }

    /// Returns the names of all crates.
    fn crates(&self) -> BTreeSet<String> {
        let annotated = self.annotated.iter().filter_map(|function| crate_of(&function.name));
        annotated.map(str::to_owned).chain(self.frames(false).filter_map(rust_crate_of_frame)).collect()
    }

    /// Returns all frames, or the user's own if `own_only` and if there are any.
    fn frames(&self, own_only: bool) -> impl Iterator<Item = &'a NamedFrame> {
        let own_only = own_only && self.stacks.all_frames().any(NamedFrame::is_own);
        self.stacks.all_frames().filter(move |frame| !own_only || frame.is_own())
    }
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; the nearest: {}", nearest.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::code_owner::CodeOwner;

    fn frame(function: &str, file: &str) -> NamedFrame {
        NamedFrame {
            function: function.into(),
            file: Some(file.into()),
            line: None,
            is_inlined: false,
            owner: if file.starts_with("/w") { CodeOwner::Own } else { CodeOwner::Dependency },
            module: "app".into(),
        }
    }

    /// Two stacks, innermost first: own code that calls a package, and a package alone.
    fn stacks() -> Stacks {
        let package = || frame("serde::to_vec", "/c/registry/src/index-1/serde-1.0.0/src/ser.rs");
        Stacks::from_frames(&[vec![package(), frame("app::save", "/w/src/save.rs")], vec![package()]])
    }

    fn accepted(mut filter: Filter) -> [bool; 2] {
        let stacks = stacks();
        filter.prefer_own_files(&stacks);
        let accepted = filter.accepted(&stacks);
        [0, 1].map(|at| accepted.accepts(StackId(StackId::FIRST.0 + at)))
    }

    #[test]
    fn a_file_is_one_of_the_users_own_unless_none_matches() {
        let of = |text| accepted(Filter { file: Some(Pattern::new(text)), ..Filter::default() });
        assert_eq!(of("src/"), [true, false], "the package lies in a folder `src`, too");
        assert_eq!((of("ser.rs"), of("serde-1.0.0")), ([true, true], [true, true]));
    }

    #[test]
    fn an_excluded_stack_has_a_name_that_matches() {
        let without = |text| accepted(Filter { exclude: vec![Pattern::new(text)], ..Filter::default() });
        assert_eq!(without("save.rs"), [false, true]);
        assert_eq!((without("serde"), without("app::lo*")), ([false, false], [true, true]));
        let krate = Some(Pattern::new("serde"));
        let both = Filter { krate, exclude: vec![Pattern::new("app")], ..Filter::default() };
        assert_eq!(accepted(both), [false, true]);
    }

    #[test]
    fn the_nearest_names_are_those_of_own_code() {
        let filter = Filter { function: Some(Pattern::new("to_ves")), ..Filter::default() };
        assert_eq!(filter.check(&stacks(), &[]).unwrap_err().nearest, ["app::save"]);
    }
}
