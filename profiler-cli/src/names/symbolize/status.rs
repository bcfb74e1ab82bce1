//! How well the symbols of a module are known. In: the files that were found for the module. Out:
//! one line for a person, which names the problem and the remedy.

use std::fmt;
use std::path::{Path, PathBuf};

/// How well a module could be symbolized, and the reason if it could not.
///
/// `Display` gives one line, which names the problem and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModuleStatus {
    /// Functions, files, lines and inlined calls are known.
    LineTables {
        /// The file that holds the debug info: the module itself or a file that belongs to it.
        debug_file: PathBuf,
    },
    /// The program's own code has function names only, because it was compiled without line tables.
    SymbolTableOnly {
        /// The file that was read.
        path: PathBuf,
    },
    /// Functions, files and lines come from an earlier look-up of the same build, which the dump or
    /// the cache has kept. The file was not read.
    KeptNames,
    /// The module has neither debug info nor a symbol table.
    NoSymbols {
        /// The file that was read.
        path: PathBuf,
    },
    /// The debug info cannot be read, so function names are used instead.
    DamagedDebugInfo {
        /// The file that holds the debug info.
        debug_file: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// The file of the module was not found.
    Missing {
        /// The path that the dump names.
        path: PathBuf,
        /// Why the file could not be read.
        reason: String,
    },
    /// The file was rebuilt since the dump was written, so its addresses mean other code now.
    WrongBuild {
        /// The build-id in the dump.
        recorded_id: Vec<u8>,
        /// The build-id of the file; empty if it has none.
        found_id: Vec<u8>,
        /// The path that the dump names.
        recorded_path: PathBuf,
        /// The file that was compared.
        found_path: PathBuf,
    },
    /// The file has other code than the one that ran, though its build-id does not tell.
    OtherCode {
        /// The build-id in the dump, which is also that of the file; empty if there is none.
        build_id: Vec<u8>,
        /// The path that the dump names.
        path: PathBuf,
    },
}

impl ModuleStatus {
    /// Whether the module's file was found and is the build that ran.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        !matches!(self, Self::Missing { .. }) && !self.is_other_build()
    }

    /// Whether a file was found that is not the one that ran.
    #[must_use]
    pub fn is_other_build(&self) -> bool {
        matches!(self, Self::WrongBuild { .. } | Self::OtherCode { .. })
    }
}

impl fmt::Display for ModuleStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTables { debug_file } => write!(f, "line tables from {}", debug_file.display()),
            Self::KeptNames => f.write_str("names that were kept"),
            Self::SymbolTableOnly { path } => write!(
                f,
                "{} has function names but no line tables; build it with `debug = \"line-tables-only\"` (or more) \
                 in its profile to see files, lines and inlined calls",
                path.display()
            ),
            Self::NoSymbols { path } => write!(
                f,
                "{} has no symbols; build it without `strip`, or pass --symbols PATH with its debug files",
                path.display()
            ),
            Self::DamagedDebugInfo { debug_file, reason } => {
                write!(
                    f,
                    "the debug info of {} cannot be read ({reason}); using function names only",
                    debug_file.display()
                )
            }
            // The kernel's own code.
            Self::Missing { path, .. } if path.to_string_lossy().starts_with('[') => {
                write!(f, "{} is in no file, so its code has no names", path.display())
            }
            Self::Missing { path, reason } => {
                write!(
                    f,
                    "{} cannot be read ({reason}); pass --symbols PATH with a copy of it",
                    path.display()
                )
            }
            Self::WrongBuild { recorded_id, found_id, recorded_path, found_path } => write!(
                f,
                "{} was rebuilt since the dump was recorded: the dump is of build-id {} ({}), the file {} has {}; \
                 its code has addresses instead of names; record a new dump, or pass --symbols PATH with the \
                 recorded build",
                name_of(recorded_path),
                BuildId(recorded_id),
                recorded_path.display(),
                found_path.display(),
                BuildId(found_id),
            ),
            Self::OtherCode { build_id, path } => write!(
                f,
                "{} is not the file that was recorded: the code of {} differs, and its build-id does not tell ({}); \
                 its code has addresses instead of names; record a new dump, or pass --symbols PATH with the \
                 recorded build",
                name_of(path),
                path.display(),
                BuildId(build_id),
            ),
        }
    }
}

fn name_of(path: &Path) -> std::path::Display<'_> {
    path.file_name().map_or(path, Path::new).display()
}

/// Displays a build-id in hexadecimal, as `readelf -n` and `.build-id` folders write it.
pub(super) struct BuildId<'a>(pub(super) &'a [u8]);

impl fmt::Display for BuildId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no build-id");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_wrong_build_names_both_ids_both_paths_and_the_remedy() {
        let status = ModuleStatus::WrongBuild {
            recorded_id: vec![0xab, 0x01],
            found_id: vec![0xcd, 0x02],
            recorded_path: "/srv/app".into(),
            found_path: "/symbols/app".into(),
        };
        let text = status.to_string();
        for part in ["ab01", "cd02", "/srv/app", "/symbols/app", "--symbols", "record a new dump"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 1);
        assert!(!status.is_trusted());
    }

    #[test]
    fn the_text_of_other_code_names_the_file_and_the_remedy() {
        let status = ModuleStatus::OtherCode { build_id: Vec::new(), path: "/srv/app".into() };
        let text = status.to_string();
        for part in ["/srv/app", "no build-id", "--symbols", "record a new dump"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 1);
        assert!(status.is_other_build() && !status.is_trusted());
    }

    #[test]
    fn a_missing_build_id_is_displayed_as_such() {
        assert_eq!(BuildId(&[]).to_string(), "no build-id");
        assert_eq!(BuildId(&[0, 255]).to_string(), "00ff");
    }
}
