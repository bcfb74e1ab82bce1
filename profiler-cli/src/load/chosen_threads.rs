//! The threads that `--thread` means. In: the option's value and all threads of a dump. Out: the
//! numbers of the threads that are meant, or an error that names similar ones.
//!
//! | value | threads |
//! | --- | --- |
//! | `tid:4711` | the thread with this id of the operating system |
//! | `unnamed:` | all threads without a name |
//! | anything else | the threads whose name matches the [`Pattern`] |

use std::path::Path;

use foldhash::HashSet;

use super::LoadError;
use crate::pattern::Pattern;
use crate::profile::RecordedThread;

/// Most threads that an error names.
const MOST_NAMED: usize = 20;

/// The bytes of a thread's name that the kernel keeps.
const LONGEST_THREAD_NAME: usize = 15;

/// Returns the numbers of the threads that the pattern means.
///
/// # Errors
/// If it means no thread.
pub(super) fn chosen_threads(
    path: &Path,
    threads: &[RecordedThread],
    pattern: &Pattern,
) -> Result<HashSet<u32>, LoadError> {
    let text = pattern.to_string();
    let choice = ThreadChoice::parse(&text);
    let is_chosen = |thread: &&RecordedThread| match choice {
        ThreadChoice::Tid(tid) => thread.os_tid != 0 && thread.os_tid == tid,
        ThreadChoice::Unnamed => thread.name.is_empty(),
        ThreadChoice::Name => pattern.matches(&thread.name),
    };
    let chosen: HashSet<u32> = threads.iter().filter(is_chosen).map(|thread| thread.id).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let names = match choice {
        ThreadChoice::Tid(_) => threads.iter().map(tid_and_name).take(MOST_NAMED).collect(),
        _ => nearest_names(threads, pattern),
    };
    let is_long = choice == ThreadChoice::Name && text.replace('*', "").len() > LONGEST_THREAD_NAME;
    let hint = if is_long { " (the kernel keeps the first 15 bytes of a thread's name)" } else { "" };
    Err(LoadError::NoThread { path: path.to_owned(), pattern: text, hint, names: names.join(", ") })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ThreadChoice {
    Tid(u32),
    Unnamed,
    Name,
}

impl ThreadChoice {
    fn parse(text: &str) -> ThreadChoice {
        match text.strip_prefix("tid:").map(str::parse) {
            Some(Ok(tid)) => ThreadChoice::Tid(tid),
            _ if text == "unnamed:" => ThreadChoice::Unnamed,
            _ => ThreadChoice::Name,
        }
    }
}

/// Returns the names that are most similar to the pattern, as a person would give them.
fn nearest_names(threads: &[RecordedThread], pattern: &Pattern) -> Vec<String> {
    let nearest = pattern.nearest(threads.iter().map(|thread| thread.name.as_str()), MOST_NAMED);
    let name = |name: &&str| if name.is_empty() { "unnamed:".to_owned() } else { format!("'{name}'") };
    nearest.iter().map(name).collect()
}

fn tid_and_name(thread: &RecordedThread) -> String {
    let name = if thread.name.is_empty() { "unnamed".to_owned() } else { format!("'{}'", thread.name) };
    format!("tid:{} ({name})", thread.os_tid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Vec<RecordedThread> {
        let thread = |id, os_tid, name: &str| RecordedThread {
            id,
            os_tid,
            name: name.to_owned(),
            ..RecordedThread::default()
        };
        vec![thread(1, 70, "main"), thread(2, 71, "worker"), thread(3, 72, ""), thread(4, 0, "")]
    }

    fn chosen(text: &str) -> Result<Vec<u32>, String> {
        let chosen = chosen_threads(Path::new("x.alloc"), &threads(), &Pattern::new(text));
        let sorted = |chosen: HashSet<u32>| {
            let mut ids: Vec<u32> = chosen.into_iter().collect();
            ids.sort_unstable();
            ids
        };
        chosen.map(sorted).map_err(|error| error.to_string())
    }

    #[test]
    fn threads_are_chosen_by_name_by_id_or_for_having_no_name() {
        assert_eq!(chosen("work"), Ok(vec![2]));
        assert_eq!(chosen("*"), Ok(vec![1, 2, 3, 4]));
        assert_eq!(chosen("tid:71"), Ok(vec![2]));
        assert_eq!(chosen("unnamed:"), Ok(vec![3, 4]));
    }

    #[test]
    fn an_error_names_what_there_is() {
        let error = chosen("tid:7").unwrap_err();
        assert!(error.contains("no thread matches 'tid:7'; there are: tid:70 ('main'), tid:71"), "{error}");
        assert!(error.contains("tid:72 (unnamed)") && !error.contains("15 bytes"), "{error}");
        assert!(chosen("tid:0").is_err(), "the dump does not have the id of this thread");
        let error = chosen("wroker").unwrap_err();
        assert!(error.contains("there are: 'worker'") && error.contains("unnamed:"), "{error}");
        assert!(chosen("a-worker-with-a-long-name").unwrap_err().contains("first 15 bytes"));
        assert!(chosen("tid:x").unwrap_err().contains("'worker'"), "that is a name");
    }
}
