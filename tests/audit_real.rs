//! The audit trail with real processes, disks and files: whoever is answered has a record.
//!
//! A child process is this program again, told by a variable what to be.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code, helpers included")]

mod support;

use std::{
    collections::HashSet,
    convert::Infallible,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    SecurityContext,
    audit::{AuditLayer, AuditSink, Fsync, JsonLines, WhenFull},
    guard::public,
    stack::Stack,
    testing::sample_record,
    tls::TlsLayer,
};
use support::{Probe, get};
use tower::{Layer, ServiceExt, service_fn};

const FILE: &str = "PORTCULLIS_TEST_AUDIT_FILE";
const REQUESTS: &str = "PORTCULLIS_TEST_AUDIT_REQUESTS";

/// Answers requests on several threads, and says of each, once it is answered, which it was: `answered ID` or `refused`.
#[test]
fn child() {
    let Some(file) = std::env::var_os(FILE) else { return };
    let requests: usize = std::env::var(REQUESTS).unwrap().parse().unwrap();
    let sink = JsonLines::builder().fsync(Fsync::Each).when_full(WhenFull::Refuse).open(file).unwrap();
    let sink = Arc::new(sink);
    let stack = Stack::builder().audit(AuditLayer::new(Arc::clone(&sink))).tls(TlsLayer::require()).fallback(public());
    let stack = stack.build().unwrap();
    let handler = service_fn(async |request: Request<()>| {
        let id = SecurityContext::of(request.extensions()).unwrap().request_id().to_string();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(id)))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let app = stack.layer(handler);
                tokio::spawn(async move {
                    for _ in 0..requests {
                        let response = app.clone().oneshot(get("/orders")).await.unwrap();
                        let status = response.status().as_u16();
                        let id = support::text(response).await;
                        let line = if status == 200 { format!("answered {id}\n") } else { "refused\n".to_owned() };
                        // One write: the pipe has it whole or not at all.
                        std::io::stderr().write_all(line.as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    drop(stack);
    eprintln!("lost {}", sink.lost());
}

fn start(command: &mut Command, file: &Path, requests: usize) -> Child {
    command.env(FILE, file).env(REQUESTS, requests.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn this_program() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]);
    command
}

/// The ids in the file. A line that is torn is no record.
fn recorded(file: &Path) -> HashSet<String> {
    let text = std::fs::read(file).unwrap_or_default();
    let id =
        |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).ok()?["request_id"].as_str().map(str::to_owned);
    text.split(|byte| *byte == b'\n').filter_map(id).collect()
}

/// What a child said: the ids that it answered, and how many it refused.
fn said(lines: impl Iterator<Item = String>) -> (Vec<String>, usize) {
    let (answered, rest): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("answered "));
    let ids = answered.iter().map(|line| line.trim_start_matches("answered ").to_owned()).collect();
    (ids, rest.iter().filter(|line| *line == "refused").count())
}

#[test]
fn whoever_is_answered_has_a_record_also_after_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let mut total = 0;
    for round in 0..12_usize {
        let mut child = start(&mut this_program(), &file, usize::MAX);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        // Somewhere in the middle, elsewhere each time.
        let mut seen: Vec<String> = lines.by_ref().take(20 + 37 * round).collect();
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        seen.extend(lines);
        let (answered, refused) = said(seen.into_iter());
        assert_eq!(refused, 0, "round {round}");
        let recorded = recorded(&file);
        let missing: Vec<_> = answered.iter().filter(|id| !recorded.contains(*id)).collect();
        assert!(missing.is_empty(), "round {round}: {} of {} have no record", missing.len(), answered.len());
        total += answered.len();
    }
    assert!(total > 1000, "{total} requests");
}

/// A write that fails although there seemed to be room: a limit on the size of files, which the room on the disk says nothing of.
#[test]
fn where_writing_fails_all_the_same_what_had_begun_is_answered_and_nothing_begins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let mut shell = Command::new("sh");
    // Blocks of 512 bytes; a write beyond is an error instead of a signal.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\""]);
    shell.arg(std::env::current_exe().unwrap()).args(["--exact", "child", "--nocapture"]);
    let child = start(&mut shell, &file, 200);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let (answered, refused) = said(text.lines().map(str::to_owned));
    let recorded = recorded(&file);
    let missing = answered.iter().filter(|id| !recorded.contains(*id)).count();
    assert!(missing <= 8, "{missing} of the eight that were under way");
    let lost = format!("lost {}", missing + refused);
    assert!(text.lines().any(|line| line == lost), "{lost}: all of them are counted");
    assert!(answered.len() > 50 && refused > 100, "{} answered, {refused} refused", answered.len());
    assert_eq!(answered.len() + refused, 1600);
}

/// A file system of one megabyte, full and empty again, and read-only.
#[test]
#[ignore = "needs root, to mount a small disk; tests/run starts it"]
fn a_small_disk_that_is_full_and_then_is_not() {
    struct Mounted(tempfile::TempDir);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path()).status();
        }
    }

    let disk = Mounted(tempfile::tempdir().unwrap());
    let mount = |options: &str| {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(disk.0.path()).status();
        assert!(status.expect("mount is there").success(), "needs root");
    };
    mount("size=1m");
    let file = disk.0.path().join("audit.jsonl");
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 700 << 10]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sink = JsonLines::builder().fsync(Fsync::Each).when_full(WhenFull::Refuse).open(&file).unwrap();
        let sink = Arc::new(sink);
        let audit = AuditLayer::new(Arc::clone(&sink)).without_events();
        let send = || async { audit.layer(Probe::default()).oneshot(get("/orders")).await.unwrap().status().as_u16() };
        let mut answered = 0;
        while send().await == 200 {
            answered += 1;
            assert!(answered < 10_000, "the disk is never full");
        }
        assert!(answered > 10, "{answered}");
        assert_eq!(recorded(&file).len(), answered);
        std::fs::remove_file(&filler).unwrap();
        let mut refused = 1;
        while send().await != 200 {
            refused += 1;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            assert!(refused < 1000, "it never recovers");
        }
        sink.flush().await.unwrap();
        assert_eq!(recorded(&file).len(), answered + 1);
        let text = std::fs::read_to_string(&file).unwrap();
        let gaps: u64 = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["lost"].as_u64())
            .sum();
        assert_eq!((gaps, sink.lost()), (refused, refused), "the gap is told");
    });
    drop(runtime);
    let read_only = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).status().unwrap();
    assert!(read_only.success());
    let error = JsonLines::open(&file).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn an_unwritable_target_is_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    for path in
        ["/proc/portcullis/audit.jsonl".into(), directory.path().to_owned(), directory.path().join("no/audit.jsonl")]
    {
        let error = JsonLines::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    assert!(JsonLines::builder().rotate_at_size(0).open(directory.path().join("a")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_away_or_removed_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (path, aside) = (directory.path().join("audit.jsonl"), directory.path().join("aside"));
    let sink = Arc::new(JsonLines::open(&path).unwrap());
    let audit = AuditLayer::new(Arc::clone(&sink)).without_events();
    let send = async |count: usize| {
        for _ in 0..count {
            audit.layer(Probe::default()).oneshot(get("/orders")).await.unwrap();
        }
        sink.flush().await.unwrap();
    };
    send(2).await;
    std::fs::rename(&path, &aside).unwrap();
    send(3).await;
    std::fs::remove_file(&path).unwrap();
    send(4).await;
    assert_eq!((recorded(&aside).len(), recorded(&path).len(), sink.lost()), (2, 4, 0));
}

/// What goes into a file without a name is gone with the process, and must not count as stored.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_folder_is_removed_nothing_counts_as_stored_until_it_is_back() {
    for (name, when_full) in [("counts", WhenFull::Discard), ("refuses", WhenFull::Refuse)] {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("logs");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("audit.jsonl");
        let sink = JsonLines::builder().fsync(Fsync::Each).when_full(when_full).open(&path).unwrap();
        let sink = Arc::new(sink);
        let audit = AuditLayer::new(Arc::clone(&sink)).without_events();
        let send = async || audit.layer(Probe::default()).oneshot(get("/orders")).await.unwrap().status().as_u16();
        assert_eq!((send().await, sink.flush().await.is_ok()), (200, true), "{name}");
        std::fs::remove_dir_all(&folder).unwrap();
        let mut served = 0;
        for _ in 0..5 {
            served += usize::from(send().await == 200);
        }
        // What had begun before anybody knew is answered.
        let all_lost =
            if when_full == WhenFull::Refuse { served <= 1 } else { served == 5 && sink.flush().await.is_err() };
        assert!(all_lost && sink.lost() >= 1, "{name}: {served} served, {} lost", sink.lost());
        std::fs::create_dir(&folder).unwrap();
        // Whoever asks after a failure finds out that it is over.
        for _ in 0..500 {
            if send().await == 200 && path.exists() && sink.flush().await.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().next().unwrap().contains("\"entry\":\"gap\""), "{name}: {text}");
        assert!(text.contains("\"decided\""), "{name}: {text}");
    }
}

/// As above, where the path does not say that nothing is there: whatever it says, the file has no name any more.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn where_something_stands_in_the_place_of_the_folder_nothing_counts_as_stored() {
    for (name, block) in [
        ("a file", (|folder| std::fs::write(folder, "").unwrap()) as fn(&Path)),
        ("a link to itself", |folder| std::os::unix::fs::symlink(folder, folder).unwrap()),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("logs");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("audit.jsonl");
        let sink = Arc::new(refusing(&path));
        let audit = AuditLayer::new(Arc::clone(&sink)).without_events();
        let send = async || audit.layer(Probe::default()).oneshot(get("/orders")).await.unwrap().status().as_u16();
        assert_eq!(send().await, 200, "{name}");
        std::fs::remove_dir_all(&folder).unwrap();
        block(&folder);
        let mut served = 0;
        for _ in 0..5 {
            served += usize::from(send().await == 200);
        }
        assert!(served <= 1 && sink.lost() >= 1, "{name}: {served} of 5 served, {} lost", sink.lost());
    }
}

/// With room that is kept on the disk.
fn refusing(path: &Path) -> JsonLines {
    JsonLines::builder().fsync(Fsync::Each).when_full(WhenFull::Refuse).open(path).unwrap()
}

async fn write(sink: &JsonLines, count: usize) {
    for _ in 0..count {
        sink.accept(sample_record("/orders").into()).unwrap();
    }
    sink.flush().await.unwrap();
}

/// Lines that are whole; and so many kilobytes that the disk has for the file.
fn lines_and_room(path: &Path) -> (usize, u64) {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines.len(), std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) / 2)
}

#[tokio::test]
async fn who_closes_a_file_takes_nothing_away_that_another_process_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let (old, new) = (refusing(&path), refusing(&path));
    write(&old, 2).await;
    write(&new, 3).await;
    drop(old);
    assert_eq!(lines_and_room(&path).0, 5);
    write(&new, 4).await;
    drop(new);
    assert_eq!(lines_and_room(&path).0, 9);
    // Nor does who saw nobody write, while somebody may.
    let (old, new) = (refusing(&path), refusing(&path));
    write(&old, 1).await;
    drop(new);
    assert!(lines_and_room(&path).1 > 1024, "the room of the other one stays");
    drop(old);
    assert_eq!(lines_and_room(&path).0, 10);
}

#[tokio::test]
async fn room_that_was_kept_on_the_disk_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let sink = refusing(&path);
    write(&sink, 1).await;
    drop(sink);
    let (lines, room) = lines_and_room(&path);
    assert!(lines == 1 && room < 64, "{room} KiB");
}

#[tokio::test]
async fn a_file_that_is_cut_by_somebody_else_is_written_on_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let sink = refusing(&path);
    write(&sink, 5).await;
    let room = lines_and_room(&path).1;
    // As logrotate does with copytruncate.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(&sink, 1).await;
    let (lines, room_after) = lines_and_room(&path);
    assert!(lines == 1 && room_after >= room / 2, "{room_after} KiB of {room}");
    drop(sink);
    assert_eq!(lines_and_room(&path).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_rotated_by_size_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let builder = JsonLines::builder().rotate_at_size(4_000).fsync(Fsync::Every(std::time::Duration::from_millis(1)));
    let sink = Arc::new(builder.open(&path).unwrap());
    let audit = AuditLayer::new(Arc::clone(&sink)).without_events();
    for _ in 0..60 {
        audit.layer(Probe::default()).oneshot(get("/orders")).await.unwrap();
        sink.flush().await.unwrap();
    }
    drop((audit, sink));
    let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 3, "{files:?}");
    assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 4_000));
    let all: HashSet<_> = files.iter().flat_map(|file| recorded(file)).collect();
    assert_eq!(all.len(), 60);
}
