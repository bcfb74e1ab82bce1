//! Where a command runs: in which repository, and in which job of GitHub or GitLab. In: the working
//! folder and variables of the environment. Out: the [`RepositoryPlace`], and the job summary.
//!
//! NOTE: git is not asked. It may be missing, and it refuses folders that belong to another user.

use std::path::{Path, PathBuf};

use crate::render::review::place::RepositoryPlace;

/// The working folder and the variables of a CI job, as far as they matter here. A variable that is
/// empty counts as missing.
#[derive(Clone, Debug, Default)]
pub(super) struct JobVariables {
    pub(super) folder: Option<PathBuf>,
    /// The file of the job summary of this step on GitHub.
    pub(super) summary: Option<PathBuf>,
    /// The URL of the sources of the commit.
    pub(super) link_base: Option<String>,
}

impl JobVariables {
    /// Reads the environment of this process.
    pub(super) fn of_this_process() -> JobVariables {
        JobVariables::from(std::env::current_dir().ok(), &|name| std::env::var(name).ok())
    }

    pub(super) fn from(folder: Option<PathBuf>, variable: &dyn Fn(&str) -> Option<String>) -> JobVariables {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let github = || {
            let (server, repository) = (set("GITHUB_SERVER_URL")?, set("GITHUB_REPOSITORY")?);
            Some(format!("{server}/{repository}/blob/{}", set("GITHUB_SHA")?))
        };
        let gitlab = || Some(format!("{}/-/blob/{}", set("CI_PROJECT_URL")?, set("CI_COMMIT_SHA")?));
        JobVariables {
            folder,
            summary: set("GITHUB_STEP_SUMMARY").map(PathBuf::from),
            link_base: github().or_else(gitlab),
        }
    }
}

/// Returns the repository of the working folder. The link base of an option counts more than that
/// of the job.
pub(super) fn repository_place(job: &JobVariables, link_base: Option<&str>) -> RepositoryPlace {
    let root = job.folder.as_deref().and_then(repository_root);
    let link_base = link_base.or(job.link_base.as_deref());
    RepositoryPlace::new(root.map(Path::to_owned), link_base.map(str::to_owned))
}

/// Returns the nearest folder with `.git`, which is a file in a worktree or a submodule.
fn repository_root(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.join(".git").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_base(variables: &[(&str, &str)]) -> Option<String> {
        let value =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        JobVariables::from(None, &value).link_base
    }

    #[test]
    fn the_link_base_is_that_of_the_job() {
        let github = [
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REPOSITORY", "o/r"),
            ("GITHUB_SHA", "c0ffee"),
        ];
        assert_eq!(link_base(&github).as_deref(), Some("https://github.com/o/r/blob/c0ffee"));
        assert_eq!(link_base(&github[..2]), None);
        let gitlab =
            [("CI_PROJECT_URL", "https://gitlab.com/g/p"), ("CI_COMMIT_SHA", "beef"), ("GITHUB_SHA", "")];
        assert_eq!(link_base(&gitlab).as_deref(), Some("https://gitlab.com/g/p/-/blob/beef"));
        assert_eq!(link_base(&[]), None);
    }

    #[test]
    fn the_root_is_the_nearest_folder_with_git_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("vendored/src");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::create_dir(folder.path().join(".git")).unwrap();
        assert_eq!(repository_root(&inner), Some(folder.path()));
        // A submodule.
        std::fs::write(folder.path().join("vendored/.git"), "gitdir: ../.git/modules/vendored").unwrap();
        assert_eq!(repository_root(&inner), Some(folder.path().join("vendored").as_path()));
    }
}
