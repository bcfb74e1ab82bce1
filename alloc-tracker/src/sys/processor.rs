//! On which processor a thread runs, and keeping off another thread's.

/// That of the calling thread, which is one of the program's. No system call, where the C library or the kernel's page of
/// functions knows it.
pub(crate) fn current_processor() -> Option<u32> {
    // SAFETY: no preconditions.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// Keeps the thread that has it off one processor. Also for threads that the C library does not know.
pub(crate) struct Avoidance {
    avoided: Option<u32>,
    /// Where the thread may run otherwise, and where it was last told to.
    allowed: Processors,
    told: Processors,
}

impl Avoidance {
    pub(crate) const fn new() -> Avoidance {
        Avoidance { avoided: None, allowed: Processors::NONE, told: Processors::NONE }
    }

    /// From now on the calling thread does not run on this processor, if it may run on another one; on all that it may for `None`.
    ///
    /// PERF: no system call, as long as it is the same one.
    pub(crate) fn avoid(&mut self, processor: Option<u32>) {
        if processor == self.avoided {
            return;
        }
        self.avoided = processor;
        let Some(now) = Processors::of_this_thread() else { return };
        if now != self.told {
            // Nobody but us has told it anything yet, or somebody has.
            self.allowed = now;
        }
        let less = processor.map_or(self.allowed, |number| self.allowed.without(number));
        let told = if less == Processors::NONE { self.allowed } else { less };
        if told != now && told.apply() {
            self.told = told;
        }
    }
}

/// A set of processors, as the kernel has it: a bit for each.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Processors([usize; WORDS]);

/// For 8192 processors, the most that Linux is built for.
const WORDS: usize = 8192 / usize::BITS as usize;

impl Processors {
    const NONE: Processors = Processors([0; WORDS]);

    fn of_this_thread() -> Option<Processors> {
        let mut set = Processors::NONE;
        let len = size_of_val(&set.0);
        // SAFETY: the buffer is as long as it says.
        let read = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, len, set.0.as_mut_ptr()) };
        (read > 0).then_some(set)
    }

    /// From now on the calling thread runs on these.
    fn apply(&self) -> bool {
        // SAFETY: the buffer is as long as it says.
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&self.0), self.0.as_ptr()) == 0 }
    }

    fn without(mut self, number: u32) -> Processors {
        let (word, bit) = (number / usize::BITS, number % usize::BITS);
        if let Some(word) = self.0.get_mut(word as usize) {
            *word &= !(1 << bit);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, which may run where this one may.
    fn in_a_thread(check: fn(Processors)) {
        let check = move || check(Processors::of_this_thread().unwrap());
        std::thread::spawn(check).join().unwrap();
    }

    fn now() -> Vec<usize> {
        Processors::of_this_thread().unwrap().0.to_vec()
    }

    #[test]
    fn a_processor_is_avoided_if_there_is_another_one() {
        in_a_thread(|all| {
            let mut avoidance = Avoidance::new();
            let here = current_processor().unwrap();
            let others = all.without(here);
            let expected = if others == Processors::NONE { all } else { others };
            for _ in 0..2 {
                avoidance.avoid(Some(here));
                assert_eq!(now(), expected.0);
                assert!(others == Processors::NONE || current_processor() != Some(here));
                avoidance.avoid(Some(u32::MAX));
                assert_eq!(now(), all.0, "there is no such processor");
                avoidance.avoid(None);
                assert_eq!(now(), all.0);
            }
        });
    }

    #[test]
    fn where_somebody_else_lets_it_run_it_goes_on_to_run() {
        in_a_thread(|all| {
            let mut avoidance = Avoidance::new();
            let here = current_processor().unwrap();
            avoidance.avoid(Some(here));
            // Only here, all of a sudden.
            let mut only = Processors::NONE;
            only.0[here as usize / 64] = 1 << (here % 64);
            assert!(only.apply());
            avoidance.avoid(None);
            assert_eq!(now(), only.0);
            avoidance.avoid(Some(here));
            assert_eq!(now(), only.0, "there is no other one");
            assert!(all.apply());
            avoidance.avoid(None);
            assert_eq!(now(), all.0);
        });
    }

    #[test]
    fn one_processor_less() {
        let all = Processors([usize::MAX; WORDS]);
        let ones = |set: Processors| set.0.iter().map(|word| word.count_ones()).sum::<u32>();
        assert_eq!(ones(all), 8192);
        for number in [0, 63, 64, 8191] {
            let less = all.without(number);
            assert_eq!((ones(less), ones(less.without(number))), (8191, 8191), "{number}");
        }
        assert_eq!(ones(all.without(8192)), 8192);
    }
}
