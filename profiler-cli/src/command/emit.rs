//! `--emit FORMAT[=FILE]`: the outputs for reviewers, for every command that makes a [`Review`].
//!
//! In: the options, the environment of a CI job, and a review. Out: files, and stdout. A file that
//! is a dump is never replaced.

mod destination;
mod surroundings;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};

use self::destination::Destination;
use self::surroundings::{JobVariables, repository_place};
use super::output::Audience;
use super::{Failure, print_message};
use crate::analyze::review::Review;
use crate::pattern::Pattern;
use crate::render::review::markdown::MarkdownLimit;
use crate::render::review::place::RepositoryPlace;
use crate::render::review::{annotations, bencher, github_action_benchmark, gitlab, junit, markdown, sarif};
use crate::units::Safe;

/// Options of the outputs for reviewers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct EmitArgs {
    /// Write an output for reviewers, to FILE or to stdout; may be given several times.
    ///
    /// FORMAT is one of: markdown (a comment or a job summary), annotations (of GitHub), junit,
    /// sarif (GitHub code scanning), github-action-benchmark, bencher, gitlab (Code Quality).
    ///
    /// `markdown="$GITHUB_STEP_SUMMARY"` appends to the job summary.
    #[arg(long, value_name = "FORMAT[=FILE]", value_hint = ValueHint::Other, help_heading = "Reviewers")]
    pub emit: Vec<EmittedOutput>,
    /// Link source lines to URL/PATH#LLINE. [default: from the variables of GitHub or GitLab]
    ///
    /// For example `https://github.com/OWNER/NAME/blob/COMMIT`. PATH begins at the root of the
    /// repository.
    #[arg(
        long,
        value_name = "URL",
        requires = "emit",
        value_parser = link_base,
        value_hint = ValueHint::Url,
        help_heading = "Reviewers"
    )]
    pub link_base: Option<String>,
}

/// A format, and the file that gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmittedOutput {
    /// The format.
    pub format: EmittedFormat,
    /// The file; `None` for stdout.
    pub file: Option<PathBuf>,
}

/// A format for reviewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmittedFormat {
    /// A comment or a job summary.
    Markdown,
    /// Workflow commands of GitHub.
    Annotations,
    /// JUnit XML.
    Junit,
    /// SARIF 2.1.0.
    Sarif,
    /// The totals for github-action-benchmark.
    GithubActionBenchmark,
    /// The totals in the Bencher Metric Format.
    Bencher,
    /// A Code Quality report of GitLab.
    Gitlab,
}

impl EmittedFormat {
    /// All formats.
    pub const ALL: [EmittedFormat; 7] = [
        EmittedFormat::Markdown,
        EmittedFormat::Annotations,
        EmittedFormat::Junit,
        EmittedFormat::Sarif,
        EmittedFormat::GithubActionBenchmark,
        EmittedFormat::Bencher,
        EmittedFormat::Gitlab,
    ];

    /// The name of the format in `--emit`.
    pub fn name(self) -> &'static str {
        match self {
            EmittedFormat::Markdown => "markdown",
            EmittedFormat::Annotations => "annotations",
            EmittedFormat::Junit => "junit",
            EmittedFormat::Sarif => "sarif",
            EmittedFormat::GithubActionBenchmark => "github-action-benchmark",
            EmittedFormat::Bencher => "bencher",
            EmittedFormat::Gitlab => "gitlab",
        }
    }

    fn render(
        self,
        out: &mut dyn Write,
        review: &Review,
        place: &RepositoryPlace,
        limit: MarkdownLimit,
    ) -> io::Result<()> {
        match self {
            EmittedFormat::Markdown => markdown::write(out, review, place, limit),
            EmittedFormat::Annotations => annotations::write(out, review, place),
            EmittedFormat::Junit => junit::write(out, review, place),
            EmittedFormat::Sarif => sarif::write(out, review, place),
            EmittedFormat::GithubActionBenchmark => github_action_benchmark::write(out, review, place),
            EmittedFormat::Bencher => bencher::write(out, review, place),
            EmittedFormat::Gitlab => gitlab::write(out, review, place),
        }
    }
}

impl fmt::Display for EmittedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EmittedOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<EmittedOutput, String> {
        let (name, file) = match text.split_once('=') {
            Some((name, file)) => (name, Some(file)),
            None => (text, None),
        };
        let Some(format) = EmittedFormat::ALL.into_iter().find(|format| format.name() == name) else {
            let names = EmittedFormat::ALL.map(EmittedFormat::name);
            let nearest = Pattern::new(name).nearest(names.into_iter(), 1);
            let names = names.join(", ");
            return Err(match nearest.first().filter(|_| !name.is_empty()) {
                Some(nearest) => {
                    format!("no format {}; did you mean {nearest}? There are: {names}", Safe(name))
                }
                None => format!("give one of the formats {names}"),
            });
        };
        match file {
            // An unset variable of a script, such as GITHUB_STEP_SUMMARY outside of a job.
            Some("") => Err(format!("no file after {name}=; leave the = out for stdout")),
            Some("-") | None => Ok(EmittedOutput { format, file: None }),
            Some(file) => Ok(EmittedOutput { format, file: Some(file.into()) }),
        }
    }
}

fn link_base(text: &str) -> Result<String, String> {
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    if is_url { Ok(text.to_owned()) } else { Err("give a URL that begins with https://".to_owned()) }
}

impl EmitArgs {
    /// Checks that the outputs can be written beside each other. To be called before a command
    /// reads its dumps, so that a mistake is known at once.
    ///
    /// # Errors
    /// If two outputs have the same file, or if a file is a dump.
    pub fn check(&self) -> Result<(), Failure> {
        if self.emit.iter().filter(|output| output.file.is_none()).count() > 1 {
            return Err(anyhow::anyhow!("two outputs go to stdout: give one of them a file").into());
        }
        let files: Vec<&PathBuf> = self.emit.iter().filter_map(|output| output.file.as_ref()).collect();
        for (at, file) in files.iter().enumerate() {
            destination::check(file)?;
            if files[..at].contains(file) {
                let file = file.display();
                return Err(anyhow::anyhow!("two outputs have the file {file}: choose another one").into());
            }
        }
        Ok(())
    }

    /// Whether an output goes to stdout, so that the report for people must not.
    pub fn uses_stdout(&self) -> bool {
        self.emit.iter().any(|output| output.file.is_none())
    }

    /// Writes all outputs, in the order of the options. If one of them cannot be written, the
    /// others are written nevertheless.
    ///
    /// # Errors
    /// See [`EmitArgs::check`]; otherwise the first error of an output. An output that cannot be
    /// written counts more than a closed pipe.
    pub fn write(&self, review: &Review) -> Result<(), Failure> {
        self.write_in(review, &JobVariables::of_this_process())
    }

    fn write_in(&self, review: &Review, job: &JobVariables) -> Result<(), Failure> {
        if self.emit.is_empty() {
            return Ok(());
        }
        self.check()?;
        let place = repository_place(job, self.link_base.as_deref());
        let mut result = Ok(());
        for output in &self.emit {
            match write_output(output, review, &place, job) {
                Err(failure) if matches!(result, Ok(()) | Err(Failure::ClosedPipe)) => result = Err(failure),
                _ => {}
            }
        }
        result
    }
}

fn write_output(
    output: &EmittedOutput,
    review: &Review,
    place: &RepositoryPlace,
    job: &JobVariables,
) -> Result<(), Failure> {
    let is_markdown = output.format == EmittedFormat::Markdown;
    match Destination::of(output.file.as_deref(), is_markdown, job) {
        Destination::Target(target) => {
            let write =
                |out: &mut dyn Write| output.format.render(out, review, place, MarkdownLimit::COMMENT);
            target.write(Audience::Programs, write)
        }
        Destination::JobSummary(summary) => {
            let mut page = Vec::new();
            markdown::write(&mut page, review, place, summary.room())?;
            if page.is_empty() {
                print_message("the job summary is full: nothing was added to it");
                return Ok(());
            }
            summary.append(&page)
        }
    }
}

#[cfg(test)]
mod tests;
