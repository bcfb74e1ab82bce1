//! Which stacks an analysis looks at. In: the patterns of the command line. Out: yes or no for a stack.

use alloc_dump::layout::StackId;

use crate::names::rust_path::crate_of;
use crate::names::stacks::{NamedFrame, Stacks};
use crate::pattern::Pattern;
use crate::profile::Annotated;

/// Patterns that one frame of a stack must fit, each. Empty: every stack.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// For function names.
    pub function: Option<Pattern>,
    /// For source paths.
    pub file: Option<Pattern>,
    /// For crate names.
    pub krate: Option<Pattern>,
}

/// The stacks that a [`Filter`] accepts.
#[derive(Clone, Debug)]
pub struct Accepted(Option<Vec<bool>>);

impl Accepted {
    /// Whether this one is among them.
    pub fn has(&self, stack: StackId) -> bool {
        self.0.as_ref().is_none_or(|accepted| accepted.get(stack.0 as usize) == Some(&true))
    }
}

/// A pattern that fits nothing, with what comes nearest to it.
#[derive(Debug, thiserror::Error)]
#[error("no {kind} matches '{pattern}'{}", suggestion(nearest))]
pub struct NoMatch {
    /// What the pattern is for.
    pub kind: &'static str,
    /// The pattern.
    pub pattern: String,
    /// Names that look like it.
    pub nearest: Vec<String>,
}

impl Filter {
    /// Whether there is any pattern.
    pub fn is_empty(&self) -> bool {
        self.function.is_none() && self.file.is_none() && self.krate.is_none()
    }

    /// Whether a frame fits all patterns.
    pub fn accepts_frame(&self, frame: &NamedFrame) -> bool {
        self.accepts_name(&frame.function, frame.file.as_deref())
    }

    /// Whether a function in this file fits all patterns.
    pub fn accepts_name(&self, function: &str, file: Option<&str>) -> bool {
        let fits = |pattern: &Option<Pattern>, name: &str| pattern.as_ref().is_none_or(|p| p.matches(name));
        fits(&self.function, function)
            && fits(&self.file, file.unwrap_or_default())
            && fits(&self.krate, crate_of(function).unwrap_or_default())
    }

    /// The stacks of which some frame fits all patterns.
    pub fn accepted(&self, stacks: &Stacks) -> Accepted {
        Accepted((!self.is_empty()).then(|| stacks.with_frame(|frame| self.accepts_frame(frame))))
    }

    /// Fails if no frame of the profile fits, nor any of these annotated functions.
    ///
    /// # Errors
    /// [`NoMatch`], for the first pattern that fits nothing.
    pub fn check(&self, stacks: &Stacks, annotated: &[Annotated]) -> Result<(), NoMatch> {
        if self.is_empty()
            || stacks.all_frames().any(|frame| self.accepts_frame(frame))
            || annotated.iter().any(|function| self.accepts_name(&function.name, Some(&function.file)))
        {
            return Ok(());
        }
        let annotated_names = || annotated.iter().map(|function| function.name.as_str());
        let functions = || annotated_names().chain(stacks.all_frames().map(|frame| &*frame.function));
        let annotated_files = || annotated.iter().map(|function| function.file.as_str());
        let files = || annotated_files().chain(stacks.all_frames().filter_map(|frame| frame.file.as_deref()));
        let crates = || functions().filter_map(crate_of);
        let no_match = |kind, pattern: &Pattern, names: Vec<&str>| {
            let pattern = pattern.to_string();
            Err(NoMatch { kind, pattern, nearest: names.into_iter().map(str::to_owned).collect() })
        };
        match (&self.function, &self.file, &self.krate) {
            (Some(p), _, _) if !functions().any(|name| p.matches(name)) => {
                no_match("function", p, p.nearest(functions(), 3))
            }
            (_, Some(p), _) if !files().any(|name| p.matches(name)) => {
                no_match("file", p, p.nearest(files(), 3))
            }
            (_, _, Some(p)) if !crates().any(|name| p.matches(name)) => {
                no_match("crate", p, p.nearest(crates(), 3))
            }
            (function, file, krate) => {
                let all: Vec<String> =
                    [function, file, krate].into_iter().flatten().map(ToString::to_string).collect();
                Err(NoMatch { kind: "frame", pattern: all.join("' and '"), nearest: Vec::new() })
            }
        }
    }
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; the nearest: {}", nearest.join(", ")) }
}
