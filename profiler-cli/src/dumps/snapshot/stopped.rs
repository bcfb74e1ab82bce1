//! The registers of a process's threads. In: a process id. Out: the threads, stopped, until they
//! are let go on.
//!
//! The kernel tells the registers of a stopped thread only, and only to a process that may trace it
//! (ptrace). A system call in which a thread sleeps may return early with `EINTR` when the thread
//! goes on. Most programs never see that, so threads are stopped only where the program ends
//! anyway.
//!
//! A thread of this process does all of it: when it ends, for whatever reason, the kernel lets the
//! stopped threads go on.

use std::fs;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// The registers of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ThreadRegisters {
    /// The system's id of the thread.
    pub(super) tid: u32,
    pub(super) stack_pointer: u64,
    /// 0 if it is not known.
    pub(super) thread_pointer: u64,
    /// The general registers.
    pub(super) general: Vec<u64>,
}

/// Threads that stand still until this value is dropped, but not for longer than [`LONGEST_STOP`].
#[derive(Debug)]
pub(super) struct StoppedThreads {
    registers: Vec<ThreadRegisters>,
    /// Dropped to let the threads go on.
    release: Option<Sender<()>>,
    /// Returns whether the threads stood still until they were released.
    holder: Option<JoinHandle<bool>>,
}

impl StoppedThreads {
    /// Stops all threads of a process. `None` if the kernel refuses, or if a thread cannot be
    /// stopped soon.
    pub(super) fn stop(pid: u32) -> Option<StoppedThreads> {
        let ((release, released), (tell, told)) = (channel(), channel());
        let holder = std::thread::Builder::new().name("registers".to_owned());
        let holder = holder.spawn(move || hold(pid, &tell, &released)).ok()?;
        let registers = told.recv().ok()?;
        Some(StoppedThreads { registers, release: Some(release), holder: Some(holder) })
    }

    /// Lets the threads go on. Returns their registers, if they stood still until now.
    pub(super) fn release(mut self) -> Option<Vec<ThreadRegisters>> {
        drop(self.release.take());
        let stood_still = self.holder.take().and_then(|holder| holder.join().ok())?;
        stood_still.then(|| std::mem::take(&mut self.registers))
    }
}

/// Stops the threads, tells their registers and waits. Returns whether it was told to let them go.
fn hold(pid: u32, tell: &Sender<Vec<ThreadRegisters>>, released: &Receiver<()>) -> bool {
    let begun = Instant::now();
    let mut stopped: Vec<StoppedThread> = Vec::new();
    // A thread that was not stopped yet may have started another one.
    let mut are_all = false;
    while !are_all {
        let Some(tids) = threads_of(pid) else { break };
        let new: Vec<Pid> =
            tids.into_iter().filter(|tid| stopped.iter().all(|thread| thread.tid != *tid)).collect();
        are_all = new.is_empty();
        for tid in new {
            match StoppedThread::stop(tid, begun + LONGEST_STOPPING) {
                Stop::Stopped(thread) => stopped.push(thread),
                Stop::Ended => {}
                Stop::Refused => {
                    stopped.iter().for_each(StoppedThread::let_go);
                    return false;
                }
            }
        }
    }
    let registers = stopped.iter().map(StoppedThread::registers).collect::<Option<Vec<_>>>();
    let stood_still = are_all
        && registers.is_some_and(|registers| tell.send(registers).is_ok())
        && released.recv_timeout(LONGEST_STOP) == Err(RecvTimeoutError::Disconnected);
    stopped.iter().for_each(StoppedThread::let_go);
    stood_still
}

/// A thread that this thread has stopped.
struct StoppedThread {
    tid: Pid,
    /// A signal that the thread was about to receive.
    signal: Option<Signal>,
}

/// What came of stopping a thread.
enum Stop {
    Stopped(StoppedThread),
    Ended,
    Refused,
}

impl StoppedThread {
    fn stop(tid: Pid, until: Instant) -> Stop {
        if ptrace::seize(tid, ptrace::Options::empty()).is_err() {
            return if has_ended(tid) { Stop::Ended } else { Stop::Refused };
        }
        StoppedThread::interrupt(tid, until)
    }

    /// Stops a thread that this one traces.
    ///
    /// If a signal is on its way, the thread stops for that instead. The signal is the tracer's
    /// then, and must be handed on. What is waited for stays noted in the kernel (`WNOWAIT`): if
    /// the signal has no name here, as real-time signals have none, the thread receives it all the
    /// same when the tracer ends.
    fn interrupt(tid: Pid, until: Instant) -> Stop {
        if ptrace::interrupt(tid).is_err() {
            return if has_ended(tid) { Stop::Ended } else { Stop::Refused };
        }
        // Only stops are asked for: the program's end belongs to whoever waits for the program.
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
        loop {
            match waitid(Id::Pid(tid), flags) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(WaitStatus::PtraceEvent(_, signal, NO_EVENT)) => {
                    return Stop::Stopped(StoppedThread { tid, signal: Some(signal) });
                }
                Ok(_) => return Stop::Stopped(StoppedThread { tid, signal: None }),
                Err(_) => return if has_ended(tid) { Stop::Ended } else { Stop::Refused },
            }
            if has_ended(tid) {
                return Stop::Ended;
            }
            if Instant::now() > until {
                return Stop::Refused;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn let_go(&self) {
        // Fails if the thread has been killed.
        let _ = ptrace::detach(self.tid, self.signal);
    }

    #[cfg(target_arch = "x86_64")]
    fn registers(&self) -> Option<ThreadRegisters> {
        let r = ptrace::getregs(self.tid).ok()?;
        Some(ThreadRegisters {
            tid: self.tid.as_raw().unsigned_abs(),
            stack_pointer: r.rsp,
            thread_pointer: r.fs_base,
            general: vec![
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
                r.r14, r.r15,
            ],
        })
    }

    #[cfg(target_arch = "aarch64")]
    fn registers(&self) -> Option<ThreadRegisters> {
        let r = ptrace::getregs(self.tid).ok()?;
        let tid = self.tid.as_raw().unsigned_abs();
        // The thread pointer is in another set of registers; the copy reports it.
        Some(ThreadRegisters { tid, stack_pointer: r.sp, thread_pointer: 0, general: r.regs.to_vec() })
    }
}

/// Returns the threads of a process, those that have ended left out. `None` if there is no such
/// process.
fn threads_of(pid: u32) -> Option<Vec<Pid>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let tids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Some(tids.map(Pid::from_raw).filter(|tid| !has_ended(*tid)).collect())
}

/// Whether a thread has ended, although its process may still have it in its list.
fn has_ended(tid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
    // The name in parentheses may have parentheses.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// How long the threads may stand still, at most.
const LONGEST_STOP: Duration = Duration::from_secs(2);
/// How long it may take until all of them stand still.
const LONGEST_STOPPING: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);
/// The event of a thread that stops because a signal is delivered.
const NO_EVENT: i32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    /// Starts a program, has a thread seize it, sends it a signal, and has the thread stop it and
    /// let it go.
    fn send_while_seized(signal: &str) -> Child {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let tracer = std::thread::spawn({
            let (signal, tid) = (signal.to_owned(), Pid::from_raw(pid as i32));
            move || {
                ptrace::seize(tid, ptrace::Options::empty()).unwrap();
                let kill = format!("kill -{signal} {pid}");
                assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
                if let Stop::Stopped(thread) =
                    StoppedThread::interrupt(tid, Instant::now() + LONGEST_STOPPING)
                {
                    assert!(thread.registers().is_some());
                    thread.let_go();
                }
            }
        });
        tracer.join().unwrap();
        child
    }

    /// Returns the signal that ends a program within ten seconds.
    fn ending_signal(mut child: Child) -> Option<i32> {
        for _ in 0..1000 {
            if let Some(status) = child.try_wait().unwrap() {
                return status.signal();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        None
    }

    #[test]
    fn a_thread_that_is_stopped_still_receives_the_signal_that_was_on_its_way() {
        assert_eq!(ending_signal(send_while_seized("TERM")), Some(Signal::SIGTERM as i32));
    }

    #[test]
    fn a_signal_without_a_name_is_received_too() {
        // The first real-time signals belong to the C library.
        assert_eq!(ending_signal(send_while_seized("40")), Some(40));
    }

    #[test]
    fn threads_go_on_when_they_are_released() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let stopped = StoppedThreads::stop(child.id()).unwrap();
        let registers = stopped.release().unwrap();
        assert_eq!(registers.iter().map(|thread| thread.tid).collect::<Vec<_>>(), [child.id()]);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }
}
