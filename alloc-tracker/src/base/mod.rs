//! The room that every other room imports: single words that all threads share, the clock, the
//! settings, the operating system. Nothing in here starts a recording, and nothing in here names
//! another room.

pub(crate) mod clock;
pub(crate) mod epoch;
pub(crate) mod limits;
pub(crate) mod loader;
pub(crate) mod mode;
pub(crate) mod primitive;
pub(crate) mod settings;
pub(crate) mod sys;

/// Held by every test that changes state which all threads share: the clock, the epoch, the
/// sidecar.
#[cfg(test)]
pub(crate) static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
