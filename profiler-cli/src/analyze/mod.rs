//! Analyses: pure functions. In: a loaded profile, its named stacks and source text. Out: the
//! values that a renderer shows. Nothing here opens a file or prints.

mod annotated;
pub mod canonical_name;
pub mod column;
pub mod filter;
pub mod flame;
mod flame_labels;
pub mod frame_table;
mod function_source;
pub mod gate;
pub mod group_names;
pub mod groups;
pub mod growth;
pub mod heap_groups;
pub mod held;
pub mod holders;
mod innermost;
pub mod interval;
pub mod leaks;
pub mod lines;
pub mod max_live;
mod other_code;
pub mod peaks;
pub mod retained;
pub mod retention_flame;
pub mod review;
pub mod shown;
pub mod site;
mod site_location;
pub mod slow;
mod source_paths;
pub mod summary;
pub mod suppressions;
pub mod timeline;
pub mod tree;
