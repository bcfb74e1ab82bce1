//! Selects the stacks that an analysis counts. In: the patterns of the command line. Out: for each
//! stack, whether it counts.

use alloc_dump::layout::StackId;

use crate::names::rust_path::crate_of;
use crate::names::stacks::{NamedFrame, Stacks};
use crate::pattern::Pattern;
use crate::profile::Annotated;

/// Patterns for the frames of a stack. A stack is accepted if one of its frames fits all patterns.
/// A filter without patterns accepts every stack.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Pattern for the name of the function.
    pub function: Option<Pattern>,
    /// Pattern for the path of the source file.
    pub file: Option<Pattern>,
    /// Pattern for the name of the crate.
    pub krate: Option<Pattern>,
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

    /// Returns the stacks of which some frame fits all patterns.
    pub fn accepted(&self, stacks: &Stacks) -> AcceptedStacks {
        AcceptedStacks((!self.is_empty()).then(|| stacks.with_frame(|frame| self.accepts_frame(frame))))
    }

    /// Checks that some frame of the profile, or one of these annotated functions, fits all
    /// patterns.
    ///
    /// # Errors
    /// Returns [`NoMatch`] for the first pattern that matches no name. If each pattern matches some
    /// name, but no frame fits all patterns, the error names all patterns.
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
