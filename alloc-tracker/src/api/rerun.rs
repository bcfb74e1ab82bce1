//! The command that runs one test again, recorded. In: what the macros know of the place of a
//! budget, and the thread. Out: a command line.

use std::fs;
use std::path::Path;

use super::harness;

/// Where a budget is, as the compiler and cargo say.
#[derive(Clone, Copy, Debug)]
pub struct BudgetPlace {
    /// The path of the function, with the crate. In a block: of a function inside of that function.
    pub function: &'static str,
    /// The file.
    pub file: &'static str,
    /// The line.
    pub line: u32,
    /// The package.
    pub package: Option<&'static str>,
    /// The folder of the package.
    pub folder: Option<&'static str>,
    /// The binary or the example, if the budget is in one.
    pub binary: Option<&'static str>,
    /// A folder that cargo has for integration tests and benchmarks only.
    pub test_folder: Option<&'static str>,
}

impl BudgetPlace {
    /// Returns the path of the function without the crate, as the test harness names a test.
    pub(super) fn path_in_crate(&self) -> &'static str {
        let path = self.function.split_once("::").map_or(self.function, |(_, path)| path);
        path.strip_suffix(HERE).map_or(path, |function| function.trim_end_matches("::{{closure}}"))
    }

    /// Whether the calling thread was started by the test harness for a test. PERF: the name of the
    /// thread tells, unless another function than the test has the budget.
    pub(super) fn is_test_of_this_thread(&self) -> bool {
        match std::thread::current().name() {
            None | Some("main") => false,
            Some(name) => name == self.path_in_crate() || harness::is_thread_of_test(),
        }
    }

    /// Returns the command that runs the test of this thread alone, and records it. The test
    /// harness names the thread after the test. On another thread, the function is taken for the
    /// test.
    pub(super) fn command(&self) -> String {
        let thread = std::thread::current();
        let name = thread.name().filter(|_| self.is_test_of_this_thread());
        let package = self.package.map(|name| format!(" --package {name}")).unwrap_or_default();
        let test = name.unwrap_or(self.path_in_crate());
        format!("profiler-cli cargo test{package}{} -- --exact {test}", self.target())
    }

    /// Returns the option of cargo that chooses the program with this test.
    fn target(&self) -> String {
        let name = self.function.split("::").next().unwrap_or_default();
        match (self.binary, self.test_folder) {
            (Some(binary), _) if is_example() => format!(" --example {binary}"),
            (Some(binary), _) => format!(" --bin {binary}"),
            (None, Some(_)) => match self.target_in("tests", name) {
                Some(test) => format!(" --test {test}"),
                None => match self.target_in("benches", name) {
                    Some(bench) => format!(" --bench {bench}"),
                    // Cargo takes patterns. A dash in a name is an underscore in the crate's.
                    None if name.contains('_') => format!(" --test '{}'", name.replace('_', "?")),
                    None => format!(" --test {name}"),
                },
            },
            (None, None) if self.package.is_some() => " --lib".to_owned(),
            (None, None) => String::new(),
        }
    }

    /// Returns the name of the target in a folder of the package whose crate has this name.
    fn target_in(&self, folder: &str, crate_name: &str) -> Option<String> {
        let entries = fs::read_dir(Path::new(self.folder?).join(folder)).ok()?;
        entries.flatten().find_map(|entry| {
            let path = entry.path();
            let is_target =
                path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
            let name = path.file_stem()?.to_str()?;
            (is_target && name.replace('-', "_") == crate_name).then(|| name.to_owned())
        })
    }
}

/// Whether the program is an example, by the folder that cargo puts it into.
fn is_example() -> bool {
    let folder =
        std::env::current_exe().ok().and_then(|program| Some(program.parent()?.file_name()?.to_owned()));
    folder.is_some_and(|name| name == "examples")
}

/// The function that the macro for blocks declares, to learn the path of the function around it.
const HERE: &str = "::budget_is_here";

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: BudgetPlace = BudgetPlace {
        function: "parser::words::tests::short",
        file: "src/words.rs",
        line: 7,
        package: Some("parser"),
        folder: None,
        binary: None,
        test_folder: None,
    };

    #[test]
    fn the_test_is_that_of_the_thread_or_of_the_function() {
        assert_eq!(PLACE.path_in_crate(), "words::tests::short");
        let block = BudgetPlace { function: "parser::words::check::{{closure}}::budget_is_here", ..PLACE };
        assert_eq!(block.path_in_crate(), "words::check");
        let command = "profiler-cli cargo test --package parser --lib -- --exact ";
        let own = "api::rerun::tests::the_test_is_that_of_the_thread_or_of_the_function";
        assert_eq!(block.command(), format!("{command}{own}"));
        let other = std::thread::Builder::new().name("worker".to_owned());
        let of_other = other.spawn(move || block.command()).unwrap().join().unwrap();
        assert_eq!(of_other, format!("{command}words::check"));
    }

    #[test]
    fn the_target_is_the_one_that_cargo_has_compiled() {
        assert_eq!(PLACE.target(), " --lib");
        assert_eq!(BudgetPlace { binary: Some("server"), ..PLACE }.target(), " --bin server");
        let test = BudgetPlace { test_folder: Some("/tmp"), function: "long_name::short", ..PLACE };
        assert_eq!(test.target(), " --test 'long?name'");
        let folder = std::env::temp_dir().join(format!("alloc-tracker-rerun-{}", std::process::id()));
        fs::create_dir_all(folder.join("tests")).unwrap();
        fs::write(folder.join("tests/long-name.rs"), "").unwrap();
        let path: &'static str = folder.to_str().unwrap().to_owned().leak();
        assert_eq!(BudgetPlace { folder: Some(path), ..test }.target(), " --test long-name");
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(BudgetPlace { package: None, ..PLACE }.target(), "");
    }
}
