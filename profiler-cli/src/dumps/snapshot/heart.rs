//! Signs of life. In: a sidecar. Out: a word in it that changes about every second, so that a copy
//! and a program that wait for this process know that it still works for them.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use alloc_dump::exchange::HEARTBEAT_OFFSET;

use super::exchange::{read_word, write_word};

/// Gives signs of life until it is dropped. A sidecar may have several of them.
#[derive(Debug)]
pub(super) struct Heart {
    is_over: Arc<AtomicBool>,
    /// If there is no thread, the others wait for as long as they do without a sign of life.
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    pub(super) fn start(sidecar: &Arc<File>) -> Heart {
        let is_over = Arc::new(AtomicBool::new(false));
        let (sidecar, over) = (Arc::clone(sidecar), Arc::clone(&is_over));
        let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let beat = read_word(&sidecar, HEARTBEAT_OFFSET).wrapping_add(1);
                write_word(&sidecar, HEARTBEAT_OFFSET, beat);
                std::thread::park_timeout(INTERVAL);
            }
        });
        Heart { is_over, thread: thread.ok() }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
