//! The threads of a process. In: a process id. Out: where each thread was at one moment, and the
//! threads of a copy that was made between two moments.

use std::fs;

use alloc_dump::exchange::CopyReport;
use alloc_dump::snapshot::SnapshotThread;

use super::stopped::ThreadRegisters;

/// Where a thread was at one moment: its stack pointer and its program counter, and how often it
/// had been given a processor.
type ThreadPosition = Option<(u64, u64, u64)>;

/// The threads of a process at one moment.
#[derive(Default)]
pub(super) struct ThreadPositions {
    /// Kernel id, name, and position, if the thread was in a system call.
    threads: Vec<(u32, Vec<u8>, ThreadPosition)>,
    /// The registers of all threads, if they stood still from this moment until the copy was made.
    registers: Option<Vec<ThreadRegisters>>,
}

impl ThreadPositions {
    /// Looks where the threads of a process are.
    pub(super) fn look(pid: u32) -> ThreadPositions {
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let name = fs::read(entry.path().join("comm")).unwrap_or_default().trim_ascii_end().to_vec();
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            // Before the position: if the thread runs in between, the next look has another number.
            let turns = turns(&read("schedstat"));
            let position = position(&read("syscall"));
            threads.push((tid, name, position.zip(turns).map(|((stack, code), turns)| (stack, code, turns))));
        }
        ThreadPositions { threads, registers: None }
    }

    /// Notes the registers of all threads.
    pub(super) fn set_registers(&mut self, registers: Option<Vec<ThreadRegisters>>) {
        self.registers = registers;
    }

    /// Whether the registers of all threads are known.
    pub(super) fn have_registers(&self) -> bool {
        self.registers.is_some()
    }

    /// Returns the threads of a copy that was made between this look and a `later` one.
    ///
    /// If a thread is in a system call at both looks and did not run in between, its stack pointer
    /// is that of the copy.
    pub(super) fn threads_between(
        &self,
        later: &ThreadPositions,
        report: &CopyReport,
    ) -> Vec<SnapshotThread> {
        if let Some(registers) = &self.registers {
            return registers.iter().map(|registers| self.stopped_thread(registers, report)).collect();
        }
        let mut threads = Vec::new();
        for (tid, name, after) in &later.threads {
            let before = self.threads.iter().find(|(id, ..)| id == tid).and_then(|(.., position)| *position);
            let is_same = before.is_some() && before == *after;
            threads.push(SnapshotThread {
                tid: *tid,
                name: name.clone(),
                stack_pointer: before.filter(|_| is_same).map(|(stack_pointer, ..)| stack_pointer),
                thread_pointer: reported_pointer(report, *tid).unwrap_or(0),
                registers: None,
            });
        }
        // Threads that have ended since the copy was made: their stacks are roots as a whole.
        for reported in &report.threads {
            if threads.iter().all(|thread| thread.tid != reported.tid) {
                threads.push(SnapshotThread {
                    tid: reported.tid,
                    thread_pointer: reported.thread_pointer,
                    ..SnapshotThread::default()
                });
            }
        }
        threads
    }

    fn stopped_thread(&self, registers: &ThreadRegisters, report: &CopyReport) -> SnapshotThread {
        let named = self.threads.iter().find(|(tid, ..)| *tid == registers.tid);
        SnapshotThread {
            tid: registers.tid,
            name: named.map(|(_, name, _)| name.clone()).unwrap_or_default(),
            stack_pointer: Some(registers.stack_pointer),
            // The kernel does not tell it on every processor; the thread itself does.
            thread_pointer: reported_pointer(report, registers.tid).unwrap_or(registers.thread_pointer),
            registers: Some(registers.general.clone()),
        }
    }
}

/// Returns the thread pointer that a copy reports for a thread, if it knows one.
fn reported_pointer(report: &CopyReport, tid: u32) -> Option<u64> {
    let reported = report.threads.iter().find(|thread| thread.tid == tid)?;
    Some(reported.thread_pointer).filter(|pointer| *pointer != 0)
}

/// Reads the stack pointer and the program counter in `/proc/PID/task/TID/syscall`. `None` if the
/// thread is running.
fn position(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_whitespace().rev();
    let mut hex = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    let (program_counter, stack_pointer) = (hex()?, hex()?);
    Some((stack_pointer, program_counter))
}

/// Reads in `/proc/PID/task/TID/schedstat` how often the thread was given a processor. `None` if
/// the kernel does not count that.
fn turns(text: &str) -> Option<u64> {
    text.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc_dump::exchange::CopiedThread;

    #[test]
    fn a_thread_in_a_system_call_has_a_stack_pointer() {
        assert_eq!(position("running\n"), None);
        let blocked = "230 0x1 0x0 0x7f 0x0 0x0 0x0 0x7ffc1000 0x7f2000\n";
        assert_eq!(position(blocked), Some((0x7ffc_1000, 0x7f_2000)));
        assert_eq!(position("-1 0x7ffc1000 0x7f2000"), Some((0x7ffc_1000, 0x7f_2000)));
    }

    #[test]
    fn a_thread_that_ran_between_two_looks_has_no_known_stack_pointer() {
        assert_eq!((turns("123 456 7\n"), turns("")), (Some(7), None));
        let at = |positions: [ThreadPosition; 3]| {
            let threads = positions.into_iter().zip(1..).map(|(position, tid)| (tid, Vec::new(), position));
            ThreadPositions { threads: threads.collect(), registers: None }
        };
        let before = at([Some((0x7000, 0x40, 3)), Some((0x7000, 0x40, 3)), None]);
        let after = at([Some((0x7000, 0x40, 3)), Some((0x7000, 0x40, 4)), Some((0x7000, 0x40, 3))]);
        let threads = before.threads_between(&after, &CopyReport::default());
        let pointers: Vec<_> = threads.iter().map(|thread| thread.stack_pointer).collect();
        assert_eq!(pointers, [Some(0x7000), None, None]);
    }

    #[test]
    fn a_thread_that_stood_still_has_the_thread_pointer_that_it_reports() {
        let registers = |tid: u32, thread_pointer: u64| ThreadRegisters {
            tid,
            stack_pointer: 0x7000 + u64::from(tid),
            thread_pointer,
            general: vec![1, 2],
        };
        let mut positions = ThreadPositions::default();
        // The kernel tells none of thread 1; thread 2 has reported none, thread 3 takes no part.
        positions.set_registers(Some(vec![registers(1, 0), registers(2, 0x22), registers(3, 0x33)]));
        let thread = |tid, thread_pointer| CopiedThread { tid, thread_pointer, ..CopiedThread::default() };
        let report = CopyReport { threads: vec![thread(1, 0x11), thread(2, 0)], ..CopyReport::default() };
        let threads = positions.threads_between(&ThreadPositions::default(), &report);
        let pointers: Vec<_> = threads.iter().map(|thread| (thread.tid, thread.thread_pointer)).collect();
        assert_eq!(pointers, [(1, 0x11), (2, 0x22), (3, 0x33)]);
        assert!(threads.iter().all(|thread| thread.registers == Some(vec![1, 2])));
    }
}
