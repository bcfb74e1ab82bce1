//! Makes a copy of a real parser, `syn`, with `#[profile]` in front of its ten hottest functions,
//! and a package that runs the workloads with that copy. In: the sources that cargo has fetched.
//! Out: the manifest of the package, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{MetadataCommand, Package};

use crate::tools::Program;

/// The ten functions of `syn` 3 with the most allocations in the workload `syn`. An allocation
/// counts for the innermost function of `syn` on its stack. Each entry is a file and how a line
/// begins; the first such line of the file is meant.
const HOTTEST: [(&str, &str); 10] = [
    ("expr.rs", "fn trailer_expr("),
    ("parse.rs", "fn parse_str(self"),
    ("parse.rs", "pub fn step<F, R>("),
    ("buffer.rs", "fn recursive_new("),
    ("error.rs", "pub(crate) fn new_at<"),
    ("expr.rs", "fn trailer_helper("),
    ("expr.rs", "fn expr_closure("),
    ("expr.rs", "impl Parse for Expr {"),
    ("expr.rs", "fn paren_or_tuple("),
    ("path.rs", "pub(crate) fn do_parse("),
];

/// Writes the copy and the package into `folder`. Returns the path of the package's manifest.
pub(crate) fn prepare(workspace: &Path, folder: &Path) -> Result<PathBuf> {
    let programs = workspace.join("benchmarks/programs");
    let parser = parser_sources(&programs)?;
    let copy = folder.join("syn");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_folder(&parser, &copy).context("syn cannot be copied")?;
    for (file, beginning) in HOTTEST {
        let file = copy.join("src").join(file);
        let text = annotated(&fs::read_to_string(&file)?, beginning);
        fs::write(&file, text.with_context(|| format!("this version of syn has no `{beginning}`"))?)?;
    }
    let tracker = workspace.join("alloc-tracker");
    let manifest = copy.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest)? + &format!("\n[dependencies.alloc-tracker]\npath = {tracker:?}\n");
    fs::write(&manifest, text)?;

    // The workloads become a package of their own, because the crate of the attribute needs the
    // original parser. Cargo.lock is copied so that all versions are those of the other programs.
    fs::copy(programs.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let workloads = programs.join("workloads");
    let text = fs::read_to_string(workloads.join("Cargo.toml"))?;
    let (_, dependencies) =
        text.split_once("\n[dependencies]\n").context("the workloads have dependencies")?;
    let (registry, here) = ("syn = { version = \"3\",", format!("syn = {{ path = {copy:?},"));
    ensure!(dependencies.contains(registry), "the workloads do not depend on syn by `{registry}`");
    let dependencies = dependencies.replace(registry, &here);
    let manifest = folder.join("Cargo.toml");
    let name = Program::Annotated.file();
    let (library, main) = (workloads.join("src/lib.rs"), programs.join("src/bin/tracked.rs"));
    let package = format!(
        "[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n[workspace]\n\n\
         [lib]\nname = \"workloads\"\npath = {library:?}\n\n[[bin]]\nname = {name:?}\npath = {main:?}\n\n\
         [profile.release]\ndebug = \"line-tables-only\"\n\n\
         [dependencies]\nalloc-tracker = {{ path = {tracker:?} }}\n{dependencies}"
    );
    fs::write(&manifest, package)?;
    Ok(manifest)
}

/// Returns the folder in which cargo has put the sources of the parser.
fn parser_sources(programs: &Path) -> Result<PathBuf> {
    let metadata = MetadataCommand::new()
        .manifest_path(programs.join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()?;
    let is_meant = |package: &&Package| *package.name == "syn" && package.version.major == 3;
    let package = metadata.packages.iter().find(is_meant).context("the workloads use no syn 3")?;
    let folder = package.manifest_path.parent().context("a manifest is in a folder")?;
    Ok(folder.as_std_path().to_path_buf())
}

/// Returns the text with the attribute in front of the first line with this beginning. If that line
/// is an `impl`, the attribute is put in front of its first function.
fn annotated(text: &str, beginning: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut index = lines.iter().position(|line| line.trim_start().starts_with(beginning))?;
    if beginning.starts_with("impl") {
        index += lines[index..].iter().position(|line| line.trim_start().starts_with("fn "))?;
    }
    let mut annotated = lines;
    annotated.insert(index, "#[alloc_tracker::profile]");
    Some(annotated.join("\n") + "\n")
}

/// Copies a folder without the modes of its files, because files that cargo has fetched may be
/// read-only.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            ensure!(kind.is_file(), "{} is not a file", entry.path().display());
            fs::write(&target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_is_put_before_the_function() {
        let text = "mod m {\n    #[inline]\n    fn one() {}\n    impl T for U {\n        type A = ();\n        fn two() {}\n    }\n}\n";
        let expected = text.replace("    fn one", "#[alloc_tracker::profile]\n    fn one");
        assert_eq!(annotated(text, "fn one("), Some(expected));
        let expected = text.replace("        fn two", "#[alloc_tracker::profile]\n        fn two");
        assert_eq!(annotated(text, "impl T for U {"), Some(expected));
        assert_eq!(annotated(text, "fn three("), None);
    }
}
