//! The scripts of the GitHub action in an environment like that of a job: a repository with two
//! commits, the files of a step, and a server that answers as the API for comments does.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tests::{has_tool, program, workspace};

const MARKER: &str = "<!-- alloc-tracker -->";

/// What a script said, and its exit status.
struct Said {
    text: String,
    code: Option<i32>,
}

/// A job with a checked-out repository.
struct Job {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Job {
    /// Makes a repository whose head allocates 1,500 bytes where its base allocates 1,000.
    fn new() -> Job {
        let folder = tempfile::tempdir().unwrap();
        let job = Job { folder, variables: Vec::new() };
        fs::create_dir_all(job.path("repository")).unwrap();
        fs::create_dir(job.path("temporary")).unwrap();
        for file in ["output", "summary"] {
            fs::write(job.path(file), "").unwrap();
        }
        job.git(&["init", "--quiet"]);
        let noisy = program("noisy");
        for (size, subject) in [(1000, "base"), (1500, "head")] {
            fs::write(job.path("repository/heap.sh"), format!("exec '{}' {size}\n", noisy.display()))
                .unwrap();
            job.git(&["add", "."]);
            job.git(&["commit", "--quiet", "-m", subject]);
        }
        let base = job.git(&["rev-parse", "HEAD^"]);
        job.event(&json!({ "pull_request": { "number": 7, "base": { "sha": base.trim() } } }));
        job
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn event(&self, event: &Value) {
        fs::write(self.path("event.json"), event.to_string()).unwrap();
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(self.path("repository"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn with(mut self, name: &'static str, value: &str) -> Job {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn run(&self, script: &str) -> Said {
        let output = Command::new("bash")
            .arg(workspace().join("ci/github").join(script))
            .current_dir(self.path("repository"))
            .env("RUNNER_TEMP", self.path("temporary"))
            .env("GITHUB_OUTPUT", self.path("output"))
            .env("GITHUB_STEP_SUMMARY", self.path("summary"))
            .env("GITHUB_EVENT_PATH", self.path("event.json"))
            .env("GITHUB_REPOSITORY", "owner/name")
            .env("GITHUB_TOKEN", "secret")
            .env("HEAP_AUTHOR", "github-actions[bot]")
            .env("HEAP_CLI", program("profiler-cli"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        Said { text: String::from_utf8_lossy(&text).into_owned(), code: output.status.code() }
    }

    /// Returns the last value of an output of the job's steps.
    fn output(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path("output")).unwrap();
        let value = text.lines().rev().find_map(|line| line.strip_prefix(&format!("{name}=")));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }

    /// Records, and reports what was recorded.
    fn recorded(self) -> (Job, Said) {
        let said = self.run("record.sh");
        assert_eq!(said.code, Some(0), "{}", said.text);
        let folder = self.output("folder");
        let job = self.with("HEAP_FOLDER", &folder);
        let said = job.run("report.sh");
        (job, said)
    }

    /// Makes a job that has a comment to write.
    fn with_comment(text: &str) -> Job {
        let job = Job::new();
        let folder = job.path("heap");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("comment.md"), text).unwrap();
        let folder = folder.to_str().unwrap().to_owned();
        job.with("HEAP_FOLDER", &folder)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A request that the server got: its first line, and its body.
type Request = (String, Value);

/// Answers requests as `answer` says, and keeps them.
fn server(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length, mut is_allowed) = (String::new(), 0, false);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let header = line.trim().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                is_allowed |= header == "authorization: bearer secret";
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (status, answer) = if is_allowed { answer(&first) } else { (401, json!({})) };
            kept.lock().unwrap().push((
                first.trim().trim_end_matches(" HTTP/1.1").to_owned(),
                serde_json::from_slice(&body).unwrap_or(Value::Null),
            ));
            let answer = answer.to_string();
            write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            )
            .unwrap();
        }
    });
    (url, requests)
}

fn comment(id: u64, author: &str, body: &str) -> Value {
    json!({ "id": id, "user": { "login": author }, "body": body })
}

/// Whether the programs that runners have are here.
fn has_tools() -> bool {
    ["bash", "git", "jq", "curl"].into_iter().all(has_tool)
}

#[test]
fn head_and_base_are_recorded_compared_and_checked() {
    if !has_tools() {
        return;
    }
    let (job, said) = Job::new().with("HEAP_RUN", "bash heap.sh").recorded();
    assert_eq!((said.code, &*job.output("passed")), (Some(0), "true"), "{}", said.text);
    assert!(said.text.contains("::warning file=tests/src/bin/noisy.rs,line="), "{}", said.text);
    let folder = PathBuf::from(job.output("folder"));
    let text = fs::read_to_string(folder.join("comment.md")).unwrap();
    assert!(text.starts_with(MARKER) && text.contains("noisy::planted::{closure}"), "{text}");
    assert!(fs::read_to_string(job.path("summary")).unwrap().contains("noisy::planted::{closure}"));
    assert!(folder.join("growth.svg").exists() && folder.join("growth.base.svg").exists());
    assert_eq!(job.git(&["worktree", "list"]).lines().count(), 1, "the tree of the base is removed");

    // A bound that is broken: the verdict is an output, and the comment has both pages.
    let budgets = job.path("heap.toml");
    fs::write(&budgets, "[total]\npeak = 1\n").unwrap();
    let job = job.with("HEAP_BUDGETS", budgets.to_str().unwrap());
    let said = job.run("report.sh");
    assert_eq!((said.code, &*job.output("passed")), (Some(0), "false"), "{}", said.text);
    let text = fs::read_to_string(folder.join("comment.md")).unwrap();
    assert_eq!(text.matches(MARKER).count(), 2, "{text}");
    // A mistake in the budgets is no verdict.
    fs::write(&budgets, "[total]\npaek = 1\n").unwrap();
    assert_eq!(job.run("report.sh").code, Some(2));
}

#[test]
fn a_base_that_fails_is_a_notice_and_a_head_that_fails_is_an_error() {
    if !has_tools() {
        return;
    }
    let of_head = "test \"$(git log -1 --format=%s)\" = head";
    let (job, said) = Job::new().with("HEAP_RUN", "bash heap.sh").with("HEAP_SETUP", of_head).recorded();
    assert_eq!(said.code, Some(0), "{}", said.text);
    let folder = PathBuf::from(job.output("folder"));
    assert_eq!((names(&folder.join("head")).len(), names(&folder.join("base")).len()), (1, 0));
    assert!(fs::read_to_string(job.path("summary")).unwrap().contains("peak"), "the summary of the head");

    let failing = Job::new().with("HEAP_RUN", "bash heap.sh").with("HEAP_SETUP", "exit 3").run("record.sh");
    assert_eq!(failing.code, Some(1), "{}", failing.text);
    assert!(failing.text.contains("::error title=Heap::the program of this commit"), "{}", failing.text);
    for (name, value) in [("HEAP_RUN", ""), ("HEAP_RUNS", "2; touch pwned"), ("HEAP_RUNS", "0")] {
        let said = Job::new().with("HEAP_RUN", "bash heap.sh").with(name, value).run("record.sh");
        assert_eq!((said.code, said.text.lines().count()), (Some(1), 1), "{name}: {}", said.text);
    }
    // A name that is no commit is not taken for an option or for a command.
    for base in ["$(touch pwned)", "--upload-pack=touch pwned", "gone"] {
        let job = Job::new().with("HEAP_RUN", "bash heap.sh").with("HEAP_BASE", base);
        let said = job.run("record.sh");
        assert_eq!(said.code, Some(0), "{}", said.text);
        assert!(said.text.contains("::notice title=Heap::"), "{base}: {}", said.text);
        assert!(!job.path("repository/pwned").exists());
    }
}

#[test]
fn the_comment_of_an_earlier_run_is_replaced_and_nobody_elses() {
    if !has_tools() {
        return;
    }
    let body = format!("{MARKER}\nNew figures: $(touch pwned) \"quoted\"\n");
    // The first page is full, so the second is asked for.
    let bot = "github-actions[bot]";
    let others: Vec<Value> = (0..98)
        .map(|id| comment(id, "ada", "text"))
        .chain([
            comment(98, "ada", &format!("{MARKER}\nby another")),
            comment(99, bot, &format!("> {MARKER}")),
        ])
        .collect();
    let second = vec![comment(500, bot, &format!("{MARKER}\nOld figures"))];
    let pages = (json!(others), json!(second));
    let (url, requests) = server(move |first| match first {
        _ if first.contains("&page=1 ") => (200, pages.0.clone()),
        _ if first.contains("&page=2 ") => (200, pages.1.clone()),
        _ => (200, json!({})),
    });
    let said = Job::with_comment(&body).with("GITHUB_API_URL", &url).run("comment.sh");
    assert_eq!(said.code, Some(0), "{}", said.text);
    let requests = requests.lock().unwrap();
    let (first, sent) = requests.last().unwrap();
    assert_eq!(first, "PATCH /repos/owner/name/issues/comments/500", "{}", said.text);
    assert_eq!((requests.len(), sent), (3, &json!({ "body": body })));
}

#[test]
fn a_first_comment_is_added_and_a_refused_one_is_a_notice() {
    if !has_tools() {
        return;
    }
    for (status, notices) in [(201, 0), (403, 1)] {
        let (url, requests) =
            server(
                move |first| if first.starts_with("GET") { (200, json!([])) } else { (status, json!({})) },
            );
        let said =
            Job::with_comment("<!-- alloc-tracker -->\nx\n").with("GITHUB_API_URL", &url).run("comment.sh");
        assert_eq!(said.code, Some(0), "{}", said.text);
        assert_eq!(said.text.matches("::notice title=Heap::").count(), notices, "{}", said.text);
        assert!(!said.text.contains("secret"), "{}", said.text);
        assert_eq!(requests.lock().unwrap().last().unwrap().0, "POST /repos/owner/name/issues/7/comments");
    }
}

#[test]
fn the_pull_request_of_a_fork_is_found_by_its_commit_and_a_push_has_none() {
    if !has_tools() {
        return;
    }
    let (url, requests) = server(|first| match first {
        _ if first.contains("/pulls?") => (
            200,
            json!([{ "number": 3, "head": { "sha": "other" } }, { "number": 9, "head": { "sha": "abc" } }]),
        ),
        _ if first.starts_with("GET") => (200, json!([])),
        _ => (201, json!({})),
    });
    let job = Job::with_comment("<!-- alloc-tracker -->\nx\n").with("GITHUB_API_URL", &url);
    job.event(&json!({ "workflow_run": {
        "head_sha": "abc", "head_branch": "a&state=all", "head_repository": { "owner": { "login": "eve" } }
    } }));
    assert_eq!(job.run("comment.sh").code, Some(0));
    {
        let mut requests = requests.lock().unwrap();
        assert!(
            requests[0].0.contains("head=eve%3aa%26state%3dall")
                || requests[0].0.contains("head=eve%3Aa%26state%3Dall")
        );
        assert_eq!(requests.last().unwrap().0, "POST /repos/owner/name/issues/9/comments");
        requests.clear();
    }
    job.event(&json!({ "before": "0".repeat(40) }));
    assert_eq!(job.run("comment.sh").code, Some(0));
    assert!(requests.lock().unwrap().is_empty(), "a push has no comment");
}

#[test]
fn scripts_and_files_are_what_checkers_accept() {
    if has_tool("shellcheck") {
        for script in names(&workspace().join("ci/github")) {
            let output =
                Command::new("shellcheck").arg(workspace().join("ci/github").join(&script)).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    if has_tool("check-jsonschema") {
        for (schema, file) in [("github-actions", "action.yml"), ("gitlab-ci", "ci/gitlab.yml")] {
            let output = Command::new("check-jsonschema")
                .arg(format!("--builtin-schema=vendor.{schema}"))
                .arg(workspace().join(file))
                .output()
                .unwrap();
            assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
