//! The output of the commands: where a result is written, and with or without colours.
//!
//! In: the value of an option such as `-o FILE`, and a renderer. Out: bytes on stdout or in a file.
//! The name of a written file is printed to stderr. A closed pipe is a success (see [`Failure`]).
//! An output must never replace the dump that it was made from.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::bail;
use clap::Args;

use super::Failure;
use crate::analyze::shown::Folding;
use crate::dumps::reserve::make_folder_of;
use crate::io_error::plain;
use crate::render::text_width::TextWidth;
use crate::units::Safe;

/// Number of rows that are shown to a person who does not ask for more.
pub const DEFAULT_TOP: usize = 10;

/// The choice of JSON instead of text.
#[derive(Debug, Args)]
pub struct JsonArg {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The choice of frames that are left out or folded.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct FoldArgs {
    /// Show every frame: the same as --fold none.
    #[arg(long, conflicts_with = "fold")]
    pub full: bool,
    /// Frames that are left out or folded. [default: dependencies; with --json runtime]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub fold: Option<Folding>,
}

impl FoldArgs {
    /// Returns the choice. Without one, JSON has the frames of dependencies, and text folds them.
    pub fn folding_of(self, output: &JsonArg) -> Folding {
        let default = if output.json { Folding::Runtime } else { Folding::default() };
        if self.full { Folding::None } else { self.fold.unwrap_or(default) }
    }
}

/// The readers of a format, on whom its colours depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// People: with colours on a terminal, unless `--color` says otherwise.
    People,
    /// Programs: every byte is written as the renderer gives it. Removing colours could remove
    /// bytes that only look like a colour.
    Programs,
}

/// Where a command writes its result.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Standard output.
    Stdout,
    /// A file, and the dump that it must not replace.
    File {
        /// The file.
        path: &'a Path,
        /// The dump that was read.
        dump: &'a Path,
    },
}

impl<'a> Target<'a> {
    /// Returns the target for the value of an option: `-` and no value mean stdout.
    pub fn of_option(path: Option<&'a Path>, dump: &'a Path) -> Target<'a> {
        match path {
            Some(path) if path != Path::new("-") => Target::File { path, dump },
            _ => Target::Stdout,
        }
    }

    /// Writes a result here. The name of a written file is printed to stderr.
    ///
    /// # Errors
    /// If the result cannot be written, or if the file is the dump itself.
    pub fn write(
        self,
        audience: Audience,
        render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        match self {
            Target::Stdout => {
                let mut out = stdout_for(audience);
                render(&mut out)?;
                out.flush()?;
            }
            Target::File { path, dump } => {
                write_file(path, dump, audience, render)?;
                // The file is complete, even if nobody reads stderr any more.
                let _ = writeln!(anstream::stderr(), "{}", Safe(&path.to_string_lossy()));
            }
        }
        Ok(())
    }
}

/// Writes a result into a file, whose folder is made if it is missing. Prints nothing.
///
/// # Errors
/// If the file cannot be written, or if it is the dump itself.
pub(super) fn write_file(
    path: &Path,
    dump: &Path,
    audience: Audience,
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    if identity(path).is_some_and(|file| Some(file) == identity(dump)) {
        bail!("cannot write {}: it is the dump itself; choose another file", path.display());
    }
    let write = || {
        make_folder_of(path)?;
        let file = File::create(path)?;
        let mut out: Box<dyn Write> = match audience {
            // A file has no colours.
            Audience::People => Box::new(BufWriter::new(anstream::StripStream::new(file))),
            Audience::Programs => Box::new(BufWriter::new(file)),
        };
        render(&mut out)?;
        out.flush()
    };
    write().map_err(|error| anyhow::anyhow!("cannot write {}: {}", path.display(), plain(&error)))
}

/// Returns the width of the text on standard output, or on standard error: that of the terminal,
/// or what the variable COLUMNS says. Text that goes into a file or a pipe may have any width.
pub(super) fn text_width(stream: impl std::os::fd::AsFd) -> TextWidth {
    let set = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let of_terminal = || terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0));
    let columns = set.or_else(of_terminal);
    columns.map_or_else(TextWidth::default, TextWidth::of_columns)
}

/// Returns the format of an output: the one that an option asks for, or else the one that the
/// ending of the file's name stands for. The first one of `formats` is the default for names
/// without an ending, and for stdout.
///
/// This is the one place where an ending decides about a format.
///
/// # Errors
/// If the option and the ending contradict each other, or if neither names a format.
pub fn format_of_output<F: Copy + PartialEq>(
    by_option: Option<F>,
    output: Option<&Path>,
    formats: &[(&str, F)],
) -> anyhow::Result<F> {
    let ending = output.and_then(Path::extension).map(|ending| ending.to_string_lossy().into_owned());
    let by_name = ending.as_ref().and_then(|ending| formats.iter().find(|(name, _)| name == ending));
    match (by_option, by_name, ending, formats.first()) {
        (Some(by_option), Some((name, by_name)), ..) if by_option != *by_name => {
            bail!("the file name ends in .{name}, but the options ask for another format: change one")
        }
        (Some(by_option), ..) => Ok(by_option),
        (None, Some((_, by_name)), ..) => Ok(*by_name),
        (None, None, None, Some((_, default))) => Ok(*default),
        (None, None, ending, _) => {
            let ending = ending.unwrap_or_default();
            let known: Vec<String> = formats.iter().map(|(name, _)| format!(".{name}")).collect();
            let known = known.join(", ");
            bail!("cannot tell the format from the extension .{ending}: use one of {known}, or --format")
        }
    }
}

fn stdout_for(audience: Audience) -> Box<dyn Write> {
    let stdout = io::stdout();
    match audience {
        Audience::People => Box::new(BufWriter::new(anstream::AutoStream::auto(stdout))),
        Audience::Programs => Box::new(BufWriter::new(stdout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_for_people_has_no_colours_and_a_file_for_programs_has_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (path, dump) = (folder.path().join("out"), folder.path().join("x.alloc"));
        for (audience, expected) in [(Audience::People, "ab"), (Audience::Programs, "a\x1b[1mb")] {
            write_file(&path, &dump, audience, |out| out.write_all(b"a\x1b[1mb")).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[test]
    fn the_ending_decides_unless_an_option_does() {
        let format = |option: Option<char>, name: Option<&str>| {
            let formats = [("txt", 't'), ("svg", 's')];
            format_of_output(option, name.map(Path::new), &formats).map_err(|error| error.to_string())
        };
        assert_eq!(format(None, None), Ok('t'));
        assert_eq!(format(None, Some("-")), Ok('t'));
        assert_eq!(format(None, Some("a.b/x")), Ok('t'));
        assert_eq!(format(None, Some("a.svg")), Ok('s'));
        assert_eq!(format(Some('s'), Some("a.other")), Ok('s'));
        assert_eq!(format(Some('s'), Some("a.svg")), Ok('s'));
        assert!(format(Some('t'), Some("a.svg")).unwrap_err().contains("ends in .svg"));
        assert!(format(None, Some("a.png")).unwrap_err().contains("use one of .txt, .svg"));
    }

    #[test]
    fn missing_folders_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/out");
        write_file(&path, Path::new("x.alloc"), Audience::Programs, |out| out.write_all(b"x")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
        let error = write_file(&path.join("c"), Path::new("x.alloc"), Audience::Programs, |_| Ok(()));
        assert!(error.unwrap_err().to_string().contains("cannot write"));
    }

    #[test]
    fn the_dump_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("x.alloc");
        std::fs::write(&dump, "a dump").unwrap();
        let same = folder.path().join(".").join("x.alloc");
        let error = write_file(&same, &dump, Audience::Programs, |out| out.write_all(b"x")).unwrap_err();
        assert!(error.to_string().contains("it is the dump itself"), "{error}");
        assert_eq!(std::fs::read_to_string(&dump).unwrap(), "a dump");
    }
}
