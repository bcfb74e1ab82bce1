//! Loads a dump that is still being written. In: a path. Out: at any moment, a [`Profile`] of
//! everything that was recorded so far. Each call reads only the frames that were appended since
//! the last call.

use std::path::Path;

use super::options::KeepBlocks;
use super::replay::{Replay, ReplayScope};
use crate::dumps::follow::{DumpFollower, FollowError};
use crate::dumps::writing::wait_while_closing;
use crate::profile::Profile;

/// A dump that is being followed. Keeps the replay of the frames that were read, so its memory
/// grows with the number of live blocks and of distinct stacks. The events of all threads count: a
/// thread may get its name only after its events, which is too late to select them.
#[derive(Debug)]
pub struct FollowedDump {
    follower: DumpFollower,
    replay: Replay,
}

impl FollowedDump {
    /// Opens the dump at `path`. Reads its header only.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn open(path: &Path, keep: KeepBlocks) -> Result<FollowedDump, FollowError> {
        let follower = DumpFollower::open(path)?;
        let replay = Replay::new(follower.reader().header(), ReplayScope { keep, ..ReplayScope::default() });
        Ok(FollowedDump { follower, replay })
    }

    /// Reads the whole frames that were appended since the last call, and returns how many there
    /// were. A frame that is cut short at the end is left for the next call.
    ///
    /// # Errors
    /// See [`FollowError`]. After an error the dump cannot be followed any longer.
    pub fn read_on(&mut self) -> Result<u64, FollowError> {
        self.follower.look_for_more()?;
        self.replay_frames()
    }

    /// Whether the recording is over and the dump has been read to its trailer.
    pub fn is_ended(&self) -> bool {
        self.follower.reader().trailer().is_some()
    }

    /// Returns the profile of the frames that were read so far.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn profile_of_frames(&self) -> Result<Profile, FollowError> {
        let reader = self.follower.reader();
        let size = reader.end_of_whole_frames();
        Ok(super::finish(self.follower.path(), size, reader, self.replay.clone(), Ok(None))?)
    }

    /// Reads on, and returns the profile of everything that was recorded so far: the frames of the
    /// dump, then what the sidecar holds beyond them. Copies the whole replay for this, the live
    /// set included.
    ///
    /// The sidecar stays as it is. The events in it are replayed again when they have become
    /// frames.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn profile_now(&mut self) -> Result<Profile, FollowError> {
        let mut rest = Ok(None);
        // The process may append a frame after the dump was read and before the sidecar is. The two
        // fit together if the sidecar's frame is the next frame of the dump.
        for _ in 0..MAX_ATTEMPTS {
            self.read_on()?;
            if self.is_ended() {
                rest = Ok(None);
                break;
            }
            rest = self.follower.sidecar_rest();
            let next_seq = self.follower.reader().next_seq();
            match &rest {
                Ok(Some(rest)) if rest.frame_seq == next_seq => break,
                Err(_) => break,
                Ok(Some(_)) => {}
                // Either there never was a sidecar, or the recording has ended since the dump was
                // read.
                Ok(None) if self.read_on()? == 0 => break,
                Ok(None) => {}
            }
        }
        let reader = self.follower.reader();
        let size = reader.end_of_whole_frames();
        Ok(super::finish(self.follower.path(), size, reader, self.replay.clone(), rest)?)
    }

    /// Reads the rest of the dump, as if the process had ended, and returns the same profile as
    /// [`load`](super::load). A frame that is cut short at the end counts as damage, unless the
    /// sidecar has the whole of it.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn finish(mut self) -> Result<Profile, FollowError> {
        wait_while_closing(self.follower.path());
        let size = self.follower.look_for_the_last_time()?;
        self.replay_frames()?;
        let rest = if self.is_ended() { Ok(None) } else { self.follower.sidecar_rest() };
        Ok(super::finish(self.follower.path(), size, self.follower.reader(), self.replay, rest)?)
    }

    fn replay_frames(&mut self) -> Result<u64, FollowError> {
        let mut frames = 0;
        while let Some(records) = self.follower.next_frame()? {
            self.replay.replay_frame(records.damage().dropped_bytes, records);
            frames += 1;
        }
        Ok(frames)
    }
}

/// Most attempts to read a dump and a sidecar that fit together. A process may append frames faster
/// than this machine reads. Then the profile lacks the frames between the dump and the sidecar, and
/// counts them as missing.
const MAX_ATTEMPTS: u32 = 10;

#[cfg(test)]
mod tests;
