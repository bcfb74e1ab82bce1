//! The thread-specific key by which the C library reports the end of a thread. In: a value of the
//! thread, and a destructor. Out: calls of the destructor. Never locks; the C library may allocate
//! for the value of a thread with very many keys.

use std::sync::atomic::{AtomicU64, Ordering};

/// A function that the C library calls when a thread ends, with the thread's value.
pub(super) type Destructor = unsafe extern "C" fn(*mut libc::c_void);

/// The thread-specific key whose destructor runs when a thread ends.
pub(super) struct EndKey(AtomicU64);

/// The meaning of the word of an [`EndKey`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyState {
    /// There is no key yet.
    None,
    /// The key exists.
    Created(libc::pthread_key_t),
    /// The key was deleted, and there will be no other.
    Deleted,
}

impl KeyState {
    /// Returns 0 for no key yet, all ones for a deleted key, else the key + 1.
    fn encode(self) -> u64 {
        match self {
            KeyState::None => 0,
            KeyState::Created(key) => u64::from(key) + 1,
            KeyState::Deleted => u64::MAX,
        }
    }

    fn decode(word: u64) -> KeyState {
        match word {
            0 => KeyState::None,
            u64::MAX => KeyState::Deleted,
            word => KeyState::Created((word - 1) as libc::pthread_key_t),
        }
    }
}

impl EndKey {
    pub(super) const fn new() -> EndKey {
        EndKey(AtomicU64::new(0))
    }

    /// Asks the C library to call `destructor` with this value when the calling thread ends. The
    /// first call fixes the destructor for all threads.
    pub(super) fn watch(&self, value: *const libc::c_void, destructor: Destructor) {
        let mut state = KeyState::decode(self.0.load(Ordering::Acquire));
        if state == KeyState::None {
            state = self.create(destructor);
        }
        if let KeyState::Created(key) = state {
            // SAFETY: the key exists. If there is no memory for the value the destructor is not
            // called: the thread's state is not handed on, which is a leak and not a fault.
            unsafe { libc::pthread_setspecific(key, value) };
        }
    }

    fn create(&self, destructor: Destructor) -> KeyState {
        let mut created: libc::pthread_key_t = 0;
        // SAFETY: `created` is valid for the result, and the destructor has the right type.
        if unsafe { libc::pthread_key_create(&raw mut created, Some(destructor)) } != 0 {
            return KeyState::None;
        }
        let (none, ours) = (KeyState::None.encode(), KeyState::Created(created));
        match self.0.compare_exchange(none, ours.encode(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => ours,
            Err(theirs) => {
                // SAFETY: created above and never used.
                unsafe { libc::pthread_key_delete(created) };
                KeyState::decode(theirs)
            }
        }
    }

    /// Deletes the key. No destructor is called any more, and there will be no other key.
    pub(super) fn delete(&self) {
        let state = self.0.swap(KeyState::Deleted.encode(), Ordering::AcqRel);
        if let KeyState::Created(key) = KeyState::decode(state) {
            // SAFETY: the key was created by `create` and is deleted once.
            unsafe { libc::pthread_key_delete(key) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_key_says_what_was_put_into_it() {
        for state in [KeyState::None, KeyState::Created(0), KeyState::Created(1023), KeyState::Deleted] {
            assert!(KeyState::decode(state.encode()) == state);
        }
        assert!(KeyState::decode(EndKey::new().0.into_inner()) == KeyState::None);
    }
}
