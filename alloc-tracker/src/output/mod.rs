//! Where records go: the dump file, and the sidecar that holds everything not yet in the dump.

pub(crate) mod dump_file;
pub(crate) mod sidecar;
