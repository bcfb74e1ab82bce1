//! Outputs for reviewers of a change. In: a [`Review`](crate::analyze::review::Review), and where
//! its sources are in their repository. Out: bytes, one file for each format.
//!
//! Each format has a function `write`. Names come from dumps and binaries, so none may become
//! markup, a command or a path outside of the repository.

pub mod annotations;
pub mod bencher;
mod change;
mod fingerprint;
pub mod github_action_benchmark;
pub mod gitlab;
pub mod junit;
#[cfg(test)]
mod made;
pub mod markdown;
pub mod place;
pub mod sarif;
mod url;
