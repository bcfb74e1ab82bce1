//! Names for the call tree of a profile.
//!
//! In: a profile and the files of its modules. Out: functions, files and lines for every node, and
//! which of them are the user's own code. Nothing that a file says is trusted: damage costs names,
//! and must never cause a panic.

mod build_file;
pub mod code_owner;
pub mod evidence;
pub mod function_name;
mod hints;
pub mod keep;
pub(crate) mod own_crates;
pub mod rust_path;
pub mod stacks;
pub mod symbolize;
pub mod variables;
